"""What the daemon answers about the cards and the machine, as records; what it leaves out is absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamarig.dashboard.reading import number, record, records, share, text, texts


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU; sizes in MiB, a figure that it does not give is None."""

    index: int
    name: str
    used: float | None
    total: float | None
    utilisation: float | None
    temperature: float | None
    power: float | None
    limit: float | None
    clock: float | None
    memory_clock: float | None
    throttle: tuple[str, ...]
    services: tuple[tuple[str, float | None], ...]

    @property
    def share(self) -> float | None:
        """How much of its memory is taken, 0 to 1."""
        return share(self.used, self.total)

    @classmethod
    def read(cls, index: int, value: Mapping[str, Any]) -> Card:
        """Read one of GET /gpus."""
        name = text(value.get("model")) or text(value.get("name")) or text(value.get("uuid"))
        return cls(
            index,
            name.replace("NVIDIA ", "").replace("GeForce ", "") or "card",
            number(value.get("used_mib")),
            number(value.get("memory_mib")),
            number(value.get("utilisation")),
            number(value.get("temperature_c")),
            number(value.get("power_w")),
            number(value.get("power_limit_w")),
            number(value.get("clock_mhz")),
            number(value.get("memory_clock_mhz")),
            texts(value.get("throttle")),
            tuple((text(service), number(mib)) for service, mib in record(value.get("services")).items()),
        )


@dataclass(frozen=True, slots=True)
class Gpus:
    """The host's cards, how old in seconds what they said is, and why they could not be asked if so."""

    cards: tuple[Card, ...]
    age: float
    error: str

    @classmethod
    def read(cls, value: object) -> Gpus:
        """Read GET /gpus."""
        found = record(value)
        cards = (Card.read(index, item) for index, item in enumerate(records(found.get("gpus"))))
        return cls(tuple(cards), number(found.get("age_seconds")) or 0.0, text(found.get("error")))


@dataclass(frozen=True, slots=True)
class Machine:
    """The host's processors and memory, sizes in MiB; of each service its cores at work and its memory."""

    cpu: float | None
    load: tuple[float, ...]
    total: float | None
    available: float | None
    model: float | None
    cache: float | None
    system: float | None
    swap_total: float | None
    swap_used: float | None
    services: tuple[tuple[str, float | None, float | None], ...]

    @classmethod
    def read(cls, value: object) -> Machine:
        """Read GET /system."""
        found = record(value)
        memory, swap, load = record(found.get("memory")), record(found.get("swap")), found.get("load")
        services = ((text(name), record(item)) for name, item in record(found.get("services")).items())
        loads = map(number, load) if isinstance(load, list) else ()
        return cls(
            number(found.get("cpu")),
            tuple(value for value in loads if value is not None)[:3],
            number(memory.get("total_mib")),
            number(memory.get("available_mib")),
            number(memory.get("model_mib")),
            number(memory.get("cache_mib")),
            number(memory.get("system_mib")),
            number(swap.get("total_mib")),
            number(swap.get("used_mib")),
            tuple((name, number(item.get("cpu")), number(item.get("memory_mib"))) for name, item in services),
        )
