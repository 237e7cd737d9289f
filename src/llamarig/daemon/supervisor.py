"""Looks at the active services every few seconds, and asks for what is to be done.

It changes nothing itself: what it wants is a request like anybody's. While one is carried out nothing is asked for, and
services that it leaves alone are looked at all the same: what they lack is known when it is over. Engines are asked in
threads of their own, so that one that hangs delays no look at another; a question to an engine is never asked twice at
a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from llamarig.config.policy import Policy
from llamarig.config.spec import Spec
from llamarig.daemon import residency
from llamarig.daemon.errand import Errand
from llamarig.daemon.health import LOOK_SECONDS, PATIENCE_SECONDS, SOON_SECONDS, Action, Limits, Verdict, judge
from llamarig.daemon.observer import Observer, Seen
from llamarig.daemon.request import Kind, Origin, Request
from llamarig.daemon.residency import Idle
from llamarig.daemon.sights import Health, Proof, Record, Run, Sight, same_run
from llamarig.daemon.state import Serving, State, StateStore
from llamarig.daemon.tally import Tally
from llamarig.errors import LlamarigError
from llamarig.runtime.specs import SpecStore

_log: Final = logging.getLogger(__name__)
# How long a look may take at most, each of its waits at its longest; after that the thread is stuck.
_STUCK_SECONDS: Final = 300.0
_SETTLE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class View:
    """How one active service is, for ``/status``.

    Attributes:
        health: ``ok``, ``loading``, ``hung``, ``failing``, ``down`` or ``unknown``.
        reason: why it is not ok.
        restarts: how often systemd has started its unit anew.
        in_flight: requests that it is answering; None where the door does not say.
        idle_seconds: since when it has had none.
        finding: its health in full, of which ``health`` is the shorter word; empty where nobody looked.

    """

    health: str = "unknown"
    reason: str = ""
    restarts: int = 0
    in_flight: int | None = None
    idle_seconds: float | None = None
    finding: str = ""


class Supervisor:
    """A thread that looks at what serves.

    ``submit`` takes a request, and may refuse it with a LlamarigError: it is asked again at the next look. ``busy``
    tells whether a request is carried out or waits.
    """

    def __init__(
        self,
        *,
        observer: Observer,
        specs: SpecStore,
        state: StateStore,
        submit: Callable[[Request], object],
        busy: Callable[[], bool],
        tally: Tally,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.observer = observer
        self.specs = specs
        self.state = state
        self.submit = submit
        self.busy = busy
        self.tally = tally
        self.clock = clock
        self.now = now
        self._policy = Policy()
        self._views: dict[str, View] = {}
        self._records: dict[str, Record] = {}
        self._servings: dict[str, Serving] = {}
        self._idle: dict[str, Idle] = {}
        self._told: dict[str, Health] = {}
        self._proofs: dict[str, tuple[Run | None, Errand[Proof]]] = {}
        self._comebacks = 0
        self._settle_at = 0.0
        self._nothing_since: float | None = None
        self._before: list[str] = []
        self._history_fails = False
        self._looked = clock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._looked = self.clock()
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread that looks is there, and goes on."""
        return self._thread.is_alive() and self.clock() - self._looked < _STUCK_SECONDS

    def close(self, timeout: float = PATIENCE_SECONDS) -> None:
        """Look no more; waits for the look under way at most ``timeout`` seconds."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def view(self) -> dict[str, View]:
        """Return how each active service was at the last look; answers at once."""
        return dict(self._views)

    def look(self) -> float:
        """Look once, and ask for what is to be done; returns the seconds until the next look."""
        self._looked = self.clock()
        if self.busy():
            self._look_on(self.state.read())
            return SOON_SECONDS
        state = self.state.read()
        if state.switching is not None:  # of a daemon that was killed; the reconciliation of this one settles it
            if self.clock() >= self._settle_at and self._submit(
                Request(Kind.RECONCILE, None, Origin.HEALTH, "a switch was found unfinished")
            ):
                self._settle_at = self.clock() + _SETTLE_SECONDS
            return SOON_SECONDS
        self._take(state)
        if not state.active:
            self._come_back(state)
            return LOOK_SECONDS if state.stopped else SOON_SECONDS
        self._nothing_since, self._comebacks = None, 0
        started = {serving.service: spec for serving in state.active if (spec := self._spec(serving)) is not None}
        seen = self.observer.look(started, self._records, {s.service: s.since for s in state.active})
        if self.busy() or self.state.read() != state:  # what was seen is of another time
            return SOON_SECONDS
        verdicts = self._judge(state.active, started, seen)
        if len(verdicts) == len(state.active) and all(one.health is Health.OK for one in verdicts.values()):
            self._leave_when_idle(state)
            return LOOK_SECONDS
        return SOON_SECONDS

    def _look_on(self, state: State) -> None:
        """Look at services that the request under way leaves alone, and ask for nothing."""
        switching = state.switching
        touched = {switching.target, *switching.leaving} if switching is not None else set()
        known = [serving for serving in state.active if self._servings.get(serving.service) == serving]
        left_alone = [serving for serving in known if serving.service not in touched]
        specs = {serving.service: spec for serving in left_alone if (spec := self._spec(serving)) is not None}
        if not specs:
            return
        seen = self.observer.look(specs, self._records, {s.service: s.since for s in left_alone})
        go_on = {name: one for name, one in seen.items() if _goes_on(self._records[name], one.sight)}
        if self.state.read() == state:
            self._judge([serving for serving in left_alone if serving.service in go_on], specs, go_on, asks=False)

    # What is known of whom.

    def _take(self, state: State) -> None:
        """Forget services that are active no more, and what was known of those that a request has changed."""
        try:
            self._policy = self.specs.policy()
        except LlamarigError as error:
            _log.warning("the policy cannot be read, the one of before counts: %s", error.message)
        present = {serving.service: serving for serving in state.active}
        for known in (self._records, self._servings, self._idle, self._told, self._proofs):
            for service in [name for name in known if name not in present]:
                known.pop(service)
        self._views = {name: self._views.get(name, View()) for name in present}
        for name, serving in present.items():
            if self._servings.get(name) != serving:
                self._records[name] = self._records.get(name, Record()).anew()
                self._servings[name] = serving
                self._proofs.pop(name, None)

    def _spec(self, serving: Serving) -> Spec | None:
        try:
            return self.observer.spec(serving.service, serving.version)
        except Exception:  # noqa: BLE001  one spec must not keep the others from being looked at
            _log.exception("the spec of %s cannot be read", serving.service)
            return None

    # Judging, and what comes of it.

    def _judge(
        self, active: Sequence[Serving], specs: Mapping[str, Spec], seen: Mapping[str, Seen], *, asks: bool = True
    ) -> dict[str, Verdict]:
        """Judge services, and ask for what is to be done, unless ``asks`` is false; returns what they came to."""
        verdicts = {}
        for serving in active:
            name = serving.service
            if name not in seen:
                self._show(name, View(reason="it cannot be looked at: its spec, systemd or its engine cannot be asked"))
                continue
            try:
                verdicts[name] = verdict = self._judge_one(serving, specs[name], seen[name], asks=asks)
            except Exception:  # noqa: BLE001  one service must not keep the others from being judged
                _log.exception("%s cannot be judged", name)
                continue
            # One at a time: after the first, the others are looked at again when it has been carried out.
            asks = asks and verdict.action in {Action.NONE, Action.PROVE}
        return verdicts

    def _judge_one(self, serving: Serving, spec: Spec, one: Seen, *, asks: bool) -> Verdict:
        name = serving.service
        record, verdict = judge(self._records[name], self._proved(name, one), Limits.of(self._policy, spec))
        if verdict.action in {Action.NONE, Action.PROVE} or (asks and self._ask(name, verdict)):
            self._records[name] = record
        if verdict.action is Action.PROVE:
            self._prove(spec, record)
        idle = self._watch(serving, one)
        in_flight = one.traffic.in_flight if one.traffic else None
        idle_seconds = round(idle.seconds(one.sight.time), 1)
        health, restarts = verdict.health, one.sight.unit.restarts
        if health.value not in {self._views.get(name, View()).finding, Health.OK.value, Health.LOADING.value}:
            # What is mended at once is seen by no scrape.
            self.tally.found(name, health.value)
        self._show(name, View(health.word, verdict.reason, restarts, in_flight, idle_seconds, health.value))
        self._tell(name, verdict)
        return verdict

    def _show(self, service: str, view: View) -> None:
        # A new one each time: others read it meanwhile.
        self._views = {**self._views, service: view}

    def _ask(self, service: str, verdict: Verdict) -> bool:
        """Ask for what a verdict wants; False where nobody takes it now."""
        reason = f"{service}: {verdict.reason}"
        wanted = {
            Action.RESTART: [Request(Kind.RECONCILE, service, Origin.HEALTH, reason)],
            Action.MEND: [Request(Kind.RECONCILE, None, Origin.HEALTH, reason)],
            # The first one remembers that it was given up, and why; the second brings back what should serve then.
            Action.GIVE_UP: [
                Request(Kind.STOP, service, Origin.HEALTH, verdict.reason),
                Request(Kind.RECONCILE, None, Origin.HEALTH, f"{service} was given up"),
            ],
        }[verdict.action]
        return all(self._submit(request) for request in wanted)

    def _submit(self, request: Request) -> bool:
        try:
            self.submit(request)
        except LlamarigError as error:
            _log.warning("%s cannot be asked for: %s", request.kind.value, error.message)
            return False
        return True

    # Proofs.

    def _prove(self, spec: Spec, record: Record) -> None:
        if spec.service not in self._proofs:
            errand = Errand(lambda: self.observer.prove(spec), self.clock())
            self._proofs[spec.service] = (record.run, errand)

    def _proved(self, service: str, seen: Seen) -> Sight:
        """Return a sight with the proof of this start, where one has come to its end since the last look."""
        run, errand = self._proofs.get(service, (None, None))
        if errand is None or not errand.is_over:
            return seen.sight
        del self._proofs[service]
        try:
            return seen.with_proof(run, errand.result())
        except Exception as error:  # noqa: BLE001  whatever it is: it is asked for another one
            _log.warning("%s could not be asked for a proof: %s", service, error or type(error).__name__)
            return seen.sight

    # Those who leave, and those who return.

    def _watch(self, serving: Serving, seen: Seen) -> Idle:
        name, sight = serving.service, seen.sight
        age = self.now() - serving.since
        idle = self._idle.get(name) or Idle.first(seen.traffic, age, sight.time)
        self._idle[name] = idle.seen(seen.traffic, sight.time, busy=sight.is_busy)
        return self._idle[name]

    def _leave_when_idle(self, state: State) -> None:
        if all(self._policy.of(name).idle_seconds is None for name in state.names):
            return
        idle = {name: idle.seconds(self.clock()) for name, idle in self._idle.items()}
        request = residency.idle_request(self._policy, state, idle, self.now(), self._known())
        if request is not None:
            self._submit(request)

    def _come_back(self, state: State) -> None:
        """Where nothing serves and nobody wanted that: try the default service, or the one before it."""
        if state.stopped:
            return
        moment = self.clock()
        if self._nothing_since is None:
            self._nothing_since = moment
            self._before = residency.served_before(self.state.history())
        if not self._before and not state.given_up:
            return  # nothing ever served: the playbook that brings the services is not over yet
        name = residency.comeback(self._policy, state, self._known(), self._before, self._comebacks)
        if name is None:
            return
        pause = residency.comeback_pause(self._comebacks, given_up=name in state.given_up)
        if moment - self._nothing_since < pause:
            return
        reason = f"nothing serves: attempt {self._comebacks + 1}"
        if self._submit(Request(Kind.SWITCH, name, Origin.HEALTH, reason)):
            self._comebacks += 1
            self._nothing_since = moment

    def _known(self) -> set[str]:
        """Return the services that this host runs; none where that cannot be read."""
        try:
            return set(self.specs.names())
        except LlamarigError as error:
            _log.warning("the host's services cannot be read: %s", error.message)
            return set()

    # What is told, and the thread.

    def _tell(self, service: str, verdict: Verdict) -> None:
        """Write a finding into the history, once; loading is none."""
        before = self._told.get(service, Health.OK)
        if verdict.health in {before, Health.LOADING}:
            return
        event = {
            "time": round(self.now(), 3),
            "kind": "health",
            "service": service,
            "previous": None,
            "outcome": verdict.health.value,
            "reason": verdict.reason,
            "phases": {},
            "origin": Origin.HEALTH.value,
            "job": None,
        }
        try:
            self.state.record(event)
        except OSError as error:  # it is told when there is room again
            if not self._history_fails:
                _log.warning("the history cannot be written: %s", error)
            self._history_fails = True
        else:
            self._told[service], self._history_fails = verdict.health, False

    def _run(self) -> None:
        pause = 0.0
        while not self._ending.wait(pause):
            try:
                pause = self.look()
            except Exception:  # noqa: BLE001  a thread that ends would leave everything unwatched
                _log.exception("a look failed in a way that nobody foresaw")
                pause = LOOK_SECONDS


def _goes_on(record: Record, sight: Sight) -> bool:
    """Tell whether a service that was well goes on with the same start, untouched by whatever is under way."""
    same = record.run is not None and same_run(record.run, (sight.unit.restarts, sight.process))
    return same and record.ready and record.proven and sight.unit.is_running and sight.gate and sight.door is True
