"""Going back to the engine of before: root puts its files back, and the daemon makes its services serve.

Nothing is built, fetched or planned. Where a way back was cut off, the next one goes on to where that one led; where it
fails, the files that were there come back, and what served before serves again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Protocol

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.chores import Chores, held
from llamarig.daemon.generation import Generation, GenerationStore, OwnFile
from llamarig.daemon.request import Outcome
from llamarig.daemon.state import StateStore
from llamarig.errors import BusyError, ExitCode, LlamarigError, SwitchError
from llamarig.runtime.specs import SpecStore

_UNIT: Final = (".service", ".slice")
# How long what the daemon is still at is waited for before files are put back: a model may be loading.
_RETURN_SECONDS: Final = 1800.0
# What keeps files from being put back.
_TROUBLE: Final = (BusyError, OSError, KeyboardInterrupt)


class Daemon(Protocol):
    """What a way back asks of the daemon; each raises a LlamarigError where it does not come to serve."""

    def switch(self, service: str) -> Outcome:
        """Make a service serve."""

    def reconcile(self) -> Outcome:
        """Make all that serve do so with their present specs, and end what has none."""


class RollbackError(LlamarigError):
    """There is nothing to go back to, or what it needs is gone; nothing was touched."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way back, decided and not gone.

    Attributes:
        target: what is put back.
        left: the engines that the host's files name now.
        service: the one that will serve.
        written: files that are not yet as they will be.
        removed: files of services that the target does not know.

    """

    target: Generation
    left: tuple[str, ...]
    service: str
    written: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Back:
    """How a way back ended."""

    way: Way
    changed: bool
    message: str
    phases: Mapping[str, float]


class Rollback:
    """The way back.

    Args:
        store: generations, and the host's files.
        daemon: makes services serve.
        chores: what root does when they do.
        has_image: tells whether an engine's image is on this host.
        reload: lets systemd read its unit files anew.
        say: is told what takes time.
        now: the time, in seconds since 1970.

    """

    def __init__(
        self,
        store: GenerationStore,
        daemon: Daemon,
        chores: Chores,
        has_image: Callable[[str], bool],
        reload: Callable[[], None],
        say: Callable[[str], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.daemon = daemon
        self.chores = chores
        self.has_image = has_image
        self.reload = reload
        self.say = say
        self.now = now
        self.specs: SpecStore = chores.specs
        self.state: StateStore = chores.state
        self.phases: dict[str, float] = {}

    def run(self, to: str | None = None, *, dry: bool = False) -> Back:
        """Go back to the engine before, or to one that is named; with ``dry`` say what would happen.

        Raises:
            RollbackError: nothing to go back to, or what it needs is gone.
            BusyError: another command holds the host, or the daemon is at work.
            SwitchError: it failed, and what serves now.

        """
        with self.state.lock():
            way = self._decide(to)
            if dry:
                changed = bool(way.written or way.removed)
                return Back(way, changed, _told("would go", way) if changed else _told("is", way), {})
            pending = self.store.pending()
            same = pending is not None and pending.target.image == way.target.image
            was = pending.was if pending is not None and same else self.store.files()
            served = self.state.read().names
            self.store.begin(way.target, was)
            self._put(way.target.files)
        # The daemon takes the lock for what it is asked.
        try:
            changed = self._serve(way)
        except (Exception, KeyboardInterrupt) as error:
            raise self._return(way, was, served, error) from error
        changed = changed or bool(way.written or way.removed)
        message = _told("went", way) if changed else _told("is", way)
        try:
            with self._held():
                self._prune(way.target.files)
                self.store.keep(way.service, self.now())
                if changed:
                    self._note(way, "ok", "")
                self.chores.run_held()
        except BusyError as error:
            raise BusyError(f"{message}, but it is not written down: {error.message}", "run the same again") from error
        return Back(way, changed, message, dict(self.phases))

    def _held(self) -> contextlib.AbstractContextManager[None]:
        return held(self.state, self.say, self.chores.sleep)

    def _decide(self, to: str | None) -> Way:
        files = self.store.files()
        target = self._target(to, files)
        if not self.has_image(target.image):
            remedy = "name its ref or image in the lock again, and playbooks/site.yml brings it"
            raise RollbackError(f"the engine of before is no more on this host: {target.image}", remedy)
        service = self._service(target)
        self._check(target, service)
        written = tuple(path for path in target.files if files.get(path) != target.files[path])
        removed = tuple(path for path in files if path not in target.files)
        return Way(target, tuple(sorted(self.store.images(files))), service, written, removed)

    def _target(self, to: str | None, files: Mapping[str, OwnFile]) -> Generation:
        planned = self.store.images(files)
        current, before, pending = self.store.current(), self.store.before(), self.store.pending()
        if pending is not None and to in {None, pending.target.image}:
            return pending.target
        if to is not None and planned == {to} and to not in {each.image for each in (current, before) if each}:
            # The host is there already, be it that nothing was ever kept of it.
            active = self.state.read().first or self.specs.default_service() or ""
            return Generation(to, round(self.now()), active, files)
        if current is None:
            remedy = "playbooks/site.yml writes the first one when the host serves"
            raise RollbackError("this host has no generation to go back to", remedy)
        if to is not None:
            for generation in (current, before):
                if generation is not None and generation.image == to:
                    return generation
            known = " and ".join(each.image for each in (current, before) if each is not None)
            raise RollbackError(f"no generation of {to} is kept here", f"there is one of {known}")
        if planned != {current.image}:
            return current
        if before is None or before.image == current.image:
            remedy = "it never served with another engine: playbooks/upgrade.yml brings one"
            raise RollbackError(f"there is nothing before {current.image} on this host", remedy)
        return before

    def _service(self, target: Generation) -> str:
        return next((name for name in self.state.read().names if name in target.services), target.active)

    @staticmethod
    def _spec(target: Generation, service: str) -> Spec:
        try:
            return Spec.from_dict(json.loads(target.files[f"{paths.SPECS}/{service}.json"].text))
        except (KeyError, ValueError) as error:
            msg = f"the generation of {target.image} has no spec of {service} that this agent reads: {error}"
            raise RollbackError(msg, "name its ref or image in the lock again, and run playbooks/site.yml") from error

    def _check(self, target: Generation, service: str) -> None:
        """Refuse what is sure to fail while nothing has been touched yet."""
        spec = self._spec(target, service)
        for item in spec.files:
            path = self.specs.path(item.path)
            if not path.is_file() or path.stat().st_size != item.bytes:
                msg = f"{service}: {item.path} is not the file that the engine of before served"
                raise RollbackError(msg, "run playbooks/site.yml with the lock of before: it fetches the file")
        if spec.api_key_file and not self.specs.path(spec.api_key_file).is_file():
            msg = f"{service}: {spec.api_key_file} is gone, and keys are no part of a generation"
            raise RollbackError(msg, "run playbooks/site.yml with the lock of before: it writes the key")

    def _serve(self, way: Way) -> bool:
        """Have the target's services serve, and those end that it does not know; returns whether that was news."""
        changed = False
        if way.service not in self.state.read().names:
            changed = self._asked(self.daemon.switch(way.service))
        with self._held():
            for path in self.store.files():
                if path not in way.target.files and path.startswith(f"{paths.SPECS}/"):
                    self.store.remove(path)
        return self._asked(self.daemon.reconcile()) or changed

    def _asked(self, outcome: Outcome) -> bool:
        for name, seconds in outcome.phases.items():
            self.phases[name] = round(self.phases.get(name, 0.0) + seconds, 3)
        return outcome.changed

    def _return(
        self, way: Way, was: Mapping[str, OwnFile], served: tuple[str, ...], error: BaseException
    ) -> BaseException:
        """Put back what was there; returns the error that says how it went, and what is to be done where it could not.

        What the daemon is still at is waited for: it must not start anything with half of the files.
        """
        self.say("going back failed: the files that were there come back")
        reason = str(error) or type(error).__name__
        log = error.log_lines if isinstance(error, SwitchError) else []
        failed = f"going back to {way.target.image} failed: {reason}"
        code = ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else _code_of(error)
        serving: str | None = None
        try:
            with held(self.state, self.say, self.chores.sleep, _RETURN_SECONDS):
                self._put(was)
                self._note(way, "failed", reason)
            serving, how = self._bring_back(served)
            with self._held():
                self._prune(was)
                self.store.end()
            said = SwitchError(f"{failed}; {how}", "llamarig history", serving, log)
        except _TROUBLE as trouble:
            why = str(trouble) or type(trouble).__name__
            said = SwitchError(
                f"{failed}; what was there before could not be put back: {why}", self._remedy(way), serving, log
            )
            code = ExitCode.INTERRUPTED if isinstance(trouble, KeyboardInterrupt) else code
        said.exit_code = code
        return said

    def _remedy(self, way: Way) -> str:
        """Return what puts back the files that were there."""
        kept = {each.image for each in (self.store.current(), self.store.before()) if each is not None}
        engine = next((image for image in way.left if image in kept and image != way.target.image), None)
        if engine is None:
            return "run playbooks/site.yml for this host: it writes its files anew"
        return f"once llamarig status says that nothing is under way: llamarig engine rollback --to {engine}"

    def _bring_back(self, served: tuple[str, ...]) -> tuple[str | None, str]:
        """Have those serve that did; returns the first that does, and how it is said."""
        try:
            for name in reversed([name for name in served if name not in self.state.read().names]):
                self.daemon.switch(name)
            names = self.daemon.reconcile().active
        except LlamarigError as error:
            return None, f"what served before could not be brought back either: {error.message}"
        verb = "serve" if len(names) > 1 else "serves"
        return (names[0], f"{' and '.join(names)} {verb} again") if names else (None, "nothing serves")

    def _put(self, files: Mapping[str, OwnFile]) -> None:
        if any(path.endswith(_UNIT) for path in self.store.put(files)):
            self.reload()

    def _prune(self, files: Mapping[str, OwnFile]) -> None:
        """Remove what is of no service any more; the daemon has ended what it was of."""
        gone = [path for path in self.store.files() if path not in files]
        for path in gone:
            self.store.remove(path)
        if any(path.endswith(_UNIT) for path in gone):
            self.reload()

    def _note(self, way: Way, outcome: str, reason: str) -> None:
        """Write it into the history; a history that cannot be written must not keep a host from going back."""
        with contextlib.suppress(OSError):
            self.state.record(
                {
                    "time": round(self.now(), 3),
                    "kind": "rollback",
                    "service": way.service,
                    "previous": way.service,
                    "outcome": outcome,
                    "reason": f"{' and '.join(way.left)} -> {way.target.image}{f': {reason}' if reason else ''}",
                    "origin": "cli",
                    "phases": dict(self.phases),
                }
            )


def _code_of(error: BaseException) -> ExitCode:
    return error.exit_code if isinstance(error, LlamarigError) else ExitCode.FAILED


def _told(verb: str, way: Way) -> str:
    """Say a way back in a sentence."""
    if verb == "is":
        return f"{way.service} is served by {way.target.image} already"
    gone = sorted({PurePosixPath(path).stem for path in way.removed if path.startswith(f"{paths.SPECS}/")})
    removed = f"; {', '.join(gone)} did not exist then and {'goes' if len(gone) == 1 else 'go'}" if gone else ""
    return (
        f"{verb} back from {' and '.join(way.left) or 'nothing'} to {way.target.image}: {way.service} serves{removed}"
    )
