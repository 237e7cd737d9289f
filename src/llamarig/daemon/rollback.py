"""Going back to the engine of before: its files are put back, and the usual transaction makes its service serve.

Nothing is built, fetched or planned. Where a way back was cut off, the next one goes on to where that one led; where it
fails, the files that were there come back, and what served before serves again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.generation import Generation, GenerationStore, OwnFile
from llamarig.daemon.switching import Switcher
from llamarig.errors import ExitCode, LlamarigError, SwitchError

_UNIT: Final = (".service", ".slice")


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
        switcher: makes a service serve.
        has_image: tells whether an engine's image is on this host.
        reload: lets systemd read its unit files anew.

    """

    def __init__(
        self,
        store: GenerationStore,
        switcher: Switcher,
        has_image: Callable[[str], bool],
        reload: Callable[[], None],
    ) -> None:
        self.store = store
        self.switcher = switcher
        self.has_image = has_image
        self.reload = reload

    def run(self, to: str | None = None, *, dry: bool = False) -> Back:
        """Go back to the engine before, or to one that is named; with ``dry`` say what would happen.

        Raises:
            RollbackError: nothing to go back to, or what it needs is gone.
            BusyError: another command holds the host.
            SwitchError: it failed, and what serves now.

        """
        with self.switcher.state.lock():
            way = self._decide(to)
            if dry:
                changed = bool(way.written or way.removed)
                return Back(way, changed, _told("would go", way) if changed else _told("is", way), {})
            return self._go(way)

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
            active = self.switcher.state.read().active or self.switcher.specs.default_service() or ""
            return Generation(to, round(self.switcher.now()), active, files)
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
        active = self.switcher.state.read().active
        return active if active in target.services else target.active

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
            path = self.switcher.specs.path(item.path)
            if not path.is_file() or path.stat().st_size != item.bytes:
                msg = f"{service}: {item.path} is not the file that the engine of before served"
                raise RollbackError(msg, "run playbooks/site.yml with the lock of before: it fetches the file")
        if spec.api_key_file and not self.switcher.specs.path(spec.api_key_file).is_file():
            msg = f"{service}: {spec.api_key_file} is gone, and keys are no part of a generation"
            raise RollbackError(msg, "run playbooks/site.yml with the lock of before: it writes the key")

    def _go(self, way: Way) -> Back:
        pending = self.store.pending()
        was = pending.was if pending is not None and pending.target.image == way.target.image else self.store.files()
        self.store.begin(way.target, was)
        try:
            self._put(way.target.files)
            if self.switcher.state.read().active == way.service:
                outcome = self.switcher.reconcile_held()
            else:
                outcome = self.switcher.switch_held(way.service)
        except (Exception, KeyboardInterrupt) as error:
            raise self._return(way, was, error) from error
        self._prune(way.target.files)
        self.store.keep(way.service, self.switcher.now())
        changed = bool(way.written or way.removed) or (outcome is not None and outcome.changed)
        phases = outcome.phases if outcome is not None else {}
        message = _told("went", way) if changed else _told("is", way)
        if changed:
            self._note(way, "ok", "", phases)
        return Back(way, changed, message, phases)

    def _return(self, way: Way, was: Mapping[str, OwnFile], error: BaseException) -> BaseException:
        """Put back what was there; returns the error that says how it went."""
        self.switcher.progress("going back failed: the files that were there come back")
        reason = str(error) or type(error).__name__
        self._note(way, "failed", reason, self.switcher.phases)
        self._put(was)
        try:
            outcome = self.switcher.reconcile_held(keep=False)
            serving, how = (outcome.active, f"{outcome.active} serves again") if outcome else (None, "nothing serves")
        except LlamarigError as second:
            serving, how = None, f"what served before could not be brought back either: {second.message}"
        self._prune(was)
        self.store.end()
        log = error.log_lines if isinstance(error, SwitchError) else []
        said = SwitchError(
            f"going back to {way.target.image} failed: {reason}; {how}", "llamarig history", serving, log
        )
        said.exit_code = ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else _code_of(error)
        return said

    def _put(self, files: Mapping[str, OwnFile]) -> None:
        if any(path.endswith(_UNIT) for path in self.store.put(files)):
            self.reload()

    def _prune(self, files: Mapping[str, OwnFile]) -> None:
        """Remove what is of no service any more; each unit is stopped and disabled before its file goes."""
        gone = [path for path in self.store.files() if path not in files]
        for path in gone:
            name = PurePosixPath(path).name
            if name.endswith(".service"):
                service = name.removeprefix("llama-").removesuffix(".service")
                self.switcher.units.stop(service)
                self.switcher.units.disable(service)
        for path in gone:
            self.store.remove(path)
        if any(path.endswith(_UNIT) for path in gone):
            self.reload()

    def _note(self, way: Way, outcome: str, reason: str, phases: Mapping[str, float]) -> None:
        """Write it into the history."""
        self.switcher.state.record(
            {
                "time": round(self.switcher.now(), 3),
                "kind": "rollback",
                "service": way.service,
                "previous": way.service,
                "outcome": outcome,
                "reason": f"{' and '.join(way.left)} -> {way.target.image}{f': {reason}' if reason else ''}",
                "phases": dict(phases),
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
