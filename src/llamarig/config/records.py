"""The records that users write, as pydantic models: what is allowed, and nothing else.

They check shape only. What depends on several records (ports, engine options, memory) is the planner's.
"""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

ServerValue = bool | int | float | str | list[str | int | float] | None

SLUG: Final = r"[a-z0-9]+(-[a-z0-9]+)*"
SLUG_MOST: Final = 48
SLUG_RULE: Final = "lower-case letters and digits, single hyphens between them, at most 48 characters"


def _slug(value: str) -> str:
    if not re.fullmatch(SLUG, value) or len(value) > SLUG_MOST:
        msg = f"{value!r} is not a valid name: {SLUG_RULE}"
        raise ValueError(msg)
    return value


def _relative(value: str) -> str:
    parts = value.split("/")
    if value.startswith("/") or ".." in parts or "" in parts or not re.fullmatch(r"[A-Za-z0-9._+/-]+", value):
        msg = f"{value!r} must be a path below the models directory, of letters, digits and . _ + - /"
        raise ValueError(msg)
    return value


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError as error:
        msg = f"{value!r} is no network of addresses: {error}"
        raise ValueError(msg) from None


Slug = Annotated[str, AfterValidator(_slug)]
Network = Annotated[str, AfterValidator(_network)]
ModelPath = Annotated[str, AfterValidator(_relative)]
ProfileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Port = Annotated[int, Field(ge=1024, le=65535)]
Mib = Annotated[int, Field(gt=0)]
Seconds = Annotated[int, Field(gt=0)]
Minutes = Annotated[int, Field(gt=0)]


class Record(BaseModel):
    """Base of all records: immutable, strict about types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Strategy(StrEnum):
    """How one server is laid over GPUs and CPU."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"
    FIT = "fit"
    AUTO = "auto"
    CPU = "cpu"


class Service(Record):
    """What a host runs."""

    name: Slug = Field(description=f"Its name on the host: {SLUG_RULE}.")
    profile: ProfileName = Field(description="The profile it serves, a key of the catalogue.")
    strategy: Annotated[Strategy, Field(strict=False)] = Field(
        description="How the server is laid over the host's hardware."
    )
    gpus: list[Slug] | None = Field(
        default=None,
        description="Cards that it may use, by their names in `host_hardware.gpus`; without it, all of the host's.",
    )
    blocks: dict[Slug, Annotated[int, Field(ge=0)]] | None = Field(
        default=None,
        description=(
            "A layout of one's own for B, C and D: how many blocks lie on each card, by its name; under D, how many"
            " with their experts. Without it, the planner finds the most that fit."
        ),
    )
    vision: bool = Field(default=False, description="Whether it loads the profile's vision projector (`mmproj`).")
    port: Port = Field(
        description=(
            "Port on the host. Services may share one if their bind and sources are the same: they take turns, and the"
            " one that serves answers there. Those of the management API and the exporter,"
            " `agent_api_port` and `exporter_port`, are not free."
        )
    )
    bind: str = Field(
        default="127.0.0.1",
        description="IP address on which the port is published. Any but a loopback address needs an api_key.",
    )
    sources: list[Network] = Field(
        default=[],
        description="Networks that the firewall lets reach the port, as `192.0.2.0/24`; none named means everybody.",
    )
    api_key: Annotated[str, StringConstraints(min_length=16, pattern=r"^[\x21-\x7e]+$")] | None = Field(
        default=None, description="Key that clients must send, printable ASCII without spaces; keep it in a vault."
    )
    server: dict[str, ServerValue] = Field(
        default={},
        description="llama-server options of this service alone, over all other layers; `null` takes an option away.",
    )
    memory_mib: Mib | None = Field(
        default=None,
        description="Memory limit of the container, in MiB; without it, the host's memory less its reserve.",
    )
    load_timeout_seconds: Seconds = Field(
        default=300, description="How long a switch waits for the model to load before it goes back."
    )
    drain_seconds: Seconds = Field(
        default=30,
        description="How long requests under way may go on when the service is made to leave; then they are cut.",
    )
    pinned: bool = Field(
        default=False,
        description="Whether it is never made to leave for another service; who wants the other stops this one first.",
    )
    idle_minutes: Minutes | None = Field(
        default=None,
        description=(
            "After so many minutes without a request it leaves, and the default service returns; without it, it stays."
        ),
    )

    @model_validator(mode="after")
    def _address(self) -> Service:
        try:
            IPv4Address(self.bind)
        except ValueError:
            try:
                IPv6Address(self.bind)
            except ValueError:
                msg = f"bind {self.bind!r} is not an IP address"
                raise ValueError(msg) from None
        return self


class Gpu(Record):
    """One card of a host; `llamarig detect` writes them."""

    name: Slug = Field(description=f"What this inventory calls the card: {SLUG_RULE}.")
    uuid: Annotated[str, StringConstraints(pattern=r"^GPU-[0-9a-f-]{36}$")] = Field(
        description="Its UUID, as NVML says it. Everything addresses the card by it, so that its slot does not matter."
    )
    model: str = Field(description="Its model, as NVML says it.")
    memory_mib: Mib = Field(description="Its memory in MiB, as NVML says it.")
    compute_capability: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")] = Field(
        description="Its compute capability, for example `8.9`; in quotes, or YAML makes a number of it."
    )
    pci_address: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")] | None = (
        Field(
            default=None,
            description="Its place on the PCI bus. A card that is not there is refused before a driver exists.",
        )
    )
    pcie_generation: Annotated[int, Field(ge=1, le=7)] | None = Field(
        default=None, description="PCIe generation of its slot; the doctor warns of less."
    )
    pcie_width: Annotated[int, Field(ge=1, le=32)] | None = Field(
        default=None, description="PCIe lanes of its slot; the doctor warns of fewer."
    )
    reserve_mib: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Memory that no service may take, in MiB, such as for a display."
    )
    power_limit_watts: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="Power limit in watts; refused outside what the card says it can take."
    )
    lock_clocks_mhz: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="Lowest and highest clock of the graphics cores, in MHz."
    )

    @model_validator(mode="after")
    def _possible(self) -> Gpu:
        if self.reserve_mib >= self.memory_mib:
            msg = f"reserve_mib {self.reserve_mib} leaves nothing of its {self.memory_mib} MiB"
            raise ValueError(msg)
        if self.lock_clocks_mhz and self.lock_clocks_mhz[0] > self.lock_clocks_mhz[1]:
            msg = f"lock_clocks_mhz {self.lock_clocks_mhz} has its highest clock first"
            raise ValueError(msg)
        return self


class Hardware(Record):
    """The declared side of a host, so that planning needs no host."""

    memory_mib: Mib = Field(description="Memory of the host, in MiB. A host that has less is refused.")
    cpu_threads: Annotated[int, Field(gt=0)] = Field(description="Threads that an engine on the CPU uses.")
    reserve_mib: Mib = Field(
        default=1024, description="Memory that no service may take, in MiB, so that the host can be reached."
    )
    gpus: list[Gpu] = Field(default=[], description="Its cards, in the order of the PCI bus.")

    @model_validator(mode="after")
    def _distinct(self) -> Hardware:
        for key in ("name", "uuid", "pci_address"):
            values = [getattr(gpu, key) for gpu in self.gpus if getattr(gpu, key) is not None]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                msg = f"two cards have the {key} {', '.join(twice)}"
                raise ValueError(msg)
        addresses = [gpu.pci_address for gpu in self.gpus if gpu.pci_address]
        if addresses != sorted(addresses):
            msg = f"gpus do not stand in the order of the PCI bus, in which CUDA counts them: {', '.join(addresses)}"
            raise ValueError(msg)
        return self


class Allowed(Record):
    """A port of the host that others may reach, beside SSH and the services of the plan."""

    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        description="Port on the host; for a container, the one it is published on."
    )
    protocol: Literal["tcp", "udp"] = Field(default="tcp", description="What is spoken there.")
    sources: list[Network] = Field(
        default=[], description="Networks that may reach it, as `192.0.2.0/24`, IPv4 or IPv6; none means everybody."
    )
    comment: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 .,:;()/@_+-]{0,100}$")] = Field(
        default="", description="What it is for; shown by `nft list table inet llamarig`."
    )
