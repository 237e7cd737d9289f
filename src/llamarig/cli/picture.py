"""What a picture of plans shows, before anybody draws it: one bar for each card and for the host's memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llamarig.config.spec import DeviceMemory, HostMemory, Spec

# The parts of a bar in the order in which they are drawn, and what they are. What is left of a bar is free.
PARTS: Final[Mapping[str, str]] = {
    "weights": "the model",
    "cache": "what it remembers of a conversation",
    "compute": "buffers to compute in",
    "process": "CUDA context; on the host prompt cache, checkpoints, the process itself",
    "kept": "reserve, driver and margin, which no service may take",
}
_MOST_HOSTS: Final = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """The memory of one card, or of the host as far as a service may take it.

    Attributes:
        label: the card's name in the inventory, or ``host``.
        total: MiB of all of it.
        parts: MiB by the names of ``PARTS``.

    """

    label: str
    total: int
    parts: Mapping[str, int]

    @property
    def free(self) -> int:
        """MiB that are left for others; negative where the parts are more than there is."""
        return self.total - sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Entry:
    """One service.

    Attributes:
        name: of the service.
        mark: ``active`` or ``default`` where it is that, else empty.
        strategy: as it was asked for, and where the planner chose, what it chose: ``auto: D``.
        reason: why it lies so.
        bars: of its cards, and of the host; none where nothing is predicted.

    """

    name: str
    mark: str
    strategy: str
    reason: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """What keeps a plan from being deployed: what is missing, in which places, and the remedy for all of them."""

    what: str
    where: tuple[str, ...]
    remedy: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One host, or several of which all is the same.

    Attributes:
        hosts: their names.
        cards: a line for each card: what it is.
        entries: their services.
        together: lines on which services fit side by side.
        warnings: what a person should know.
        incomplete: why it cannot be deployed yet.

    """

    hosts: tuple[str, ...]
    cards: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    together: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    incomplete: tuple[Missing, ...] = ()


def entry(spec: Spec, mark: str = "") -> Entry:
    """Picture one service."""
    bars: list[Bar] = []
    if spec.memory is not None:
        bars = [card_bar(device) for device in spec.memory.devices] + [host_bar(spec.memory.host)]
    return Entry(spec.service, mark, strategy_of(spec), spec.reason, tuple(bars))


def strategy_of(spec: Spec) -> str:
    """Say which strategy was asked for, and which is carried out where the planner chose."""
    return spec.strategy if spec.asked in {"", spec.strategy} else f"{spec.asked}: {spec.strategy}"


def card_bar(device: DeviceMemory) -> Bar:
    """Picture what one card holds of a service."""
    parts = {
        "weights": device.weights,
        "cache": device.cache,
        "compute": device.compute,
        "process": device.context,
        "kept": device.kept,
    }
    return Bar(device.name, device.memory, parts)


def host_bar(host: HostMemory) -> Bar:
    """Picture what the host holds of a service, of what it may take."""
    parts = {"weights": host.weights, "cache": host.cache, "compute": host.compute, "process": host.other}
    return Bar("host", host.limit, parts)


def card_lines(hardware: Mapping[str, Any]) -> tuple[str, ...]:
    """Describe a host's cards and memory, as its inventory declares them."""
    lines = []
    for card in hardware.get("gpus", []):
        reserve = f", {gib(card['reserve_mib'])} GiB reserved" if card.get("reserve_mib") else ""
        lines.append(f"{card['name']}: {card['model']}, {gib(card['memory_mib'])} GiB{reserve}")
    memory, reserve_mib = hardware["memory_mib"], hardware["reserve_mib"]
    lines.append(
        f"host: {gib(memory)} GiB of memory, {gib(reserve_mib)} GiB reserved, {hardware['cpu_threads']} threads"
    )
    return tuple(lines)


def hosts_named(hosts: Sequence[str]) -> str:
    """List hosts; of very many the first, and how many more."""
    if len(hosts) <= _MOST_HOSTS:
        return ", ".join(hosts)
    return f"{', '.join(hosts[: _MOST_HOSTS - 1])} and {len(hosts) - _MOST_HOSTS + 1} more"


def gib(mib: int) -> str:
    """Write MiB as GiB with two digits; nothing is a dash, and what is too small to see is not nothing."""
    if mib == 0:
        return "-"
    text = f"{mib / 1024:.2f}"
    return text if text not in {"0.00", "-0.00"} else "0.01"
