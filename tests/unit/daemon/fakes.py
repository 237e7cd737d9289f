"""A service manager and an engine in memory, as far as switching can tell them from the real ones.

The host has room for one model: a second start fails, as it does on a GPU. A unit copies its spec to the running
specs when it starts and removes the copy when it stops, as llama.service.j2 says. Faults are given by service name or
by spec hash, so that a changed spec can fail where the one before it served.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from pathlib import Path

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.state import StateStore
from llamarig.daemon.switching import Switcher
from llamarig.errors import LlamarigError
from llamarig.runtime.engine import Answer, EngineError
from llamarig.runtime.specs import SpecStore
from llamarig.runtime.systemd import UnitState
from tests.support import below, provision


class Fault(enum.Enum):
    """What is wrong with a service."""

    REFUSED = "systemd cannot start the unit"
    EXITS = "the engine ends while it loads"
    NEVER_LOADS = "the engine loads for ever"
    GARBAGE = "the engine answers one token over and over"
    CTRL_C = "somebody types Ctrl-C while it loads"


class PowerCut(BaseException):
    """The machine is gone; nothing of the program runs any more."""


class FakeClock:
    """Time passes only by sleeping; what happens at a sleep can be set."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.on_sleep: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.on_sleep()


@dataclasses.dataclass
class Unit:
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    enabled: bool = False


class FakeUnits:
    """systemd; ``changes`` are the calls that changed something, in order.

    With ``cut_after``, the machine goes down after so many of them. With ``trouble``, one of them fails, once.
    """

    def __init__(self, root: Path, faults: dict[str, Fault]) -> None:
        self.root = root
        self.faults = faults
        self.units: dict[str, Unit] = {}
        self.changes: list[str] = []
        self.cut_after: int | None = None
        self.trouble: tuple[int, BaseException] | None = None

    def state(self, service: str) -> UnitState:
        unit = self._unit(service)
        return UnitState(unit.active, unit.sub, "enabled" if unit.enabled else "disabled", unit.result, 0)

    def holds_port(self, service: str) -> bool:
        return self.state(service).is_running

    def running(self) -> list[str]:
        return sorted(name for name, unit in self.units.items() if unit.active in {"active", "activating"})

    def enabled(self) -> list[str]:
        return sorted(name for name, unit in self.units.items() if unit.enabled)

    def clear(self, service: str, port: int) -> None:
        """Nothing half-made is ever left here."""

    def start(self, service: str) -> None:
        self._change(f"start {service}")
        others = [name for name in self.running() if name != service]
        spec = SpecStore(self.root).get(service)
        fault = fault_of(spec, self.faults)
        if fault is Fault.REFUSED:
            msg = f"systemctl start {service} failed: bad unit file"
            raise LlamarigError(msg)
        running = below(self.root, f"{paths.RUNNING}/{service}.json")
        running.parent.mkdir(parents=True, exist_ok=True)
        running.write_bytes(below(self.root, f"{paths.SPECS}/{service}.json").read_bytes())
        if others or fault is Fault.EXITS:
            self._end(service, Unit("failed", "failed", "exit-code"))
        else:
            self._end(service, Unit("active", "running"), remove=False)

    def stop(self, service: str) -> None:
        self._change(f"stop {service}")
        self._end(service, Unit())

    def enable(self, service: str) -> None:
        self._change(f"enable {service}")
        self._unit(service).enabled = True

    def disable(self, service: str) -> None:
        self._change(f"disable {service}")
        self._unit(service).enabled = False

    def log(self, service: str, lines: int) -> list[str]:
        return [f"{service} says goodbye"][:lines]

    def crash(self, service: str) -> None:
        """The engine ends by itself."""
        self._end(service, Unit("failed", "failed", "exit-code"))

    def reboot(self) -> None:
        """Everything stops, then what is enabled starts."""
        for name in list(self.units):
            self._end(name, Unit())
        for name in self.enabled():
            self.start(name)

    def _change(self, what: str) -> None:
        if self.cut_after is not None and len(self.changes) >= self.cut_after:
            raise PowerCut
        self.changes.append(what)
        if self.trouble is not None and len(self.changes) == self.trouble[0] + 1:
            raise self.trouble[1]

    def _end(self, service: str, unit: Unit, *, remove: bool = True) -> None:
        unit.enabled = self._unit(service).enabled
        self.units[service] = unit
        if remove:
            below(self.root, f"{paths.RUNNING}/{service}.json").unlink(missing_ok=True)

    def _unit(self, service: str) -> Unit:
        return self.units.setdefault(service, Unit())


class FakeEngine:
    """llama-server, as the units say it runs."""

    def __init__(self, units: FakeUnits) -> None:
        self.units = units
        self.taken_ports: set[int] = set()

    def port_is_taken(self, spec: Spec) -> bool:
        return spec.port in self.taken_ports

    def health(self, spec: Spec) -> str:
        running = SpecStore(self.units.root).running(spec.service)
        if running is None or not self.units.state(spec.service).is_running or running.port != spec.port:
            return "down"
        fault = fault_of(running, self.units.faults)
        if fault is Fault.CTRL_C:
            raise KeyboardInterrupt
        return "loading" if fault is Fault.NEVER_LOADS else "ok"

    def complete(self, spec: Spec, prompt: str, tokens: int, timeout: float) -> Answer:
        if self.health(spec) != "ok":
            msg = f"no completion within {timeout:.0f} s"
            raise EngineError(msg)
        if fault_of(spec, self.units.faults) is Fault.GARBAGE:
            msg = "the server answers one token over and over"
            raise EngineError(msg)
        return Answer(f"{spec.service} answers {prompt}", list(range(tokens)), 0.1, 42.0)


def fault_of(spec: Spec, faults: dict[str, Fault]) -> Fault | None:
    return faults.get(spec.spec_sha256) or faults.get(spec.service)


class Host:
    """One host with its fakes; a new switcher for each command, as each command is a process."""

    def __init__(self, root: Path, *specs: Spec, default: str | None = None) -> None:
        self.root = root
        self.faults: dict[str, Fault] = {}
        self.units = FakeUnits(root, self.faults)
        self.engine = FakeEngine(self.units)
        self.state = StateStore(root)
        self.clock = FakeClock()
        self.said: list[str] = []
        self.provision(*specs, default=default)

    def provision(self, *specs: Spec, default: str | None = None) -> None:
        provision(self.root, *specs, default=default)

    @property
    def switcher(self) -> Switcher:
        return Switcher(
            specs=SpecStore(self.root),
            state=self.state,
            units=self.units,
            engine=self.engine,
            clock=self.clock,
            now=self.clock,
            sleep=self.clock.sleep,
            progress=self.said.append,
        )

    def serving(self) -> list[str]:
        """The services that answer now."""
        specs = [SpecStore(self.root).running(name) for name in self.units.running()]
        return [spec.service for spec in specs if spec and not fault_of(spec, self.faults)]

    def files(self) -> dict[str, bytes]:
        """Everything on the host's disk, but the lock, which holds nothing."""
        found = (path for path in self.root.rglob("*") if path.is_file() and path.name != "lock")
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}
