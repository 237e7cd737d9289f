"""What cards, processors and memory are busy with, and for which service; as the API gives it.

Nobody waits for a driver that hangs: then the last reading is given, with its age and what is wrong.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llamarig.daemon.errand import Errand
from llamarig.errors import LlamarigError
from llamarig.hardware.declared import DeclaredCard, paired, read_declared
from llamarig.hardware.gpus import DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, Card, NvmlError, Reading
from llamarig.hardware.usage import (
    CpuTimes,
    MemoryUse,
    ProcessUse,
    read_cpu,
    read_load,
    read_memory,
    read_process,
)
from llamarig.runtime.cgroups import contained_by
from llamarig.runtime.specs import SpecStore

# A reading serves everybody who asks within this time.
_KEPT_SECONDS: Final = 1.5
# How long an answer waits for a new reading before it gives the last one; longer where there is none yet.
_PATIENCE_SECONDS: Final = 0.7
_FIRST_SECONDS: Final = 3.0
# Shares of time are taken over at least so long, and never over so long that they say nothing of now.
_LEAST_SECONDS: Final = 0.2
_MOST_SECONDS: Final = 10.0
_NO_DRIVER: Final = frozenset({LIBRARY_NOT_FOUND, DRIVER_NOT_LOADED})


@dataclass(frozen=True, slots=True)
class _Sample:
    """Processors and engines' processes at one moment, by service."""

    time: float
    cpu: CpuTimes | None
    services: Mapping[str, tuple[ProcessUse, ...]]


class Gauges:
    """The gauges of a host; may be asked by many threads at once.

    ``reading`` asks NVML, and may hang or raise an NvmlError.
    """

    def __init__(
        self,
        root: Path,
        specs: SpecStore,
        reading: Callable[[], Reading],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.root = root
        self.specs = specs
        self.reading = reading
        self.clock = clock
        self.sleep = sleep
        self._cards = threading.Lock()
        self._errand: Errand[Reading] | None = None
        self._last: Reading | None = None
        self._error: NvmlError | None = None
        self._read_at: float | None = None
        self._asked_at: float | None = None
        self._machine = threading.Lock()
        self._sample: _Sample | None = None
        self._system: tuple[float, dict[str, Any]] | None = None

    def gpus(self) -> dict[str, Any]:
        """Return what the cards say: a card that cannot be read is named in ``error`` and left out of ``gpus``."""
        with self._cards:
            self._ask_cards()
            errand = self._errand
            patience = _PATIENCE_SECONDS if self._last is not None or self._error is not None else _FIRST_SECONDS
        if errand is not None:
            errand.wait(patience)
        with self._cards:
            self._take_cards()
            reading, moment = self._last, self.clock()
            declared = self._declared()
            age = None if self._read_at is None else round(moment - self._read_at, 1)
            error = self._what_is_wrong(declared, moment)
        known = self._services()
        names = {card.uuid: wanted.name for wanted, card in paired(declared, reading.cards if reading else ()) if card}
        cards = [] if reading is None else [self._card(card, names, known) for card in reading.cards]
        return {"gpus": cards, "age_seconds": age, "error": error}

    def system(self) -> dict[str, Any]:
        """Return what processors and memory are used for; waits a fifth of a second where nobody asked lately."""
        with self._machine:
            if self._system is not None and self.clock() - self._system[0] < _KEPT_SECONDS:
                return self._system[1]
            before, after = self._samples()
            found = self._said(before, after)
            self._system = (self.clock(), found)
            return found

    # The cards.

    def _ask_cards(self) -> None:
        """Have the cards read, unless they were just now, or have not answered yet."""
        self._take_cards()
        moment = self.clock()
        if self._errand is None and (self._asked_at is None or moment - self._asked_at >= _KEPT_SECONDS):
            self._asked_at = moment
            self._errand = Errand(self.reading, moment)

    def _take_cards(self) -> None:
        if self._errand is None or not self._errand.is_over:
            return
        errand, self._errand = self._errand, None
        try:
            self._last = errand.result()
            self._error, self._read_at = None, self.clock()
        except NvmlError as error:
            self._error = error

    def _what_is_wrong(self, declared: Iterable[DeclaredCard], moment: float) -> str | None:
        if self._errand is not None and moment - self._errand.began >= _PATIENCE_SECONDS:
            return f"NVML has not answered for {moment - self._errand.began:.1f} s"
        if self._error is not None:
            return None if self._error.code in _NO_DRIVER and not list(declared) else self._error.message
        faults = self._last.faults if self._last else ()
        said = [f"card {fault.uuid or fault.index}: {fault.error.message}" for fault in faults]
        return "; ".join(said) or None

    def _declared(self) -> tuple[DeclaredCard, ...]:
        try:
            declared = read_declared(self.root)
        except LlamarigError:
            return ()
        return declared.cards if declared else ()

    def _card(self, card: Card, names: Mapping[str, str], known: frozenset[str]) -> dict[str, Any]:
        return {
            "uuid": card.uuid,
            "name": names.get(card.uuid, card.name),
            "model": card.name,
            "memory_mib": card.memory_mib,
            "used_mib": card.memory_used_mib,
            "utilisation": card.utilisation,
            "temperature_c": card.temperature_c,
            "power_w": card.power_w,
            "power_limit_w": card.power_limit_w,
            "clock_mhz": card.clock_mhz,
            "memory_clock_mhz": card.memory_clock_mhz,
            "throttle": None if card.throttle is None else list(card.throttle),
            "services": self._held(card, known),
        }

    def _held(self, card: Card, known: frozenset[str]) -> dict[str, int | None]:
        """Return how much of a card each service holds, in MiB; None where the driver does not say how much."""
        held: dict[str, int | None] = {}
        for process in card.processes or ():
            service = contained_by(process.pid, self.root)
            if service in known:
                before = held.get(service, 0)
                held[service] = None if before is None or process.used_mib is None else before + process.used_mib
        return held

    def _services(self) -> frozenset[str]:
        """Return the services that this host runs; a slice of another's may have such a name too."""
        try:
            return frozenset(spec.service for spec in self.specs.all())
        except LlamarigError:
            return frozenset()

    # Processors and memory.

    def _samples(self) -> tuple[_Sample, _Sample]:
        """Return two samples, far enough from each other and not too far."""
        before, after = self._sample, self._take_sample()
        if before is None or not _LEAST_SECONDS <= after.time - before.time <= _MOST_SECONDS:
            before = after
            self.sleep(_LEAST_SECONDS)
            after = self._take_sample()
        self._sample = after
        return before, after

    def _take_sample(self) -> _Sample:
        known = self._services()
        found: dict[str, list[ProcessUse]] = {}
        for entry in (self.root / "proc").glob("[0-9]*"):
            pid = int(entry.name)
            service = contained_by(pid, self.root)
            if service in known and (use := read_process(pid, self.root, memory=True)) is not None:
                found.setdefault(service, []).append(use)
        services = {name: tuple(uses) for name, uses in sorted(found.items())}
        return _Sample(self.clock(), read_cpu(self.root), services)

    def _said(self, before: _Sample, after: _Sample) -> dict[str, Any]:
        memory = read_memory(self.root)
        share = after.cpu.share_since(before.cpu) if before.cpu and after.cpu else None
        services = {
            name: {
                "cpu": _cores(before.services.get(name, ()), uses, after.time - before.time),
                "memory_mib": round(sum(use.anonymous_mib + use.file_mib for use in uses)),
            }
            for name, uses in after.services.items()
        }
        return {
            "cpu": None if share is None else round(share, 4),
            "load": read_load(self.root),
            "memory": None if memory is None else _split(memory, after),
            "swap": None if memory is None else {"total_mib": memory.swap_total, "used_mib": memory.swap_used},
            "services": services,
        }


def _cores(before: Iterable[ProcessUse], after: Iterable[ProcessUse], seconds: float) -> float | None:
    """Return how many processors' worth processes computed; None where no time has passed.

    One that was not there before is counted from the next time on.
    """
    if seconds <= 0:
        return None
    earlier = {(use.pid, use.began): use.cpu_seconds for use in before}
    computed = sum(use.cpu_seconds - earlier.get((use.pid, use.began), use.cpu_seconds) for use in after)
    return round(max(0.0, computed) / seconds, 3)


def _split(memory: MemoryUse, sample: _Sample) -> dict[str, int]:
    """Split the memory in use: models (what engines hold, and the files that they have mapped), cache, the rest.

    Two engines may have one file mapped: more than there is in memory cannot be theirs.
    """
    uses = [use for group in sample.services.values() for use in group]
    mapped = min(memory.cache, round(sum(use.file_mib for use in uses)))
    model = min(memory.total - memory.free, round(sum(use.anonymous_mib for use in uses)) + mapped)
    cache = memory.cache - mapped
    return {
        "total_mib": memory.total,
        "available_mib": memory.available,
        "model_mib": model,
        "cache_mib": cache,
        "system_mib": max(0, memory.total - memory.free - model - cache),
    }
