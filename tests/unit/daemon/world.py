"""A host whose time passes, with a supervisor that looks at it and a switcher that does what is asked for.

systemd starts anew what ended, engines do what a test says, and a request is carried out when the look is over, as the
daemon's worker does. Nothing but time is played that the tests of switching do not play already.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llamarig.config.spec import Spec
from llamarig.daemon.job import LaterError
from llamarig.daemon.observer import Observer
from llamarig.daemon.request import Request
from llamarig.daemon.supervisor import Supervisor, View
from llamarig.daemon.tally import Tally
from llamarig.errors import LlamarigError
from llamarig.hardware.gpus import Reading
from llamarig.runtime.engine import Answer, EngineError, GarbageError, Slot
from tests.unit.daemon.fakes import FakeCards, FakeReporter, Host, Unit
from tests.unit.hardware.recordings import reading

TICKS = os.sysconf("SC_CLK_TCK")
RESTART_SECONDS = 5.0


@dataclass
class Engine:
    """What one start of an engine does.

    Attributes:
        busy: whether it has a request.
        rate: tokens that it puts out in a second; 0 while it takes in a prompt.
        prompt: tokens that it takes in, in a second.
        computes: whether its process computes.
        silent: whether its main loop is stuck.
        mute: whether it answers nothing at all.
        loads: whether it is never ready.
        garbage: whether it answers one token over and over.
        on_cpu: whether it holds no memory of its cards.

    """

    busy: bool = False
    rate: float = 0.0
    prompt: float = 0.0
    computes: bool = False
    silent: bool = False
    mute: bool = False
    loads: bool = False
    garbage: bool = False
    on_cpu: bool = False
    decoded: float = 0.0
    taken: float = 0.0
    cpu: float = 0.0


class PlayedEngines:
    """All engines of the host, by their processes; ``born`` makes the next one of a service."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.by_pid: dict[int, Engine] = {}
        self.born: dict[str, Callable[[], Engine]] = {}
        self.completions: list[str] = []

    def once(self, service: str, engine: Engine) -> None:
        """Let the next start of a service be this one, and those after it well."""
        starts = [engine]
        self.born[service] = lambda: starts.pop() if starts else Engine()

    def of(self, service: str) -> Engine | None:
        self.host.pass_time()
        pid = self.host.units.units.get(service, Unit()).pid
        return self.by_pid.setdefault(pid, self.born.get(service, Engine)()) if pid else None

    def health(self, spec: Spec) -> str:
        engine = self.of(spec.service)
        if engine is None or engine.mute:
            return "down"
        return "loading" if engine.loads else "ok"

    def slots(self, spec: Spec, timeout: float) -> list[Slot]:
        engine = self.of(spec.service)
        if engine is None:
            raise EngineError("nobody is there") from ConnectionRefusedError()
        if engine.mute or engine.silent:
            raise EngineError(f"no answer within {timeout:.0f} s") from TimeoutError()
        return [Slot(0, engine.busy, int(engine.taken), int(engine.decoded))]

    def complete(self, spec: Spec, prompt: str, tokens: int, timeout: float) -> Answer:
        engine = self.of(spec.service)
        self.completions.append(spec.service)
        if engine is None:
            raise EngineError("nobody is there") from ConnectionRefusedError()
        if engine.mute or engine.silent:
            raise EngineError(f"no completion within {timeout:.0f} s") from TimeoutError()
        if engine.garbage:
            raise GarbageError("the server answers one token over and over ('&'): the weights are damaged")
        return Answer(f"{spec.service} answers {prompt}", list(range(tokens)), 0.1, 42.0)


class PlayedCards(FakeCards):
    """Cards, on which an engine has memory or not."""

    def empty(self, spec: Spec) -> list[str]:
        engine = self.host.engine.of(spec.service)  # type: ignore[attr-defined]
        return ["rtx-4090"] if engine is not None and engine.on_cpu else []


class World:
    """A host under watch."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.engines = PlayedEngines(host)
        host.engine = self.engines  # type: ignore[assignment]
        host.cards = PlayedCards(host)
        self.asked: list[Request] = []
        self.done: list[Request] = []
        self.busy = False
        self.tally = Tally()
        self.refuses = False
        self.reading: Callable[[], Reading] = reading
        self._pauses: dict[str, float] = {}
        (host.root / "proc").mkdir(exist_ok=True)
        self.oom_kills = 0
        self.supervisor = self.started()

    def started(self) -> Supervisor:
        """A supervisor that knows nothing yet, as after a restart of the daemon."""
        host = self.host
        observer = Observer(
            units=host.units,
            engine=self.engines,
            engines=host.engines,
            door=host.door,
            gate=host.gate,
            specs=host.specs,
            cards=lambda: self.reading(),  # noqa: PLW0108  a test changes it
            root=host.root,
            clock=host.clock,
            now=host.clock,
        )
        return Supervisor(
            observer=observer,
            specs=host.specs,
            state=host.state,
            submit=self._submit,
            busy=lambda: self.busy or bool(self.asked),
            tally=self.tally,
            clock=host.clock,
            now=host.clock,
        )

    # What happens on the host.

    def engine(self, service: str) -> Engine:
        """The engine that runs of a service."""
        found = self.engines.of(service)
        assert found is not None, f"{service} does not run"
        return found

    def crash(self, service: str, status: int = 134, *, oom: bool = False) -> None:
        """The engine ends by itself, and systemd waits before it starts it anew."""
        restarts = self.host.units.units[service].restarts
        self.oom_kills += oom
        self.host.units.end(service, Unit("activating", "auto-restart", "exit-code", status, restarts))
        self._pauses[service] = self.host.clock.seconds + RESTART_SECONDS

    def perform(self) -> None:
        """The worker does what was asked for."""
        while self.asked:
            request = self.asked[0]
            with contextlib.suppress(LlamarigError, LaterError, OSError):
                self.host.switcher.perform(request, FakeReporter())
            self.done.append(self.asked.pop(0))

    def step(self) -> float:
        """Look once, do what was asked for, and let the time until the next look pass; returns its seconds."""
        start = self.host.clock.seconds
        self._play()
        pause = self.supervisor.look()
        self._settle_proofs()
        self.perform()
        self.host.clock.sleep(pause)
        seconds = self.host.clock.seconds - start
        self._go_on(seconds)
        return seconds

    def steps(self, seconds: float) -> None:
        """Let time pass."""
        while seconds > 0:
            seconds -= self.step()

    def until(self, reached: Callable[[], bool], seconds: float) -> float:
        """Let time pass until something is so, which must be within so many seconds; returns how many it took."""
        took = 0.0
        while not reached():
            assert took <= seconds, f"not within {seconds:.0f} s; {self.events()}, {self.view()}"
            took += self.step()
        return took

    # What is known of it.

    def view(self, service: str = "alpha") -> View | None:
        return self.supervisor.view().get(service)

    def events(self, kind: str = "health") -> list[tuple[str, str]]:
        """Service and outcome of what the history says."""
        return [(event["service"], event["outcome"]) for event in self.host.state.history() if event["kind"] == kind]

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.host.state.history() if event["kind"] == "health"]

    def serving(self) -> list[str]:
        """The services that clients get a sound answer from now."""
        found = []
        for name in self.host.serving():
            engine = self.engine(name)
            if not (engine.mute or engine.silent or engine.loads or engine.garbage or engine.on_cpu):
                found.append(name)
        return found

    def card_processes(self, service: str) -> dict[str, Any]:
        """What NVML says of processes on a card that a service has memory on."""
        engine, unit = self.engines.of(service), self.host.units.units.get(service, Unit())
        return {"processes": [{"pid": unit.pid, "used_mib": 9000}] if engine and not engine.on_cpu else []}

    def _submit(self, request: Request) -> None:
        assert not self.busy, "asked for while a request is carried out"
        if self.refuses:
            raise LlamarigError("16 requests wait already", "")
        self.asked.append(request)

    def _settle_proofs(self) -> None:
        for _, errand in self.supervisor._proofs.values():
            assert errand.wait(20)

    def _go_on(self, seconds: float) -> None:
        """Engines work, and systemd starts anew what has waited for its time."""
        for service, unit in list(self.host.units.units.items()):
            if unit.sub == "auto-restart" and self._pauses.get(service, 0.0) <= self.host.clock.seconds:
                restarts = unit.restarts
                self.host.units.units[service] = Unit()
                self.host.units.start(service)
                self.host.units.units[service].restarts = restarts + 1
        for service in self.host.units.units:
            engine = self.engines.of(service)
            if engine is not None and not (engine.mute or engine.silent):
                engine.decoded += engine.rate * seconds
                engine.taken += engine.prompt * seconds
            if engine is not None and engine.computes:
                engine.cpu += seconds

    def _play(self) -> None:
        """Write what the kernel shows of the engines' processes."""
        root = self.host.root / "proc"
        (root / "vmstat").write_text(f"oom_kill {self.oom_kills}\n", encoding="ascii")
        living = {str(unit.pid) for unit in self.host.units.units.values()}
        for place in root.glob("[0-9]*"):
            if place.name not in living:
                shutil.rmtree(place)
        for service, unit in self.host.units.units.items():
            engine = self.engines.of(service)
            if engine is None:
                continue
            place = root / str(unit.pid)
            place.mkdir(exist_ok=True)
            line = f"{unit.pid} (llama-server) S {' '.join(['1'] * 10)} {round(engine.cpu * TICKS)} 0 0 0 20 0 9 0 50 1"
            (place / "stat").write_text(line, encoding="ascii")
            (place / "cgroup").write_text(
                f"0::/llama.slice/llama-{service}.slice/docker-{'0' * 64}.scope\n", encoding="ascii"
            )
