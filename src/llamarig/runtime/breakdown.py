"""What a service's memory is made of, device by device, and what a running llama-server says it allocated.

The engine logs the size of every buffer once (verbosity 4, which specs set). It sums them up itself only when it ends,
or before it loads, as what it intends with ``--fit on``; so the buffers are what is read.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from llamarig.config import paths
from llamarig.runtime.logline import plain
from llamarig.runtime.systemd import journal

HOST: Final = "Host"
# A start logs some 200 lines, 40 more for each layout that --fit tries, and one for each range of tensors on the CPU.
START_LINES: Final = 5000
_START: Final = "load_model: loading model '"
_DEVICE: Final = re.compile(r"using device (?P<name>\S+) \((?P<description>.*?)\)(?: \(| -)")
_OFFLOADED: Final = re.compile(r"offloaded (\d+/\d+) layers to GPU")
_BUFFER: Final = re.compile(r"^(?P<by>\w+): +(?P<buffer>\S+) +(?P<kind>\S.*?) buffer size = +(?P<mib>[\d.]+) MiB")
_VISION_DEVICE: Final = re.compile(r"CLIP using (\S+) backend")
_VISION_SIZE: Final = re.compile(r"^\w+: model size: +([\d.]+) MiB")
_CONTEXT: Final = "constructing llama_context"
_WEIGHTS: Final = ("model", "LoRA")


@dataclass(frozen=True, slots=True)
class Part:
    """What one device, or the host, holds of a service, in MiB.

    Attributes:
        name: as whoever says it calls the device: a card's name in a plan, ``CUDA0`` where the engine speaks.
        weights, cache, compute: as the engine's own breakdown names them: model, context, compute.
        vision: the compute buffer of a vision projector, which neither plan nor llama-fit-params knows.

    """

    name: str
    weights: float
    cache: float
    compute: float
    vision: float = 0.0

    @property
    def total(self) -> float:
        """What can be predicted of it; without ``vision``."""
        return self.weights + self.cache + self.compute


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What a service holds.

    Attributes:
        devices: of each device, in the server's order.
        host: of the host's memory, in whatever buffers.
        offloaded: layers on devices as the engine counts them (``13/13``), empty where it said nothing. A build that
            could use devices counts them also where there is no device at all: only ``devices`` proves anything.

    """

    devices: tuple[Part, ...]
    host: Part
    offloaded: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Breakdown:
        """Build it from its JSON.

        Raises:
            KeyError, TypeError: it is no such JSON.

        """
        devices = tuple(Part(**item) for item in data["devices"])
        return cls(devices, Part(**data["host"]), str(data["offloaded"]))


def start_log(service: str) -> list[str]:
    """Return what a service logged since its unit was started, the first lines of it; empty where it does not run."""
    command = ["/usr/bin/systemctl", "show", "--property=InvocationID", "--value", paths.unit(service)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:  # a machine without systemd runs no service
        return []
    invocation = done.stdout.strip()
    if not invocation:
        return []
    return journal(service, [f"_SYSTEMD_INVOCATION_ID={invocation}", f"--lines=+{START_LINES}"])


def read_log(lines: Sequence[str]) -> Breakdown | None:
    """Read what the last load of a log allocated; None where the log holds no load that came to its end.

    Lines are llama-server's ``--log-jsonl``; what compose or systemd say in between is passed over.
    """
    events = list(_events(lines))
    starts = [place for place, (_, message) in enumerate(events) if _START in message]
    if not starts:
        return _summed_up(events)
    load = _Load()
    for _, message in events[starts[-1] :]:
        load.read(message)
    return load.result()


def _events(lines: Iterable[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the engine's own lines: each as an object, and its message where it has one."""
    for line in lines:
        text = plain(line)
        if not text.startswith("{"):
            continue
        try:
            event = json.loads(text)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event, str(event.get("msg", "")).rstrip()


def _summed_up(events: Sequence[tuple[dict[str, Any], str]]) -> Breakdown | None:
    """Read the breakdown with which a server ends, where the log has lost the server's start."""
    if any(_BUFFER.search(message) for _, message in events):
        return None
    found = [event["data"]["rows"] for event, _ in events if event.get("type") == "fit_memory_breakdown"]
    if not found:
        return None
    rows = found[-1]
    devices = tuple(_part(row) for row in rows if row["kind"] == "device")
    host = [_part(row) for row in rows if row["kind"] != "device"]
    return Breakdown(devices, _sum(HOST, host))


def _part(row: Mapping[str, Any]) -> Part:
    return Part(str(row["name"]), row["model"], row["context"], row["compute"])


def _sum(name: str, parts: Sequence[Part]) -> Part:
    return Part(
        name,
        sum(part.weights for part in parts),
        sum(part.cache for part in parts),
        sum(part.compute for part in parts),
    )


@dataclass
class _Load:
    """One load of a server, with a draft model and a vision projector where it has them."""

    devices: dict[str, str] = field(default_factory=dict)
    offloaded: str = ""
    weights: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    cache: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    # A context that reserves again replaces its own buffers, and only those.
    contexts: list[dict[str, float]] = field(default_factory=list)
    vision: dict[str, float] = field(default_factory=dict)
    vision_device: str = ""
    vision_weights: float = 0.0

    def read(self, message: str) -> None:
        """Take in one message."""
        if found := _BUFFER.search(message):
            self._buffer(found["by"], found["buffer"], found["kind"], float(found["mib"]))
        elif found := _DEVICE.search(message):
            self.devices.setdefault(found["name"], found["description"])
        elif found := _OFFLOADED.search(message):
            self.offloaded = self.offloaded or found[1]
        elif found := _VISION_DEVICE.search(message):
            self.vision_device = found[1]
        elif found := _VISION_SIZE.search(message):
            self.vision_weights = float(found[1])
        elif _CONTEXT in message:
            self.contexts.append({})

    def result(self) -> Breakdown | None:
        """Return what was allocated, None where the load has not come to its end."""
        if not self.weights or not any(self.contexts):
            return None
        weights = [*self.weights.items(), (self.vision_device, self.vision_weights)]
        compute = [item for context in self.contexts for item in context.items()]
        tables = (weights, self.cache.items(), compute, self.vision.items())
        placed = [self._by_device(table) for table in tables]
        names = [*self.devices, HOST]
        parts = [Part(name, *(round(table[name], 2) for table in placed)) for name in names]
        return Breakdown(tuple(parts[:-1]), parts[-1], self.offloaded)

    def _buffer(self, by: str, buffer: str, kind: str, mib: float) -> None:
        if kind == "output":  # logits on the host, which nobody's breakdown counts
            return
        if kind in _WEIGHTS:
            self.weights[buffer] += mib
        elif kind != "compute":
            self.cache[buffer] += mib
        elif by == "sched_reserve" and self.contexts:
            self.contexts[-1][buffer] = mib
        else:
            self.vision[buffer] = mib

    def _by_device(self, table: Iterable[tuple[str, float]]) -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        for buffer, mib in table:
            found[self._device(buffer)] += mib
        return found

    def _device(self, buffer: str) -> str:
        """Return the device that a buffer lies on; all others are the host's (CPU_Mapped, CUDA_Host, CPU_REPACK, AMX).

        RPC calls the buffers of every device of its own RPC0, and tells them apart by their address.
        """
        for name, description in self.devices.items():
            if buffer in {name, f"{name}_Mapped"} or buffer.partition("[")[2] == f"{description}]":
                return name
        return HOST
