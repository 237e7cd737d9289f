"""The steps that a switch is made of, each waiting until what it asked for is so; forward and back alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from llamarig.config.spec import Spec
from llamarig.daemon.cards import Cards
from llamarig.daemon.request import Reporter
from llamarig.errors import LlamarigError
from llamarig.runtime.door import Door, DoorError
from llamarig.runtime.engine import PROMPT, TOKENS, Answer, Engine, EngineError
from llamarig.runtime.engines import Engines
from llamarig.runtime.gate import Gate
from llamarig.runtime.logline import last_words
from llamarig.runtime.specs import SpecStore
from llamarig.runtime.systemd import Units

# How long Docker may take to come up, and to make a container.
_DOCKER_SECONDS: Final = 90.0
_PREPARE_SECONDS: Final = 60.0
# What the unit gives an engine between the signals that end it, all of them together, and Docker after it.
_STOP_SECONDS: Final = 60.0
# How long a driver takes to get memory back from a process that ended.
_FREE_SECONDS: Final = 30.0
# How long a completion may take that shows that an engine answers.
ANSWER_SECONDS: Final = 120.0
_LOOP_SECONDS: Final = 2.0
_SAY_SECONDS: Final = 5.0
# How long a unit may take to begin to come up.
_COMES_SECONDS: Final = 2.0
# What a container ends with that was sent KILL, as by the kernel where memory runs out.
_KILLED: Final = 137
_POLL: Final = 0.02
_SLOW_POLL: Final = 0.2


class FailedError(Exception):
    """A step did not come to what it should; the message says in which way."""


class CancelError(Exception):
    """Whoever asked wants it no more."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a switch works with."""

    specs: SpecStore
    units: Units
    engine: Engine
    door: Door
    gate: Gate
    engines: Engines
    cards: Cards
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Steps:
    """Steps of one request.

    Attributes:
        means: what they work with.
        reporter: who is told, and asked whether to go on.
        patient: whether nobody is asked any more: the way back is gone to its end.

    """

    means: Means
    reporter: Reporter
    patient: bool = False
    phases: dict[str, float] = field(default_factory=dict)
    _begun: tuple[str, float] | None = None

    def phase(self, name: str) -> None:
        """Begin a phase; the one before is over."""
        self.over()
        self._begun = (name, self.means.clock())
        self.reporter.phase(name)

    def over(self) -> None:
        """End the phase that was begun last."""
        if self._begun is not None:
            name, since = self._begun
            self.phases[name] = round(self.phases.get(name, 0.0) + self.means.clock() - since, 3)
            self._begun = None

    def ask(self) -> None:
        """Go on, unless it is wanted no more.

        Raises:
            CancelError: it is not.

        """
        if not self.patient and self.reporter.cancelled():
            raise CancelError

    def prepare(self, spec: Spec) -> None:
        """Bring a service's container up to its gate, which is shut; what serves goes on meanwhile.

        Raises:
            FailedError: it does not come up.

        """
        means, service = self.means, spec.service
        if not self._stands_by(spec):
            # It waits with another version, or for systemd to start it anew: a start would not come before that.
            if means.units.state(service).active in {"active", "activating"}:
                self.stop([service])
            self.reporter.say(f"making the container of {service} ready")
            self._make(spec)
        self._until(lambda: means.engines.waits(service), spec, _PREPARE_SECONDS, "its container was not ready")

    def stand_by(self, spec: Spec) -> None:
        """Have a service's container made that waits at its gate, for a switch to come; waits for nothing.

        Raises:
            FailedError: it is not started.

        """
        if not self._stands_by(spec):
            self._make(spec)

    def drain(self, specs: Collection[Spec]) -> None:
        """Refuse new requests to services, and wait for those under way as long as each service says."""
        means = self.means
        ports = {spec.port: spec for spec in specs if means.door.behind(spec.port) == spec.service}
        for port in ports:
            means.door.close(port)
        start = said = means.clock()
        while ports:
            self.ask()
            ports = {port: spec for port, spec in ports.items() if self._in_flight(spec)}
            elapsed = means.clock() - start
            late = [port for port, spec in ports.items() if elapsed >= spec.drain_seconds]
            for port in late:
                spec = ports.pop(port)
                count = self._in_flight(spec)
                self.reporter.say(f"{spec.service}: {count} requests are cut after {spec.drain_seconds} s")
            if ports and means.clock() - said >= _SAY_SECONDS:
                said = means.clock()
                names = ", ".join(f"{spec.service}: {self._in_flight(spec)}" for spec in ports.values())
                self.reporter.say(f"waiting for requests under way ({names})")
            if ports:
                means.sleep(_POLL)

    def stop(self, services: Iterable[str]) -> list[int]:
        """End services and wait until their engines' processes are gone; returns which those were.

        Raises:
            FailedError: one does not end.

        """
        means = self.means
        rest = {"inactive", "failed"}
        names = [name for name in services if means.units.state(name).active not in rest or means.engines.pids(name)]
        pids = {name: means.engines.pids(name) for name in names}
        for name in names:
            self.reporter.say(f"stopping {name}")
            means.gate.shut(name)
            means.units.stop(name)
        start = means.clock()
        left = list(names)
        while left:
            left = [name for name in left if self._lives(name, pids[name])]
            if left and means.clock() - start > _STOP_SECONDS:
                raise FailedError(f"{', '.join(left)} did not end within {_STOP_SECONDS:.0f} s")
            if left:
                means.sleep(_POLL)
        return [pid for found in pids.values() for pid in found]

    def free(self, spec: Spec, pids: Collection[int]) -> None:
        """Wait until the cards of a service have back what ended processes held there."""
        means = self.means
        start = means.clock()
        while spec.gpus and pids and means.cards.held_by(pids, spec.gpus):
            self.ask()
            if means.clock() - start > _FREE_SECONDS:
                self.reporter.say(f"the driver still counts memory of an ended process after {_FREE_SECONDS:.0f} s")
                return
            means.sleep(_SLOW_POLL)

    def start(self, spec: Spec) -> None:
        """Let a service's engine begin; its container is made first where it does not wait already.

        Raises:
            FailedError: it does not come up.

        """
        self.prepare(spec)
        self.means.gate.open(spec.service)

    def load(self, spec: Spec) -> None:
        """Wait until a service's engine says that it is ready.

        Raises:
            FailedError: it ends, or takes longer than the service may.

        """
        service, engine = spec.service, self.means.engine
        self.reporter.say(f"{service} is loading")
        self._until(lambda: engine.health(spec) == "ok", spec, spec.load_timeout_seconds, "it was not ready")

    def complete(self, spec: Spec) -> Answer:
        """Ask a service for a completion, because health says nothing of a deadlock or of damaged weights.

        Raises:
            FailedError: it does not answer as it should.

        """
        self.reporter.say(f"{spec.service} is loaded, asking for a completion")
        try:
            return self.means.engine.complete(spec, PROMPT, TOKENS, ANSWER_SECONDS)
        except EngineError as error:
            raise FailedError(f"{spec.service} loaded, but {error}") from error

    def look(self, spec: Spec) -> None:
        """See that a service's model is on its cards.

        Raises:
            FailedError: it is silently on the CPU.

        """
        empty = self.means.cards.empty(spec)
        if empty:
            msg = f"{spec.service} loaded, but holds no memory of {', '.join(empty)}: the model is on the CPU"
            raise FailedError(msg)

    def last_words(self, service: str) -> list[str]:
        """Return what a service said last; nothing where the journal does not say."""
        try:
            return last_words(self.means.units.log(service, 60))
        except (LlamarigError, OSError):
            return []

    def _stands_by(self, spec: Spec) -> bool:
        """Tell whether a container with this very spec waits at the gate already, or is on its way there."""
        means, service = self.means, spec.service
        if means.gate.is_open(service) or means.gate.chosen(service) != spec.spec_sha256:
            return False
        state = means.units.state(service)
        if not means.engines.waits(service):
            return state.active in {"activating", "active"} and not state.is_over
        running = means.specs.running(service)
        same = running is not None and running.spec_sha256 == spec.spec_sha256
        return same and state.is_running and not means.engines.is_stale(service)

    def _make(self, spec: Spec) -> None:
        """Have a container made that waits at a shut gate."""
        means, service = self.means, spec.service
        means.gate.shut(service)
        means.gate.choose(service, spec.spec_sha256)
        means.engines.forget(service)
        self._start(service)

    def _start(self, service: str) -> None:
        """Have a unit started, once Docker is up."""
        units = self.means.units
        start = self.means.clock()
        while units.docker_since() is None:
            self.ask()
            if self.means.clock() - start > _DOCKER_SECONDS:
                raise FailedError(f"{service} was not started: Docker does not come up (systemctl status docker)")
            self.means.sleep(_SLOW_POLL)
        try:
            units.start(service)
        except LlamarigError as error:
            raise FailedError(f"{service} was not started: {error.message}") from error

    def _until(self, ready: Callable[[], bool], spec: Spec, seconds: float, what: str) -> None:
        """Wait for a unit that comes up; one that ends has failed, unless Docker was restarted under it."""
        means, service = self.means, spec.service
        start = said = means.clock()
        docker = means.units.docker_since()
        looked, seen_up = start, False
        while not ready():
            self.ask()
            now = means.clock()
            if now - start > seconds:
                raise FailedError(f"{service}: {what} after {seconds:.0f} s")
            if now - said >= _SAY_SECONDS:
                said = now
                self.reporter.say(f"{service} is coming up, {now - start:.0f} s")
            if now - looked >= _SLOW_POLL:
                looked = now
                state = means.units.state(service)
                seen_up = seen_up or state.is_running
                # A unit may still be on its way from what it was before.
                comes = state.active == "deactivating" or now - start <= _COMES_SECONDS
                ended = state.is_failed or (state.is_over and (seen_up or not comes))
                if ended and means.units.docker_since() == docker:
                    why = f"({state.active}, {state.sub}, {state.result}, status {state.exit_status})"
                    if state.exit_status == _KILLED:
                        why += f"; something killed it, most likely the limit of its container, {spec.memory_mib} MiB"
                    raise FailedError(f"{service} did not come up: its unit ended {why}")
                if ended:
                    self.reporter.say(f"Docker was restarted: starting {service} again")
                    self._start(service)
                    docker, seen_up = means.units.docker_since(), False
            means.sleep(_POLL)

    def _lives(self, service: str, pids: Collection[int]) -> bool:
        if pids:
            return any(map(self.means.engines.alive, pids))
        state = self.means.units.state(service)
        # One that waits to be started anew has not been stopped yet.
        return not state.is_over or state.active == "activating"

    def _in_flight(self, spec: Spec) -> int:
        """Return the requests that a service is answering.

        The door does not count those that came before its configuration was replaced; the engine knows of them.
        """
        try:
            count = self.means.door.traffic(spec.port).in_flight
        except DoorError:
            count = 0
        if count:
            return count
        try:
            return sum(slot.busy for slot in self.means.engine.slots(spec, _LOOP_SECONDS))
        except EngineError:
            return 0  # one that hangs or is gone answers nobody
