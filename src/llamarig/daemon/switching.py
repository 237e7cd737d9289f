"""Switching is a transaction: whatever happens, the new service serves or the old one does.

validate -> stop -> start -> health -> completion -> commit. Until the commit the old service stays the one that starts
with the host, so that a crash at any point ends, after a reboot or a ``reconcile``, with a service that serves.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.comparison import remedy as remedy_of
from llamarig.daemon.comparison import shortfalls
from llamarig.daemon.generation import GenerationStore
from llamarig.daemon.memory import MemoryStore
from llamarig.daemon.state import State, StateStore, replace_file
from llamarig.errors import InterruptedSwitchError, NotFoundError, SwitchError
from llamarig.runtime.breakdown import START_LINES, read_log
from llamarig.runtime.engine import PROMPT, TOKENS, Answer, Engine, EngineError
from llamarig.runtime.logline import last_words
from llamarig.runtime.specs import SpecStore
from llamarig.runtime.systemd import Units
from llamarig.runtime.trials import end_trial

_ANSWER_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.1

Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a switch or a reconciliation ended."""

    active: str
    previous: str | None
    changed: bool
    message: str
    answer: Answer | None = None
    phases: dict[str, float] = field(default_factory=dict)


class _FailedToServeError(Exception):
    """The service did not come to serve; the message says in which phase and why."""


class Switcher:
    """The transaction, over a service manager, an engine and the host's files.

    ``judge`` is asked about a service while nothing runs, and raises where the engine says that it cannot fit.
    """

    def __init__(
        self,
        *,
        specs: SpecStore,
        state: StateStore,
        units: Units,
        engine: Engine,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        progress: Progress = lambda _: None,
        judge: Callable[[Spec], None] | None = None,
    ) -> None:
        self.specs = specs
        self.state = state
        self.units = units
        self.engine = engine
        self.clock = clock
        self.now = now
        self.sleep = sleep
        self.progress = progress
        self.judge = judge
        self.memory = MemoryStore(specs.root)
        self.generations = GenerationStore(specs.root)
        self.phases: dict[str, float] = {}

    def switch(self, service: str, *, dry: bool = False) -> Outcome:
        """Make ``service`` the active one; a service that serves already is left alone.

        With ``dry``, says what would happen and changes nothing.

        Raises:
            NotFoundError: no such service here.
            BusyError: another switch is under way.
            SwitchError: it failed, and what serves now.

        """
        self.specs.get(service)
        with self.state.lock():
            return self.switch_held(service, dry=dry)

    def switch_held(self, service: str, *, dry: bool = False) -> Outcome:
        """Switch as :meth:`switch` does, for whoever holds the host already."""
        target = self.specs.get(service)
        before = self._active(dry=dry)
        if before == service and self._serves(target) and (dry or self._answers(target)):
            return Outcome(service, before, changed=False, message=f"{service} is active already")
        if dry:
            self._validate(target, before, dry=True)
            return Outcome(service, before, changed=True, message=f"would switch to {service}")
        return self._transact(target, before)

    def reconcile(self, *, dry: bool = False) -> Outcome | None:
        """Make what serves what should serve: the active service with its present spec, the default where none is.

        Returns None on a host that runs no service. With ``dry``, says what would happen and changes nothing.
        Whatever serves in the end is the host's generation.

        Raises:
            BusyError: a switch is under way.
            SwitchError: it failed, and what serves now.

        """
        with self.state.lock():
            return self.reconcile_held(dry=dry)

    def reconcile_held(self, *, dry: bool = False, keep: bool = True) -> Outcome | None:
        """Reconcile as :meth:`reconcile` does, for whoever holds the host; without ``keep`` it is no generation."""
        outcome = self._reconcile(dry=dry)
        if outcome is not None and keep and not dry:
            self.generations.keep(outcome.active, self.now())
        return outcome

    def _reconcile(self, *, dry: bool) -> Outcome | None:
        before = self._active(dry=dry)
        wanted = before if before and self._known(before) else self.specs.default_service()
        if wanted is None:
            return None
        target = self.specs.get(wanted)
        strays = [name for name in self._running() if name != wanted]
        serves = before == wanted and not strays and (self._serves(target) or self._comes_up(target))
        if serves and (dry or self._proven(target) or self._answers(target)):
            changed = False if dry else self._commit(target)
            if not dry and self.memory.read(target).measured is None:
                self._measure(target)
            return Outcome(wanted, before, changed=changed, message=f"{wanted} serves with its present spec")
        if dry:
            return Outcome(wanted, before, changed=True, message=f"would start {wanted}")
        return self._transact(target, before if before and self._known(before) else None)

    def stop(self) -> str | None:
        """Stop the active service and keep it from starting with the host; returns its name."""
        with self.state.lock():
            active = self.state.read().active
            self._stop_all()
            if active and self._known(active):
                self.units.disable(active)
            self.state.write(State())
            if active:
                self.state.record(self._event("stop", active, None, "ok", ""))
            return active

    def withhold(self, services: Collection[str]) -> str | None:
        """Put back what the active service last served with, where it is among those that must not start as they are.

        What runs goes on, and what starts after a reboot is what ran. Returns the service that got its files back.
        """
        with self.state.lock():
            active = self.state.read().active
            if active is None or active not in services or not self._known(active):
                return None
            kept = self.state.kept(active)
            if not kept or kept == self._own_files(active):
                return None
            self._put_back(active, kept)
            return active

    def _active(self, *, dry: bool) -> str | None:
        """Return the active service, after putting away what an interrupted switch left behind."""
        state = self.state.read()
        if state.switching_to is not None and not dry:
            self.state.record(
                self._event("switch", state.switching_to, state.active, "interrupted", "found unfinished")
            )
            self.state.write(State(active=state.active))
        return state.active

    def _known(self, service: str) -> bool:
        try:
            self.specs.get(service)
        except NotFoundError:
            return False
        return True

    def _serves(self, spec: Spec) -> bool:
        running = self.specs.running(spec.service)
        if running is None or running.spec_sha256 != spec.spec_sha256:
            return False
        return self.units.holds_port(spec.service) and self.engine.health(spec) == "ok"

    def _comes_up(self, spec: Spec) -> bool:
        """Wait for a service that is loading already, as after a reboot, instead of starting it over."""
        running = self.specs.running(spec.service)
        if running is None or running.spec_sha256 != spec.spec_sha256:
            return False
        if not self.units.state(spec.service).is_running:
            return False
        try:
            self._wait_for_health(spec)
        except _FailedToServeError:
            return False
        return True

    def _transact(self, target: Spec, before: str | None) -> Outcome:
        self.phases = {}
        self._validate(target, before)
        if end_trial(self.specs.root):
            self.progress("the trial of an engine was ended: it takes memory that a service may need")
        try:
            self.state.write(State(active=before, switching_to=target.service))
            self._phase("stop", self._stop_all)
            if self.judge is not None:
                self._phase("judge", partial(self.judge, target))
            answer = self._bring_up(target)
            self._phase("commit", lambda: self._commit(target))
        except Exception as failure:  # whatever it is, the host must not be left without a service
            raise self._restore(target, before, str(failure) or type(failure).__name__) from failure
        except KeyboardInterrupt:
            error = self._restore(target, before, "interrupted by Ctrl-C")
            raise InterruptedSwitchError(error.message, error.remedy, error.serving, error.log_lines) from None
        self.state.record(self._event("switch", target.service, before, "ok", ""))
        return Outcome(
            target.service,
            before,
            changed=True,
            message=f"{target.service} serves at {target.url}",
            answer=answer,
            phases=self.phases,
        )

    def _validate(self, target: Spec, before: str | None, *, dry: bool = False) -> None:
        """Refuse what is sure to fail while the old service still serves."""
        for item in target.files:
            path = self.specs.path(item.path)
            if not path.is_file():
                msg, remedy = f"{target.service}: model file {item.path} is missing", "run playbooks/site.yml again"
            elif path.stat().st_size != item.bytes:
                msg = f"{target.service}: {item.path} has {path.stat().st_size} bytes, its profile says {item.bytes}"
                remedy = "run playbooks/site.yml again: it fetches the file anew"
            else:
                continue
            self._refuse(target, before, msg, remedy, dry=dry)
        found = shortfalls(target, self.memory.read(target))
        if found:
            self._refuse(target, before, f"{target.service}: {'; '.join(found)}", remedy_of(target), dry=dry)

    def _refuse(self, target: Spec, before: str | None, msg: str, remedy: str, *, dry: bool) -> NoReturn:
        if not dry:
            self.state.record(self._event("switch", target.service, before, "refused", msg))
        raise SwitchError(f"{msg}; nothing was touched", remedy, before, [])

    def _measure(self, spec: Spec) -> None:
        """Remember what the engine says it allocated; no switch fails for that."""
        with contextlib.suppress(Exception):
            parts = read_log(self.units.log(spec.service, START_LINES))
            if parts is not None:
                self.memory.keep_measured(spec, parts, self.now())

    def _running(self) -> list[str]:
        """Return which of llamarig's services run; a foreign llama-something.service is somebody else's.

        A service that lost its spec while it ran is still llamarig's: its unit left the spec it was started with.
        """
        known = {spec.service for spec in self.specs.all()}
        return [name for name in self.units.running() if name in known or self.specs.running(name) is not None]

    def _proven(self, spec: Spec) -> bool:
        """Tell whether the service was seen to serve with the files that are on disk now."""
        return self.state.kept(spec.service) == self._own_files(spec.service)

    def _answers(self, spec: Spec) -> bool:
        """Ask for a completion, because health says nothing of a deadlocked engine or of damaged weights."""
        try:
            self.engine.complete(spec, PROMPT, TOKENS, _ANSWER_SECONDS)
        except EngineError as error:
            self.progress(f"{spec.service} does not answer: {error}")
            return False
        return True

    def _stop_all(self) -> None:
        for name in self._running():
            self.progress(f"stopping {name}")
            self.units.stop(name)

    def _bring_up(self, spec: Spec) -> Answer:
        self.progress(f"starting {spec.service}")
        self.units.clear(spec.service, spec.port)
        if self.engine.port_is_taken(spec):
            msg = f"port {spec.port} is held by another program: ss -ltnp 'sport = :{spec.port}'"
            raise _FailedToServeError(msg)
        self._phase("start", lambda: self.units.start(spec.service))
        self._phase("load", lambda: self._wait_for_health(spec))
        self.progress(f"{spec.service} is loaded, asking for a completion")
        try:
            answer = self._phase("completion", lambda: self.engine.complete(spec, PROMPT, TOKENS, _ANSWER_SECONDS))
        except EngineError as error:
            msg = f"{spec.service} loaded, but {error}"
            raise _FailedToServeError(msg) from error
        self._measure(spec)
        return answer

    def _wait_for_health(self, spec: Spec) -> None:
        start = said = self.clock()
        seen_up = False
        while True:
            state = self.units.state(spec.service)
            # Only what the container itself says counts: whoever listens on the port before it does is a stranger,
            # and must not be sent the service's key.
            health = self.engine.health(spec) if self.units.holds_port(spec.service) else "down"
            if health == "ok" and state.is_running:
                return
            elapsed = self.clock() - start
            seen_up = seen_up or state.is_running
            if state.active == "failed" or (state.is_failed and (seen_up or elapsed > 2)):  # noqa: PLR2004  seconds
                msg = f"{spec.service} did not start: its unit is {state.active} ({state.sub}, {state.result})"
                raise _FailedToServeError(msg)
            if elapsed > spec.load_timeout_seconds:
                msg = f"{spec.service} was not ready after {spec.load_timeout_seconds} s (health: {health})"
                raise _FailedToServeError(msg)
            if self.clock() - said >= 5:  # noqa: PLR2004  seconds
                said = self.clock()
                self.progress(f"{spec.service} is {health}, {elapsed:.0f} s")
            self.sleep(_POLL_SECONDS)

    def _commit(self, target: Spec) -> bool:
        """Make ``target`` the one that starts with the host; returns whether that was news.

        It is enabled before the others are disabled, so that a power cut in between leaves two rather than none.
        """
        enabled = {spec.service for spec in self.specs.all() if self.units.state(spec.service).enabled == "enabled"}
        if target.service not in enabled:
            self.units.enable(target.service)
        for service in sorted(enabled - {target.service}):
            self.units.disable(service)
        if self.state.read() != State(active=target.service):
            self.state.write(State(active=target.service))
        self._forget_keys()
        for path in self.specs.path(target.models_dir).rglob("*.previous"):
            path.unlink()
        files = self._own_files(target.service)
        if self.state.kept(target.service) != files:
            self.state.keep(target.service, files)
        return enabled != {target.service}

    def _forget_keys(self) -> None:
        """Remove keys that no spec names any more; until the commit, going back may need them."""
        named = {spec.api_key_file for spec in self.specs.all()}
        for path in self.specs.path(paths.KEYS).glob("*.key"):
            if f"{paths.KEYS}/{path.name}" not in named:
                path.unlink()

    def _own_files(self, service: str) -> dict[str, bytes]:
        return {name: path.read_bytes() for name, path in self._own_paths(service).items()}

    def _own_paths(self, service: str) -> dict[str, Path]:
        return {
            "spec.json": self.specs.path(paths.SPECS) / f"{service}.json",
            "compose.yaml": self.specs.path(paths.COMPOSE) / service / "compose.yaml",
        }

    def _restore(self, target: Spec, before: str | None, reason: str) -> SwitchError:
        """Bring back what served before; returns the error that says how it went.

        Another Ctrl-C starts the going back over: impatience must not leave the host without a service.
        """
        while True:
            try:
                return self._go_back(target, before, reason)
            except KeyboardInterrupt:
                self.progress("going back already")

    def _go_back(self, target: Spec, before: str | None, reason: str) -> SwitchError:
        self.progress(f"failed: {reason}; going back")
        log = last_words(self.units.log(target.service, 60))
        self.units.stop(target.service)
        serves, how = (False, "nothing served before") if before is None else self._bring_back(before, target)
        serving = before if serves else None
        if serving is not None:
            self._commit(self.specs.get(serving))
        else:
            if before != target.service:
                self.units.disable(target.service)
            self.state.write(State(active=before))
        self.state.record({**self._event("switch", target.service, before, "failed", reason), "log_lines": log})
        return SwitchError(f"{reason}; {how}", f"llamarig logs {target.service}", serving, log)

    def _bring_back(self, before: str, target: Spec) -> tuple[bool, str]:
        """Start what served before; returns whether it serves, and how that is said."""
        restored = ""
        kept = self.state.kept(before)
        if before == target.service:
            # The service itself was changed: what it last served with comes back, files and all.
            if not kept:
                return False, f"{before} has no earlier spec to go back to"
            restored = " with its previous spec"
        self.progress(f"bringing back {before}{restored}")
        try:
            if restored:
                self._put_back(before, kept)
            self._bring_up(self.specs.get(before))
        except Exception as error:  # noqa: BLE001  the message is all that can still be done
            return False, f"{before} could not be brought back either: {error}"
        return True, f"{before}{restored} serves again"

    def _put_back(self, service: str, kept: dict[str, bytes]) -> None:
        """Put back the spec, the compose file and the model files that a service last served with."""
        present = {item.path: item.sha256 for item in self.specs.get(service).files}
        for name, path in self._own_paths(service).items():
            replace_file(path, kept[name])
        for item in self.specs.get(service).files:
            path = self.specs.path(item.path)
            previous = path.with_name(f"{path.name}.previous")
            if present.get(item.path) != item.sha256 and previous.is_file():
                previous.replace(path)

    def _phase(self, name: str, work: Callable[[], T]) -> T:
        start = self.clock()
        try:
            return work()
        finally:
            self.phases[name] = round(self.clock() - start, 3)

    def _event(self, kind: str, service: str, before: str | None, outcome: str, reason: str) -> dict[str, Any]:
        return {
            "time": round(self.now(), 3),
            "kind": kind,
            "service": service,
            "previous": before,
            "outcome": outcome,
            "reason": reason,
            "phases": dict(self.phases),
        }
