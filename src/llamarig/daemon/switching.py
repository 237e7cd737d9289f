"""Switching is a transaction: whatever happens, the new service serves or those do that served before.

The new service's container is made ready while the old one serves; then requests under way come to their end, the old
engine ends, and the new one begins behind a closed door. The door opens when it has answered. Until that is written
down, the old services are those that come back, after a failure, a crash of the daemon or a power cut.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, NoReturn

from llamarig.config.budget import must_leave
from llamarig.config.policy import Policy
from llamarig.config.spec import Spec
from llamarig.daemon.job import LaterError
from llamarig.daemon.memory import MemoryStore
from llamarig.daemon.refusal import refusal
from llamarig.daemon.request import Kind, Origin, Outcome, Reporter, Request
from llamarig.daemon.state import GivenUp, Serving, State, StateStore, Switching
from llamarig.daemon.steps import ANSWER_SECONDS, CancelError, FailedError, Means, Steps
from llamarig.daemon.tally import Tally
from llamarig.errors import BusyError, CancelledError, LlamarigError, NotFoundError, SwitchError
from llamarig.runtime.breakdown import START_LINES, read_log
from llamarig.runtime.engine import PROMPT, TOKENS, Answer, EngineError
from llamarig.runtime.specs import SpecStore

_log: Final = logging.getLogger(__name__)
# How long a root command that holds the host is waited for.
_HOST_SECONDS: Final = 600.0
_POLL: Final = 0.2
_LOOP_SECONDS: Final = 30.0


class Switcher:
    """The one owner of what serves on a host. One request at a time: the daemon's worker calls it."""

    def __init__(
        self,
        *,
        state: StateStore,
        means: Means,
        memory: MemoryStore,
        tally: Tally | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.specs: SpecStore = means.specs
        self.state = state
        self.means = means
        self.memory = memory
        self.tally = tally or Tally()
        self.now = now
        self._policy = Policy()

    def perform(self, request: Request, reporter: Reporter) -> Outcome:
        """Do what is asked for.

        Raises:
            LaterError: it may not be done yet; nothing was touched, and it is to be asked again.
            NotFoundError: no such service here.
            BusyError: a command of root's holds the host for very long.
            CancelledError: it was wanted no more, and what served serves again.
            SwitchError: it failed, and what serves now.

        """
        with self._host(reporter):
            turn = _Turn(self, request, Steps(self.means, reporter))
            try:
                if request.kind is Kind.SWITCH:
                    return turn.switch()
                if request.kind is Kind.STOP:
                    return turn.stop()
                return turn.reconcile()
            except CancelError as error:
                msg = "it was cancelled; nothing was touched"
                raise CancelledError(msg, "", self.state.read().first, []) from error

    def policy(self) -> Policy:
        """Return what the host's file says of residency; the one of before where it cannot be read."""
        try:
            self._policy = self.specs.policy()
        except LlamarigError as error:
            _log.warning("the policy of before counts: %s", error.message)
        return self._policy

    def leaving(self, service: str) -> list[str]:
        """Return the active services that would stop for a service.

        Raises:
            NotFoundError: no such service here.

        """
        policy = self.policy()
        active = [spec for name in self.state.read().names if (spec := self.specs.planned(name))]
        return leaving(self.specs.get(service), active, policy)

    @contextlib.contextmanager
    def _host(self, reporter: Reporter) -> Any:
        """Hold the host; a root command that holds it is waited for."""
        start, said = self.means.clock(), False
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(self.state.lock())
                    break
                except BusyError:
                    if reporter.cancelled():
                        msg = "it was cancelled; nothing was touched"
                        raise CancelledError(msg, "", self.state.read().first, []) from None
                    if self.means.clock() - start > _HOST_SECONDS:
                        raise
                if not said:
                    reporter.say("another command holds the host: waiting for it")
                    said = True
                self.means.sleep(_POLL)
            yield


def leaving(wanted: Spec, active: Sequence[Spec], policy: Policy) -> list[str]:
    """Return the active services that must stop for a wanted one: those on its port, and as few as give it room."""
    others = [spec for spec in active if spec.service != wanted.service]
    turns = [spec for spec in others if spec.port == wanted.port]
    rest = [spec for spec in others if spec not in turns]
    # Pinned services leave only where nothing else helps, and then the switch is refused.
    room = must_leave(wanted, rest, None, policy.default_service)
    return [spec.service for spec in (*turns, *room)]


@dataclass
class _Turn:
    """One request, from its beginning to its end."""

    owner: Switcher
    request: Request
    steps: Steps
    _counted: dict[str, float] = field(default_factory=dict)

    @property
    def _specs(self) -> SpecStore:
        return self.owner.specs

    @property
    def _means(self) -> Means:
        return self.owner.means

    # What can be asked for.

    def switch(self) -> Outcome:
        """Make a service serve; those that must leave for it leave."""
        name = self.request.service or ""
        target = self._specs.get(name)
        state = self._settled()
        here = state.serving(name)
        if here is not None and here.version == target.spec_sha256 and self._serves(target) and self._answers(target):
            self._open(target)
            self._write(replace(state, active=(here, *(s for s in state.active if s is not here)), stopped=False))
            return Outcome(self._names(), changed=False, message=f"{name} is active already")
        active = [spec for serving in state.active if (spec := self._spec(serving))]
        out = leaving(target, active, self.owner.policy())
        self.steps.phase("validate")
        self._validate(target, out)
        self._wait_for_residency(out)
        return self._transact(target, out)

    def stop(self) -> Outcome:
        """Stop one active service, or all of them."""
        state = self._settled()
        # Whoever waits at its gate goes too, and whoever is on its way there.
        every = dict.fromkeys([*state.names, *self._specs.names()])
        names = [self.request.service] if self.request.service is not None else list(every)
        if self.request.service is not None:
            self._known(self.request.service)
        gone = [name for name in names if name in state.names]
        specs = [spec for name in gone if (serving := state.serving(name)) and (spec := self._spec(serving))]
        self.steps.phase("drain")
        if self.request.origin is not Origin.HEALTH:
            self._cancellable_drain(specs)
        for spec in specs:
            if self._means.door.behind(spec.port) == spec.service:
                self._means.door.close(spec.port)
        left = tuple(serving for serving in state.active if serving.service not in gone)
        given_up = dict(state.given_up)
        if self.request.origin is Origin.HEALTH:
            given_up |= {name: GivenUp(round(self.owner.now(), 3), self.request.reason) for name in gone}
        asked = self.request.origin not in {Origin.HEALTH, Origin.IDLE}
        stopped = not left and asked and (bool(gone) or self.request.service is None or state.stopped)
        try:
            self._write(replace(state, active=left, stopped=stopped, given_up=given_up))
        except OSError as error:
            if self.request.origin is not Origin.HEALTH:
                raise
            # What falls again and again is ended all the same; health asks again, later and later.
            _log.warning("that %s is given up could not be written down: %s", " and ".join(gone), error)
        self.steps.phase("stop")
        self.steps.patient = True
        try:
            self.steps.stop(names)
        except FailedError as error:
            self._record("stop", ", ".join(gone) or None, None, "failed", str(error))
            raise SwitchError(str(error), "systemctl status docker", self._first(), []) from error
        self.steps.over()
        if gone:
            self._record("stop", ", ".join(gone), None, "ok", self.request.reason)
        said = f"{' and '.join(gone)} stopped" if gone else "nothing was active"
        return Outcome(self._names(), tuple(gone), changed=bool(gone), message=said, phases=self.steps.phases)

    def reconcile(self) -> Outcome:
        """Make what serves what should serve; a service that fails leaves the others as they are."""
        state = self._settled()
        if self.request.adopt:
            self.owner.memory.forget_measured(set(self._specs.names()))
        wanted, crowded, gone = self._wanted(state)
        stays = {serving.service for serving in (*wanted, *crowded)} | set(self._standby())
        strays = [name for name in self._running() if name not in stays]
        how = self._end_strays(strays) if strays else "ok"
        for name in gone:
            self._record("stop", name, None, how, "the host runs it no more")
        outcomes, failures = [], []
        state = self.owner.state.read()
        given_up = {name: what for name, what in state.given_up.items() if name in self._specs.names()}
        self._write(replace(state, active=(*wanted, *crowded), given_up=given_up))
        # The one that is to be mended does not wait for another that loads.
        for serving in sorted(wanted, key=lambda one: one.service != self.request.service):
            try:
                outcomes.append(self._ensure(serving, [one.service for one in crowded]))
            except SwitchError as error:
                failures.append(error)
        if not failures:
            self._dismiss(crowded)
        self._close_others()
        if failures:
            raise failures[0]
        left = tuple(name for name in state.names if name not in self._names())
        changed = bool(strays or left) or any(outcome.changed for outcome in outcomes)
        said = [outcome.message for outcome in outcomes] or [self._why_nothing()]
        answer = next((outcome.answer for outcome in outcomes if outcome.answer), None)
        self.steps.over()
        return Outcome(self._names(), left, changed, "; ".join(said), answer, self.steps.phases)

    # The transaction.

    def _transact(self, target: Spec, out: Sequence[str]) -> Outcome:
        """Bring a service up in the place of others, which come back if it does not; itself, with its spec of before.

        Args:
            target: what comes.
            out: the active services that leave for it.

        """
        state = self.owner.state.read()
        steps = self.steps
        old = [serving for serving in state.active if serving.service in {*out, target.service}]
        specs = [spec for serving in old if (spec := self._spec(serving))]
        before = [spec for spec in specs if spec.spec_sha256 != target.spec_sha256]
        previous = next((spec.service for spec in before), None)
        begun = self._begun()
        itself = target.service in {spec.service for spec in specs} or target.service in begun
        strays = [name for name in begun if name not in {*state.names, target.service}]
        leaving_now = [*out, *([target.service] if itself else []), *strays]
        switching = Switching(target.service, target.spec_sha256, tuple(out), round(self.owner.now(), 3))
        try:
            self._write(replace(state, switching=switching))
        except OSError as error:
            if out or not self._is_as_written(state, target):
                self._refuse(target, f"{target.service}: the switch could not be written down ({error})", "df -h /var")
        touched = False
        try:
            steps.phase("prepare")
            if not itself:
                steps.prepare(target)
            steps.phase("drain")
            self._drain(target, specs)
            steps.phase("stop")
            touched = bool({*leaving_now} - {*strays})
            pids = steps.stop(leaving_now)
            steps.phase("free")
            steps.free(target, pids)
            answer = self._bring_up(target)
            steps.ask()
            steps.phase("commit")
            self._commit(target, out, self._told(target, previous, self.request.reason))
        except CancelError as error:
            raise self._restore(
                target, before if touched else specs, "it was cancelled", touched=touched, cancelled=True
            ) from error
        except Exception as error:  # whatever it is, the host must not be left without a service
            if not isinstance(error, (FailedError, LlamarigError, OSError)):
                _log.exception("a switch to %s failed in an unexpected way", target.service)
            reason = str(error) or type(error).__name__
            raise self._restore(
                target, before if touched else specs, reason, touched=touched, cancelled=False
            ) from error
        steps.over()
        gone = [name for name in out if name != target.service]
        self._stand_by(gone)
        self._measure(target)
        message = f"{target.service} serves at {target.url}"
        return Outcome(self._names(), tuple(gone), True, message, answer, dict(steps.phases))

    def _stand_by(self, gone: Sequence[str]) -> None:
        """Have the container made again of a service that left, so that the way back does not wait for Docker.

        One at most waits at its gate; without it nothing is lost but that time.
        """
        spec = self._specs.planned(gone[0]) if gone else None
        if spec is None:
            return
        try:
            for name in self._waiting():
                if name != spec.service:
                    self._means.units.stop(name)
            self.steps.stand_by(spec)
        except (FailedError, CancelError, LlamarigError, OSError) as error:
            _log.warning("%s does not wait at its gate: %s", spec.service, error)

    def _drain(self, target: Spec, specs: Sequence[Spec]) -> None:
        """Let requests come to their end, but not those of an engine that hangs: they have none."""
        hangs = self.request.origin is Origin.HEALTH and self.request.service == target.service
        if hangs and self._means.door.behind(target.port) == target.service:
            self._means.door.close(target.port)
        self.steps.drain([] if hangs else specs)

    def _bring_up(self, spec: Spec) -> Answer:
        steps = self.steps
        steps.phase("start")
        steps.start(spec)
        steps.phase("load")
        steps.load(spec)
        steps.phase("completion")
        answer = steps.complete(spec)
        steps.phase("placement")
        steps.look(spec)
        return answer

    def _told(self, target: Spec, previous: str | None, reason: str) -> Callable[[], None]:
        """Return what tells the history that a switch came to its end."""
        return partial(self._record, "switch", target.service, previous, "ok", reason)

    def _commit(self, target: Spec, out: Collection[str], tell: Callable[[], None] | None = None) -> None:
        """Let clients in, and write down that the target is what serves now.

        The history is told first: who is cut off between the two has it told twice, and not never.
        """
        state = self.owner.state.read()
        serving = Serving(target.service, target.spec_sha256, round(self.owner.now(), 3))
        stay = [s for s in state.active if s.service not in out and s.service != target.service]
        # Who was asked for comes first; one that only comes back keeps its place.
        before = [s.service for s in state.active if s.service not in out]
        asked = self.request.kind is Kind.SWITCH or target.service not in before
        stay.insert(0 if asked else before.index(target.service), serving)
        given_up = {name: what for name, what in state.given_up.items() if name != target.service}
        self._means.door.open(target.port, target.service)
        self.steps.over()
        if tell is not None:
            tell()
        try:
            self._write(State(tuple(stay), None, stopped=False, given_up=given_up))
        except OSError:
            if out or not self._is_as_written(state, target):
                self._means.door.close(target.port)
                raise

    @staticmethod
    def _is_as_written(state: State, target: Spec) -> bool:
        """Tell whether the state says already what will be so: that a service comes back as it was needs no note."""
        serving = state.serving(target.service)
        return serving is not None and serving.version == target.spec_sha256

    def _restore(
        self, target: Spec, before: Sequence[Spec], reason: str, *, touched: bool, cancelled: bool
    ) -> SwitchError:
        """Bring back what served before; returns the error that says how it went."""
        steps = self.steps
        steps.over()
        steps.patient = True
        steps.reporter.say(f"{'cancelled' if cancelled else f'failed: {reason}'}; going back")
        log = [] if cancelled else steps.last_words(target.service)
        steps.phase("back")
        state = self.owner.state.read()
        with contextlib.suppress(Exception):  # whatever it is, those that served before come back
            if touched or target.service not in state.names:
                steps.free(target, steps.stop([target.service]))
        # From here on a crash ends with what served before.
        with contextlib.suppress(OSError):
            self._write(replace(state, switching=None))
        back, lost = [], []
        for spec in before:
            try:
                self._bring_back(spec, touched=touched)
                back.append(spec.service)
            except Exception as error:  # noqa: BLE001  one that cannot come back must not keep the others away
                lost.append(f"{spec.service} could not be brought back either: {error}")
        steps.over()
        verb = "serves again" if touched else "was not touched"
        how = [f"{' and '.join(back)} {verb}"] if back else []
        others = [
            name for name in state.names if name != target.service and name not in {one.service for one in before}
        ]
        rest = f"{' and '.join(others)} went on" if others else "nothing else served"
        how += lost or ([] if back else [rest])
        outcome = "cancelled" if cancelled else "failed"
        self._record("switch", target.service, before[0].service if before else None, outcome, reason, log_lines=log)
        serving = back[0] if back else self._first()
        kind = CancelledError if cancelled else SwitchError
        return kind("; ".join([reason, *how]), f"llamarig logs {target.service}", serving, log)

    def _bring_back(self, spec: Spec, *, touched: bool) -> None:
        """Let a service serve as it did: open its door where its engine goes on, start it where that ended."""
        if not touched or self._serves(spec):
            self._open(spec)
            return
        self.steps.reporter.say(f"bringing back {spec.service}")
        self.steps.stop([spec.service])
        self.steps.start(spec)
        self.steps.load(spec)
        self.steps.complete(spec)
        self._open(spec)

    # What should serve.

    def _settled(self) -> State:
        """Return the state, after the end of a switch that a crash cut off."""
        state = self.owner.state.read()
        switching = state.switching
        if switching is None:
            return state
        target = self._specs.version(switching.target, switching.version)
        if target is not None and self._serves(target) and self._answers(target):
            self.steps.reporter.say(f"the switch to {target.service} had come to its end")
            self._means.gate.open(target.service)
            tell = self._told(target, None, "finished after the daemon was started again")
            self._commit(target, switching.leaving, tell)
            with contextlib.suppress(FailedError):
                self.steps.stop([name for name in switching.leaving if name != target.service])
            return self.owner.state.read()
        self._record("switch", switching.target, state.first, "interrupted", "found unfinished")
        if switching.target not in state.names:
            with contextlib.suppress(FailedError, LlamarigError):
                self.steps.stop([switching.target])
        settled = replace(state, switching=None)
        with contextlib.suppress(OSError):  # the next one settles it again
            self._write(settled)
        return settled

    def _wanted(self, state: State) -> tuple[list[Serving], list[Serving], list[str]]:
        """Return what should serve, which is the default service where nothing else is.

        Beside it the active services that have no room any more beside those, and those that the host runs no more.
        """
        wanted: list[Serving] = []
        crowded: list[Serving] = []
        gone: list[str] = []
        chosen: list[Spec] = []
        policy = self.owner.policy()
        for serving in state.active:
            planned = self._specs.planned(serving.service)
            if serving.service not in self._specs.names():
                gone.append(serving.service)
                continue
            spec = (planned if self.request.adopt else None) or self._spec(serving) or self._specs.get(serving.service)
            if leaving(spec, chosen, policy):
                crowded.append(serving)
                continue
            chosen.append(spec)
            wanted.append(replace(serving, version=serving.version or spec.spec_sha256))
        default = policy.default_service
        resting = state.stopped or (default in state.given_up and not self.request.adopt)
        if not wanted and default is not None and not resting:
            spec = self._specs.get(default)
            wanted.append(Serving(default, spec.spec_sha256, 0.0))
        return wanted, crowded, gone

    def _dismiss(self, crowded: Sequence[Serving]) -> None:
        """Stop those that have no room any more, where nothing had to begin in their place."""
        state = self.owner.state.read()
        names = [one.service for one in crowded if one.service in state.names]
        if not names:
            return
        how = self._end_strays(names)
        self._write(replace(state, active=tuple(one for one in state.active if one.service not in names)))
        beside = " and ".join(self._names())
        for name in names:
            self._record("stop", name, None, how, f"no room beside {beside}")

    def _ensure(self, serving: Serving, crowded: Sequence[str]) -> Outcome:
        """Make one service serve with the spec that it should have; those that have no room beside it leave for it."""
        name = serving.service
        present = self._spec(serving)
        planned = self._specs.planned(name)
        target = (planned if self.request.adopt else None) or present or self._specs.get(name)
        anew = self.request.service == name
        if not anew and self._up(target):
            self._open(target)
            if serving.since == 0.0:
                self._commit(target, ())
            return Outcome((name,), changed=False, message=f"{name} serves with its present spec")
        self.steps.phase("validate")
        active = self._names()
        out = [name for name in crowded if name in active]
        self._validate(target, out)
        return self._transact(target, out)

    def _up(self, target: Spec) -> bool:
        """Tell whether a service serves with a spec; one that is loading already is waited for."""
        if not self._runs(target):
            return False
        if self._means.engines.waits(target.service):
            # A daemon that was killed as it opened the gate has not rung: the container sleeps before an open one.
            self._means.gate.open(target.service)
        try:
            if self._means.engine.health(target) != "ok":
                self.steps.load(target)
        except FailedError:
            return False
        return self._proven(target) or self._answers(target)

    def _end_strays(self, names: Sequence[str]) -> str:
        """Let services go that should not run; returns how the history says that it went."""
        specs = [spec for name in names if (spec := self._specs.running(name))]
        self.steps.phase("drain")
        self._cancellable_drain(specs)
        self.steps.phase("stop")
        try:
            self.steps.stop(names)
        except FailedError as error:
            _log.warning("%s", error)
            return "failed"
        return "ok"

    def _cancellable_drain(self, specs: Sequence[Spec]) -> None:
        # A stray may have the port of one that serves.
        let_in = [spec for spec in specs if self._means.door.behind(spec.port) == spec.service]
        try:
            self.steps.drain(specs)
        except CancelError as error:
            for spec in let_in:
                self._open(spec)
            raise CancelledError("it was cancelled; nothing was touched", "", self._first(), []) from error

    # Refusals.

    def _validate(self, target: Spec, out: Sequence[str]) -> None:
        """Refuse what is sure to fail while the old services still serve."""
        found = refusal(self._specs, self.owner.memory, target, out, self.owner.policy())
        if found is not None:
            self._refuse(target, found.message, found.remedy)

    def _wait_for_residency(self, out: Sequence[str]) -> None:
        """See that services which leave have served for their minimum.

        Raises:
            LaterError: they have not; the request stands aside until then, and holds up nobody.

        """
        if self.request.now:
            return
        minimum, now = self.owner.policy().minimum_seconds, self.owner.now()
        state = self.owner.state.read()
        # A clock that was set back makes nobody young.
        young = [s for name in out if (s := state.serving(name)) and 0 <= now - s.since < minimum]
        # One that hangs or crashed has served long enough.
        if not young or not all(
            (spec := self._spec(one)) and self._serves(spec) and self._answers(spec) for one in young
        ):
            return
        left = max(minimum - (now - s.since) for s in young)
        names = [s.service for s in young]
        raise LaterError(f"{' and '.join(names)} serves for its minimum first, {left:.0f} s more", left, names)

    def _refuse(self, target: Spec, msg: str, remedy: str) -> NoReturn:
        self._record("switch", target.service, self._first(), "refused", msg)
        raise SwitchError(f"{msg}; nothing was touched", remedy, self._first(), [])

    # Small questions.

    def _known(self, name: str) -> None:
        if self._specs.planned(name) is None and name not in self.owner.state.read().names:
            self._specs.get(name)
            raise NotFoundError(f"this host runs no service {name!r}")

    def _spec(self, serving: Serving) -> Spec | None:
        return self._specs.version(serving.service, serving.version)

    def _runs(self, spec: Spec) -> bool:
        running = self._specs.running(spec.service)
        if running is None or running.spec_sha256 != spec.spec_sha256:
            return False
        return self._means.gate.is_open(spec.service) and self._means.units.state(spec.service).is_running

    def _serves(self, spec: Spec) -> bool:
        return self._runs(spec) and self._means.engine.health(spec) == "ok"

    def _proven(self, spec: Spec) -> bool:
        serving = self.owner.state.read().serving(spec.service)
        return serving is not None and serving.since > 0.0 and serving.version == spec.spec_sha256

    def _answers(self, spec: Spec) -> bool:
        """Ask a service; one that has answered before is not asked for tokens, which would cost it somebody's cache."""
        try:
            if self._proven(spec):
                self._means.engine.slots(spec, _LOOP_SECONDS)
            else:
                self._means.engine.complete(spec, PROMPT, TOKENS, ANSWER_SECONDS)
        except EngineError as error:
            self.steps.reporter.say(f"{spec.service} does not answer: {error}")
            return False
        return True

    def _open(self, spec: Spec) -> None:
        if self._means.door.behind(spec.port) != spec.service:
            self._means.door.open(spec.port, spec.service)

    def _close_others(self) -> None:
        """Close ports that lead where they should not any more, as that of a service whose port was changed."""
        active = self.owner.state.read().active
        ports = {
            one.service: spec.port for one in active if (spec := self._specs.planned(one.service) or self._spec(one))
        }
        for port in self._means.door.ports():
            if ports.get(self._means.door.behind(port) or "") != port:
                self._means.door.close(port)

    def _running(self) -> list[str]:
        """Return services of llamarig's whose units run; a foreign llama-something.service is somebody else's."""
        known = set(self._specs.names())
        return [name for name in self._means.units.running() if name in known or self._specs.running(name) is not None]

    def _begun(self) -> list[str]:
        """Return services whose engines may run."""
        return [name for name in self._running() if not self._waits(name)]

    def _waiting(self) -> list[str]:
        """Return services whose containers wait at their gate, or are on their way there."""
        return [name for name in self._running() if self._waits(name)]

    def _waits(self, name: str) -> bool:
        """Tell of a service whose unit runs whether no engine of it has begun."""
        if self._means.gate.is_open(name):
            return False
        # The engine of one that was to end and does not runs behind a shut gate.
        return self._means.engines.waits(name) or not self._means.engines.pids(name)

    def _standby(self) -> list[str]:
        """Return the one service, if any, that may go on waiting at its gate, with its planned spec."""
        # One whose container cannot be made is better stopped than tried for ever.
        sound = (name for name in self._waiting() if not self._means.units.state(name).is_failed)
        planned = ((name, self._specs.planned(name)) for name in sound)
        return [name for name, spec in planned if spec and self._means.gate.chosen(name) == spec.spec_sha256][:1]

    def _names(self) -> tuple[str, ...]:
        return self.owner.state.read().names

    def _first(self) -> str | None:
        return self.owner.state.read().first

    def _why_nothing(self) -> str:
        state = self.owner.state.read()
        if not self._specs.names():
            return "this host runs no service"
        if state.stopped:
            return "nothing serves: the last service was stopped on purpose"
        default = self.owner.policy().default_service
        if default is not None and default in state.given_up:
            return f"nothing serves: {default} was given up ({state.given_up[default].reason})"
        return "nothing is to serve"

    def _measure(self, spec: Spec) -> None:
        """Remember what the engine says it allocated; no switch fails for that."""
        with contextlib.suppress(Exception):
            if self.owner.memory.read(spec).measured is None:
                parts = read_log(self._means.units.log(spec.service, START_LINES))
                if parts is not None:
                    self.owner.memory.keep_measured(spec, parts, self.owner.now())

    def _write(self, state: State) -> None:
        if self.owner.state.read() != state:
            self.owner.state.write(state)

    def _record(
        self, kind: str, service: str | None, previous: str | None, outcome: str, reason: str, **more: Any
    ) -> None:
        """Write it into the history; a disk without room must not keep a service from serving."""
        # One request may be several switches: what was counted for one is none of the next one's.
        phases = {name: seconds - self._counted.get(name, 0.0) for name, seconds in self.steps.phases.items()}
        self._counted = dict(self.steps.phases)
        if kind == "switch" and service is not None:
            self.owner.tally.switched(service, outcome, phases)
        event: Mapping[str, Any] = {
            "time": round(self.owner.now(), 3),
            "kind": kind,
            "service": service,
            "previous": previous,
            "outcome": outcome,
            "reason": reason,
            "origin": self.request.origin.value,
            "phases": dict(self.steps.phases),
            **more,
        }
        try:
            self.owner.state.record(dict(event))
        except OSError as error:
            _log.warning("the history could not be written: %s", error)
