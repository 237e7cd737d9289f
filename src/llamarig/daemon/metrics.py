"""What the daemon counts and knows, for Prometheus: every metric of ``config/metrics.py`` whose source it is.

Nothing here goes through the door, starts anything or takes a slot of an engine, so a scrape is no request: it keeps no
service from being idle, and wakes none. Engines are asked on their own sockets, those of active services alone.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.board import Board, Views
from llamarig.daemon.engine_metrics import PATIENCE_SECONDS, EngineMetrics, of_engines
from llamarig.daemon.memory import MemoryStore
from llamarig.daemon.sights import Health
from llamarig.daemon.supervisor import View
from llamarig.daemon.tally import Sums, Tally
from llamarig.runtime.breakdown import Breakdown
from llamarig.runtime.engine import SLEEPS
from llamarig.runtime.specs import SpecStore
from llamarig.web.exposition import Sample, exposition

# One answer serves everybody who asks within this time.
_KEPT_SECONDS: Final = 1.0
_MIB: Final = 1 << 20
HEALTHS: Final = (*(health.value for health in Health), "unknown")
FAULTS: Final = tuple(health.value for health in Health if health not in {Health.OK, Health.LOADING})
_LOG: Final = logging.getLogger(__name__)


class Metrics:
    """Writes the daemon's metrics; may be asked by many threads at once.

    Args:
        board, views, specs, memory, tally: of this host.
        ask: asks an engine for its own metrics, on its own socket, and ends by itself.
        requests: returns how many requests the API answered, by route and status.
        patience: seconds that engines are waited for, all of them together.

    """

    def __init__(
        self,
        *,
        board: Board,
        views: Views,
        specs: SpecStore,
        memory: MemoryStore,
        tally: Tally,
        ask: Callable[[Spec], str],
        requests: Callable[[], Mapping[tuple[str, str], int]],
        patience: float = PATIENCE_SECONDS,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = board
        self._views = views
        self._store = specs
        self._memory = memory
        self._tally = tally
        self._engines = EngineMetrics(ask, patience=patience)
        self._requests = requests
        self._clock = clock
        self._begun = now()
        self._lock = threading.Lock()
        self._last: tuple[float, str] | None = None

    def text(self) -> str:
        """Return all of it in Prometheus's text format; waits for engines, no longer than its patience."""
        with self._lock:
            if self._last is None or self._clock() - self._last[0] >= _KEPT_SECONDS:
                text = self._write()
                self._last = self._clock(), text
            return self._last[1]

    def _write(self) -> str:
        specs, status, views = self._board.specs(), self._board.status(), self._views.view()
        active = {item["service"]: item for item in status["active"]}
        said = self._engines.read(
            spec for name, spec in specs.items() if name in active and _may_ask(spec, views.get(name))
        )
        found = _Found()
        self._services(found, specs, status, active, views)
        self._memories(found, specs.values())
        sums = self._tally.sums()
        self._switches(found, status, sums)
        self._faults(found, active, sums)
        for name, text in said.items():
            found.add("engine_up", text is not None, name)
        for (route, code), count in self._requests().items():
            found.add("api_requests_total", count, route, code)
        version = self._board.version()
        found.add("daemon_info", 1, version["version"], version["release"] or "")
        found.add("daemon_start_time_seconds", self._begun)
        own = exposition(found.samples).decode("utf-8")
        return own + of_engines({name: text for name, text in said.items() if text is not None})

    def _services(
        self,
        found: _Found,
        specs: Mapping[str, Spec],
        status: Mapping[str, Any],
        active: Mapping[str, Mapping[str, Any]],
        views: Mapping[str, View],
    ) -> None:
        policy, (image, commit) = self._board.policy(), self._engine()
        for name, spec in specs.items():
            built = commit if spec.image == image else ""
            hashed = active[name]["version"] if name in active else spec.spec_sha256
            found.add("service_info", 1, name, spec.profile, spec.strategy, hashed, spec.image, built, str(spec.port))
            found.add("service_pinned", policy.of(name).pinned, name)
            found.add("service_default", name == status["default"], name)
            found.add("service_given_up", name in status["given_up"], name)
        for name in {**specs, **active}:
            found.add("service_active", name in active, name)
        for name, item in active.items():
            health = _health(item["health"], views.get(name))
            for one in HEALTHS:
                found.add("service_health", one == health, name, one)
            found.add("service_planned", item["planned"], name)
            view = views.get(name)
            # Of one that nobody has looked at yet it is not 0: a count that comes back is no restart.
            found.maybe("service_restarts", item["restarts"] if view and view.finding else None, name)
            found.maybe("service_in_flight_requests", item["in_flight"], name)
            found.maybe("service_idle_seconds", view.idle_seconds if view else None, name)

    def _memories(self, found: _Found, specs: Iterable[Spec]) -> None:
        for spec in specs:
            record = self._memory.read(spec)
            engine = record.engine.corrected if record.engine else None
            # An engine that did not see the cards says nothing of them, and so nothing of the host either.
            engine = engine if engine is not None and len(engine.devices) >= len(spec.gpus) else None
            measured = record.measured.parts if record.measured else None
            for by, parts in (("predicted", record.predicted), ("engine", engine), ("measured", measured)):
                for device, mib in _devices(spec, parts):
                    found.add("service_memory_bytes", mib * _MIB, spec.service, device, by)

    def _switches(self, found: _Found, status: Mapping[str, Any], sums: Sums) -> None:
        found.add("switching", status["job"] is not None)
        found.add("stopped", status["stopped"])
        for (service, outcome), count in sums.switches.items():
            found.add("switches_total", count, service, outcome)
        for (service, phase), seconds in sums.phases.items():
            found.add("switch_phase_seconds_total", seconds, service, phase)
        for service, seconds in sums.last.items():
            found.add("switch_last_seconds", seconds, service)
        for service, seconds in sums.load.items():
            found.add("service_load_seconds", seconds, service)

    def _faults(self, found: _Found, active: Iterable[str], sums: Sums) -> None:
        """Say how often services were found not to be well; from 0 on, so that the first time is seen as one."""
        counted = {(name, health) for name in active for health in FAULTS} | sums.faults.keys()
        for service, health in sorted(counted):
            found.add("service_faults_total", sums.faults[service, health], service, health)

    def _engine(self) -> tuple[str, str]:
        """Return the image that the host's services are planned with, and the engine's commit; empty where unknown."""
        try:
            engine = json.loads(self._store.path(paths.HOST_FILE).read_text(encoding="utf-8")).get("engine") or {}
            return str(engine.get("image") or ""), str(engine.get("commit") or "")
        except FileNotFoundError:
            return "", ""
        except (OSError, ValueError, AttributeError) as error:
            _LOG.debug("the engine's commit is not known: %s", error)
            return "", ""


class _Found:
    """Samples of the daemon's metrics."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add one; ``name`` is without the prefix that all have, labels are in their declared order."""
        self.samples.append(Sample(f"llamarig_{name}", labels, float(value)))

    def maybe(self, name: str, value: float | None, *labels: str) -> None:
        """Add one, unless nobody knows it."""
        if value is not None:
            self.add(name, value, *labels)


def _may_ask(spec: Spec, view: View | None) -> bool:
    """Tell whether an engine may be asked: one that sleeps when idle is neither woken nor kept awake by a scrape."""
    return SLEEPS not in spec.argv or bool(view and view.in_flight)


def _health(word: str, view: View | None) -> str:
    """Return a health in full; the shorter word stands where nobody knows more, or it is of another time."""
    finding = view.finding if view else ""
    return finding if finding in HEALTHS and finding != "unknown" and Health(finding).word == word else word


def _devices(spec: Spec, parts: Breakdown | None) -> Iterator[tuple[str, float]]:
    """Yield devices of a service, the host or a card's UUID, and what they hold of what can be predicted, in MiB."""
    if parts is not None:
        yield "host", parts.host.total
        yield from zip(spec.gpus, (part.total for part in parts.devices), strict=False)
