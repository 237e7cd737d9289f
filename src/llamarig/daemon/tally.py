"""What switches came to, and services were found to be, since the daemon was started; for its metrics."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Sums:
    """Sums over switches, and over looks at services.

    Attributes:
        switches: how many, by service and outcome.
        phases: seconds, by service and phase.
        last, load: seconds that the last one to a service took that came to its end, and its engine's start in it.
        faults: how often a service was found to be so, by service and health.

    """

    switches: Counter[tuple[str, str]] = field(default_factory=Counter)
    phases: dict[tuple[str, str], float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    load: dict[str, float] = field(default_factory=dict)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)


class Tally:
    """Counts; one thread switches, another looks, and any may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = Sums()

    def switched(self, service: str, outcome: str, phases: Mapping[str, float]) -> None:
        """Count one switch to a service; ``phases`` are the seconds of each of its own."""
        with self._lock:
            sums = self._sums
            sums.switches[service, outcome] += 1
            for phase, seconds in phases.items():
                sums.phases[service, phase] = sums.phases.get((service, phase), 0.0) + seconds
            if outcome == "ok":
                sums.last[service] = sum(phases.values())
                if "load" in phases:
                    sums.load[service] = phases["load"]

    def found(self, service: str, health: str) -> None:
        """Count that a service was found to be other than before."""
        with self._lock:
            self._sums.faults[service, health] += 1

    def sums(self) -> Sums:
        """Return what was counted so far."""
        with self._lock:
            sums = self._sums
            counts = Counter(sums.switches), dict(sums.phases), dict(sums.last), dict(sums.load), Counter(sums.faults)
            return Sums(*counts)
