"""The records that users write, as pydantic models: what is allowed, and nothing else.

They check shape only. What depends on several records (ports, engine options, memory) is the planner's.
"""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Final, Literal

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


Slug = Annotated[str, AfterValidator(_slug)]
ModelPath = Annotated[str, AfterValidator(_relative)]
ProfileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Port = Annotated[int, Field(ge=1024, le=65535)]
Mib = Annotated[int, Field(gt=0)]
Seconds = Annotated[int, Field(gt=0)]


class Record(BaseModel):
    """Base of all records: immutable, strict about types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Strategy(StrEnum):
    """How one server is laid over GPUs and CPU."""

    CPU = "cpu"


class ModelFile(Record):
    """One GGUF file: where it comes from, and how it is known to be the right one."""

    name: ModelPath = Field(
        description="Path below the models directory, of letters, digits and `. _ + - /`; the first file is the model."
    )
    bytes: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="Size. A file that a service uses must have it."
    )
    sha256: Sha256 | None = Field(default=None, description="Checksum. A file that a service uses must have it.")
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")] | None = Field(
        default=None, description="Where the host fetches it. A file has a url or a path, not both."
    )
    path: str | None = Field(
        default=None,
        description="Where it is on the control node, from where it is pushed; a relative path begins at the checkout.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> ModelFile:
        if self.url and self.path:
            msg = "has both url and path; a file has one source"
            raise ValueError(msg)
        return self


class Profile(Record):
    """A model with its recommended server settings."""

    description: str = Field(default="", description="What a person should know when choosing it.")
    files: Annotated[list[ModelFile], Field(min_length=1)] = Field(
        description="Its files. The engine is started with the first, so of a split model that is the first part."
    )
    server: dict[str, ServerValue] = Field(
        default={}, description="Recommended llama-server options: long option in snake_case, and its value."
    )


class Service(Record):
    """What a host runs."""

    name: Slug = Field(description=f"Its name on the host: {SLUG_RULE}.")
    profile: ProfileName = Field(description="The profile it serves, a key of the catalogue.")
    strategy: Annotated[Strategy, Field(strict=False)] = Field(
        description="How the server is laid over the host's hardware."
    )
    port: Port = Field(description="Port on the host. Each service of a host has its own; 8081 is not free.")
    bind: str = Field(
        default="127.0.0.1",
        description="IP address on which the port is published. Any but a loopback address needs an api_key.",
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
        default=30, description="How long an engine that was asked to end is waited for before it is made to end."
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


class Hardware(Record):
    """The declared side of a host, so that planning needs no host."""

    memory_mib: Mib = Field(description="Memory of the host, in MiB. A host that has less is refused.")
    cpu_threads: Annotated[int, Field(gt=0)] = Field(description="Threads that an engine on the CPU uses.")
    reserve_mib: Mib = Field(
        default=1024, description="Memory that no service may take, in MiB, so that the host can be reached."
    )


class Engine(Record):
    """The engine image as the plan needs it; how it is built is the llama_image role's."""

    recipe: Literal["debian-package"] = Field(description="How the image is made.")
    repository: str = Field(default="llamarig/llama-cpp", description="The image's name before the colon.")
    inputs: dict[str, Any] = Field(
        description="Everything that goes into the image; the image's tag is made of its hash."
    )


class HostIntent(Record):
    """Everything one host's plan is made from."""

    host: str = Field(description="The host's name in the inventory.")
    hardware: Hardware = Field(description="The declared side of the host. Planning reads this and never the host.")
    services: list[Service] = Field(description="What the host runs; one of them is active at a time.")
    default_service: str | None = Field(
        default=None,
        description="The service that serves when nobody chose another; without it, the first of the list.",
    )
    server_defaults: dict[str, ServerValue] = Field(
        default={},
        description="llama-server options for every service: over profile and strategy, under the service's own.",
    )
    engine: Engine = Field(description="The engine, and what goes into its image.")
    models_dir: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]+$")] = Field(
        default="/srv/llamarig/models", description="Where model files live on every host."
    )
