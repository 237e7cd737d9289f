"""What root does after the daemon made something serve: it keeps the generation, and removes what nobody needs.

The daemon may write none of it: specs of before, keys and generations are root's.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.generation import GenerationStore
from llamarig.daemon.memory import MemoryStore
from llamarig.daemon.state import StateStore, read_file
from llamarig.errors import BusyError
from llamarig.runtime.specs import SpecStore

_WAIT_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2
# What the model store calls a file that another one of its name has replaced.
_REPLACED: Final = ".previous"


class Chores:
    """The chores of one host.

    Args:
        root: of its files.
        say: is told what takes time.
        now: the time, in seconds since 1970.
        sleep: waits.

    """

    def __init__(
        self,
        root: Path,
        say: Callable[[str], None] = lambda _: None,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.root = root
        self.say = say
        self.now = now
        self.sleep = sleep
        self.specs = SpecStore(root)
        self.state = StateStore(root)
        self.generations = GenerationStore(root)

    def run(self) -> list[str]:
        """Do all of them, while nobody else changes anything; returns the paths that were removed.

        Raises:
            BusyError: another command holds the host, and does not let go of it.

        """
        with held(self.state, self.say, self.sleep):
            return self.run_held()

    def run_held(self) -> list[str]:
        """Do all of them, for whoever holds the host already."""
        first = self.state.read().first
        settled = self._serves_what_is_planned()
        if first is not None and settled:
            self.generations.keep(first, self.now())
        MemoryStore(self.root).prune({spec.service for spec in self.specs.all()})
        return [*self.prune_versions(), *self.forget_keys(), *(self.drop_replaced_models() if settled else ())]

    def put_models_back(self, service: str, digest: str) -> list[str]:
        """Put model files in their place again that were replaced since a version of before served; returns them."""
        spec = self.specs.version(service, digest)
        planned = {item.path: item.sha256 for other in self.specs.all() for item in other.files}
        back = []
        for item in spec.files if spec is not None else ():
            place = self._place(item.path)
            previous = place.with_name(f"{place.name}{_REPLACED}")
            if planned.get(item.path) != item.sha256 and previous.is_file():
                previous.replace(place)
                back.append(item.path)
        return back

    def drop_replaced_models(self) -> list[str]:
        """Remove model files that were kept for a way back that nobody needs any more."""
        gone = []
        for directory in {spec.models_dir for spec in self.specs.all()}:
            for place in sorted(self._place(directory).rglob(f"*{_REPLACED}")):
                place.unlink()
                gone.append(self._named(place))
        return gone

    def prune_versions(self) -> list[str]:
        """Remove versions of services that are neither planned, nor running, nor remembered, nor of a generation."""
        kept = set(self._needed_versions())
        gone = []
        for place in sorted(self._place(paths.VERSIONS).glob("*/*")):
            service, digest = place.parent.name, place.name
            if (service, digest) not in kept:
                shutil.rmtree(place)
                gone.append(self._named(place))
        for place in self._place(paths.VERSIONS).glob("*"):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
        return gone

    def forget_keys(self) -> list[str]:
        """Remove keys of services that no spec names: none planned, running, or kept to go back to."""
        named = set(self._named_keys())
        gone = []
        for place in sorted(self._place(paths.KEYS).glob("*.key")):
            if self._named(place) not in named:
                place.unlink()
                gone.append(self._named(place))
        return gone

    def _needed_versions(self) -> Iterator[tuple[str, str]]:
        """Yield service and hash of every version that somebody may start again."""
        for spec in [*self.specs.all(), *self._running()]:
            yield spec.service, spec.spec_sha256
        state = self.state.read()
        for serving in state.active:
            yield serving.service, serving.version
        if state.switching is not None:
            yield state.switching.target, state.switching.version
        for place in self._place(paths.GATES).glob("*/version"):
            # The daemon's, whom root does not trust: nothing else than a file of its own is read.
            with suppress(OSError):
                yield place.parent.name, read_file(place).strip()
        pending = self.generations.pending()
        kept = [self.generations.current(), self.generations.before(), pending.target if pending else None]
        files = [generation.files for generation in kept if generation is not None]
        for path, file in (item for each in [*files, pending.was if pending else {}] for item in each.items()):
            if path.startswith(f"{paths.SPECS}/"):
                yield Path(path).stem, str(_json(file.text).get("spec_sha256"))

    def _named_keys(self) -> Iterator[str | None]:
        """Yield the key's file of every spec that is planned, runs, or is kept to go back to."""
        for spec in [*self.specs.all(), *self._running()]:
            yield spec.api_key_file
        for place in self._place(paths.VERSIONS).glob("*/*/spec.json"):
            # One that an older agent wrote counts too, whether this one reads it or not.
            yield _json(place.read_text(encoding="utf-8", errors="replace")).get("api_key_file")

    def _serves_what_is_planned(self) -> bool:
        planned = {spec.service: spec.spec_sha256 for spec in self.specs.all()}
        return all(planned.get(one.service) == one.version for one in self.state.read().active)

    def _running(self) -> list[Spec]:
        names = (path.stem for path in self._place(paths.RUNNING).glob("*.json"))
        return [spec for name in names if (spec := self.specs.running(name)) is not None]

    def _place(self, path: str) -> Path:
        return self.specs.path(path)

    def _named(self, place: Path) -> str:
        return f"/{place.relative_to(self.root)}"


@contextmanager
def held(
    state: StateStore,
    say: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    seconds: float = _WAIT_SECONDS,
) -> Iterator[None]:
    """Hold the host; whoever does is waited for, at most so many seconds.

    Raises:
        BusyError: they do not let go of it.

    """
    waited = 0.0
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(state.lock())
                break
            except BusyError:
                if waited >= seconds:
                    raise
            if not waited:
                say("waiting until nobody else changes anything")
            sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS
        yield


def _json(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
