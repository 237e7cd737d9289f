"""A host in memory, as far as the daemon can tell it from a real one: units, containers at gates, engines, a door.

Gates and the door's links are real files. A container begins its engine when its gate opens, and never two begin on one
port: a second one is counted in ``Host.doubles``. Faults are given by service name or by spec hash, so that a changed
spec can fail where the one before it served. Every effect on the world outside is counted, and the daemon, or the whole
machine, can be cut off after any of them.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.memory import MemoryStore
from llamarig.daemon.request import Kind, Origin, Outcome, Request
from llamarig.daemon.state import State, StateStore
from llamarig.daemon.steps import Means
from llamarig.daemon.switching import Switcher
from llamarig.errors import LlamarigError
from llamarig.runtime.door import LinkDoor, Traffic
from llamarig.runtime.engine import Answer, EngineError, GarbageError, Slot
from llamarig.runtime.gate import FileGate
from llamarig.runtime.specs import SpecStore
from llamarig.runtime.systemd import UnitState
from tests.support import below, provision


class Fault(enum.Enum):
    """What is wrong with a service."""

    REFUSED = "systemd cannot start the unit"
    NO_CONTAINER = "Docker cannot make the container"
    EXITS = "the engine ends while it loads"
    NEVER_LOADS = "the engine loads for ever"
    GARBAGE = "the engine answers one token over and over"
    HUNG = "the engine is healthy and answers nothing"
    ON_CPU = "the model is not on its cards"
    STAYS = "the engine cannot be ended"


class Cut(BaseException):
    """The daemon, or the machine, is gone; nothing of the program runs any more."""


class FakeClock:
    """Time passes only by sleeping; what happens meanwhile can be set."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.on_sleep: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.on_sleep()


class FakeReporter:
    """Remembers what it is told; ``cancel`` says when it was wanted no more."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.said: list[str] = []
        self.cancel: Callable[[], bool] = lambda: False

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def say(self, text: str) -> None:
        self.said.append(text)

    def cancelled(self) -> bool:
        return self.cancel()


@dataclasses.dataclass
class Unit:
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    status: int = 0
    restarts: int = 0
    spec: Spec | None = None
    pid: int = 0


class FakeUnits:
    """systemd, Docker and the containers; ``changes`` are the calls that changed something, in order."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.units: dict[str, Unit] = {}
        self.changes: list[str] = []
        self.docker: float | None = 5.0
        self.masked: set[str] = set()

    def state(self, service: str) -> UnitState:
        self.host.pass_time()
        unit = self.units.get(service, Unit())
        return UnitState(unit.active, unit.sub, unit.result, unit.restarts, unit.status)

    def running(self) -> list[str]:
        return sorted(name for name, unit in self.units.items() if unit.active in {"active", "activating"})

    def docker_since(self) -> float | None:
        return self.docker

    def log(self, service: str, lines: int) -> list[str]:
        return [f"{service} says goodbye"][:lines]

    def start(self, service: str) -> None:
        self._change(f"start {service}")
        spec = self.host.chosen(service)
        if self.host.fault(spec) is Fault.REFUSED:
            raise LlamarigError(f"{service} cannot be started: bad unit file", "")
        if service in self.running():
            return
        if self.host.fault(spec) is Fault.NO_CONTAINER:
            self.units[service] = Unit("activating", "auto-restart", "exit-code", 1, 1)
            return
        running = below(self.host.root, f"{paths.RUNNING}/{service}.json")
        running.parent.mkdir(parents=True, exist_ok=True)
        running.write_text(json.dumps(spec.to_dict()), encoding="utf-8")
        self.units[service] = Unit("active", "running", spec=spec)
        waiting = below(self.host.root, f"{paths.ENGINES}/{service}/waiting")
        waiting.parent.mkdir(parents=True, exist_ok=True)
        waiting.touch()

    def stop(self, service: str) -> None:
        self._change(f"stop {service}")
        unit = self.units.get(service)
        if unit is not None and unit.spec is not None and self.host.fault(unit.spec) is Fault.STAYS and unit.pid:
            unit.active, unit.sub = "deactivating", "stop-sigkill"
            return
        self.end(service, Unit())

    def crash(self, service: str, status: int = 134) -> None:
        """The engine ends by itself, and systemd waits before it starts it anew."""
        self.end(service, Unit("activating", "auto-restart", "exit-code", status, 1))

    def end(self, service: str, unit: Unit) -> None:
        self.units[service] = unit
        below(self.host.root, f"{paths.RUNNING}/{service}.json").unlink(missing_ok=True)

    def _change(self, what: str) -> None:
        self.changes.append(what)
        self.host.effect(what)


class FakeEngine:
    """llama-server, as the units say it runs."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.asked: list[str] = []
        self.busy = 0

    def health(self, spec: Spec) -> str:
        unit = self._unit(spec)
        if unit is None:
            return "down"
        return "loading" if self.host.fault(unit.spec) is Fault.NEVER_LOADS else "ok"

    def complete(self, spec: Spec, prompt: str, tokens: int, timeout: float) -> Answer:
        self.asked.append(spec.service)
        unit = self._unit(spec)
        if unit is None or self.host.fault(unit.spec) is Fault.HUNG:
            raise EngineError(f"no completion within {timeout:.0f} s")
        if self.host.fault(unit.spec) is Fault.GARBAGE:
            raise GarbageError("the server answers one token over and over")
        return Answer(f"{spec.service} answers {prompt}", list(range(tokens)), 0.1, 42.0)

    def slots(self, spec: Spec, timeout: float) -> list[Slot]:
        unit = self._unit(spec)
        if unit is None or self.host.fault(unit.spec) is Fault.HUNG:
            raise EngineError(f"no answer within {timeout:.0f} s")
        self.busy = max(0, self.busy - 1)
        return [Slot(0, busy=self.busy > 0, prompt_tokens=0, decoded=0)]

    def _unit(self, spec: Spec) -> Unit | None:
        self.host.pass_time()
        unit = self.host.units.units.get(spec.service)
        return unit if unit is not None and unit.pid else None


class FakeEngines:
    """Processes of engines; each has a number of its own."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def waits(self, service: str) -> bool:
        return below(self.host.root, f"{paths.ENGINES}/{service}/waiting").exists()

    def is_stale(self, service: str) -> bool:
        return service in self.host.stale

    def forget(self, service: str) -> None:
        below(self.host.root, f"{paths.ENGINES}/{service}/waiting").unlink(missing_ok=True)

    def remember(self, service: str) -> None:
        below(self.host.root, f"{paths.ENGINES}/{service}/waiting").touch()

    def pids(self, service: str) -> list[int]:
        unit = self.host.units.units.get(service, Unit())
        return [unit.pid] if unit.pid else []

    def alive(self, pid: int) -> bool:
        return any(unit.pid == pid for unit in self.host.units.units.values())


class FakeCards:
    """Cards, as the faults have them; ``held`` counts how often an ended process still holds memory."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.held = 0

    def held_by(self, pids: Collection[int], uuids: Collection[str]) -> bool:
        self.held -= 1
        return bool(pids and uuids) and self.held >= 0

    def empty(self, spec: Spec) -> list[str]:
        return ["rtx-4090"] if self.host.fault(spec) is Fault.ON_CPU else []


class CountedDoor(LinkDoor):
    """The door, whose changes are effects; ``in_flight`` requests come to their end one at a sleep."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.root)
        self.host = host
        self.in_flight: dict[int, int] = {}

    def open(self, port: int, service: str) -> None:
        super().open(port, service)
        self.host.effect(f"open {port} {service}")

    def close(self, port: int) -> None:
        super().close(port)
        self.host.effect(f"close {port}")

    def traffic(self, port: int) -> Traffic:
        return Traffic(self.in_flight.get(port, 0))


class CountedGate(FileGate):
    """The gates, whose changes are effects."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.root)
        self.host = host

    def open(self, service: str) -> None:
        super().open(service)
        self.host.effect(f"admit {service}")

    def shut(self, service: str) -> None:
        super().shut(service)
        self.host.effect(f"shut {service}")


class CountedState(StateStore):
    """The state, whose writes are effects; with ``full`` the disk has no room."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.root)
        self.host = host
        self.full = False

    def write(self, state: State) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().write(state)
        self.host.effect("write")


class Host:
    """One host with its fakes; a new switcher for each request, as after a restart of the daemon."""

    def __init__(self, root: Path, *specs: Spec, default: str | None = None) -> None:
        self.root = root
        self.faults: dict[str, Fault] = {}
        self.effects: list[str] = []
        self.cut_after: int | None = None
        self.doubles = 0
        self.stale: set[str] = set()
        self._pids = 100
        self.clock = FakeClock()
        self.clock.on_sleep = self.pass_time
        self.units = FakeUnits(self)
        self.engine = FakeEngine(self)
        self.engines = FakeEngines(self)
        self.cards = FakeCards(self)
        self.door = CountedDoor(self)
        self.gate = CountedGate(self)
        self.state = CountedState(self)
        self.state.directory.mkdir(parents=True, exist_ok=True)
        self.specs = SpecStore(root)
        self.reporter = FakeReporter()
        self.provision(*specs, default=default)

    def provision(self, *specs: Spec, default: str | None = None) -> None:
        """What the playbook leaves; what was there before stays as a version, as its unit left it."""
        for spec in self.specs.all() if (self.root / paths.SPECS.lstrip("/")).is_dir() else ():
            place = below(self.root, f"{paths.VERSIONS}/{spec.service}/{spec.spec_sha256}/spec.json")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(spec.to_dict()), encoding="utf-8")
        provision(self.root, *specs, default=default)

    @property
    def means(self) -> Means:
        return Means(
            specs=self.specs,
            units=self.units,
            engine=self.engine,
            door=self.door,
            gate=self.gate,
            engines=self.engines,
            cards=self.cards,
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    @property
    def switcher(self) -> Switcher:
        return Switcher(state=self.state, means=self.means, memory=MemoryStore(self.root), now=self.clock)

    def perform(self, kind: Kind, service: str | None = None, **more: object) -> Outcome:
        """Ask the daemon for something, and forget what it was told before."""
        self.reporter = FakeReporter() if self.reporter.said else self.reporter
        return self.switcher.perform(Request(kind, service, **more), self.reporter)  # type: ignore[arg-type]

    def switch(self, service: str, **more: object) -> Outcome:
        return self.perform(Kind.SWITCH, service, **more)

    def stop(self, service: str | None = None, **more: object) -> Outcome:
        return self.perform(Kind.STOP, service, **more)

    def reconcile(self, *, adopt: bool = True, origin: Origin = Origin.PLAYBOOK) -> Outcome:
        return self.perform(Kind.RECONCILE, adopt=adopt, origin=origin)

    def serving(self) -> list[str]:
        """The services that clients get an answer from now, through the door."""
        found = []
        for name, unit in sorted(self.units.units.items()):
            spec = unit.spec
            well = unit.pid and spec is not None and self.fault(spec) in {None, Fault.STAYS}
            if well and spec is not None and self.door.behind(self.port(spec)) == name:
                found.append(name)
        return found

    def versions(self) -> dict[str, str]:
        """What each engine that begun was started with."""
        return {name: unit.spec.spec_sha256 for name, unit in self.units.units.items() if unit.pid and unit.spec}

    def fault(self, spec: Spec | None) -> Fault | None:
        return None if spec is None else self.faults.get(spec.spec_sha256) or self.faults.get(spec.service)

    def port(self, spec: Spec) -> int:
        """The port of a service now: the door's business, of which a running engine does not know."""
        planned = self.specs.planned(spec.service)
        return planned.port if planned is not None else spec.port

    def chosen(self, service: str) -> Spec:
        """The spec that the service's unit starts with, as engine-begin chooses it."""
        try:
            digest = (self.gate.directory / service / "version").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return self.specs.get(service)
        spec = self.specs.version(service, digest)
        if spec is None:
            raise LlamarigError(f"{service} cannot be started: there is no version {digest}", "")
        return spec

    def pass_time(self) -> None:
        """Engines begin whose gates are open, as containers do that wait at them."""
        for name, unit in self.units.units.items():
            if unit.spec is None or unit.active != "active" or unit.pid or not self.gate.is_open(name):
                continue
            ports = [self.port(other.spec) for other in self.units.units.values() if other.pid and other.spec]
            if self.port(unit.spec) in ports:
                self.doubles += 1
            self._pids += 1
            unit.pid = self._pids
            self.engines.forget(name)
            if self.fault(unit.spec) is Fault.EXITS:
                self.units.crash(name, status=1)
        self.door.in_flight = {port: count - 1 for port, count in self.door.in_flight.items() if count > 1}

    def reboot(self) -> None:
        """Everything stops; what is below /run is gone."""
        self.units.units.clear()
        shutil.rmtree(below(self.root, paths.RUN), ignore_errors=True)

    def effect(self, what: str) -> None:
        """Something of the world has changed; the machine may be gone after that."""
        self.effects.append(what)
        self.pass_time()
        if self.cut_after is not None and len(self.effects) >= self.cut_after:
            raise Cut
