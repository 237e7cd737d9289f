"""What serves, and what could: the daemon's answers to who only looks.

Nothing here waits: for the worker, for an engine, for the driver or for the door. What others saw last is said, and
files are read again only where they have changed.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from llamarig import __version__, release
from llamarig.config import paths
from llamarig.config.policy import Policy
from llamarig.config.spec import Spec
from llamarig.daemon.job import Job
from llamarig.daemon.jobs import Jobs
from llamarig.daemon.memory import MemoryStore
from llamarig.daemon.refusal import refusal
from llamarig.daemon.request import Kind
from llamarig.daemon.state import Serving, State, StateStore
from llamarig.daemon.supervisor import View
from llamarig.daemon.switching import leaving
from llamarig.errors import LlamarigError, NotFoundError
from llamarig.runtime.door import Door
from llamarig.runtime.specs import SpecStore

# Phases of a switch in which what served before is on its way out.
_ENDING: Final = frozenset({"drain", "stop", "free"})
_VERSIONS: Final = 64
T = TypeVar("T")
Data = dict[str, Any]


class Views(Protocol):
    """Who looks at the services."""

    def view(self) -> Mapping[str, View]:
        """Return how each was at the last look; answers at once."""


class Board:
    """Says what serves.

    Args:
        specs, state, memory, jobs, door: of this host.
        views: who looks at the services.
        warnings: returns what somebody who looks after the host should know.

    """

    def __init__(
        self,
        *,
        specs: SpecStore,
        state: StateStore,
        memory: MemoryStore,
        jobs: Jobs,
        door: Door,
        views: Views,
        warnings: Callable[[], Sequence[str]] = list,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = specs
        self._memory = memory
        self._state_store = state
        self._jobs = jobs
        self._door = door
        self._views = views
        self._warnings = warnings
        self._now = now
        self._history = state.directory / "history.jsonl"
        services, host_file = specs.path(paths.SPECS), specs.path(paths.HOST_FILE)
        self._specs: _Kept[dict[str, Spec]] = _Kept(
            lambda: _entries(services),
            lambda: {spec.service: spec for spec in specs.all()},
            # Where one is torn as the daemon starts, the others are known all the same.
            {spec.service: spec for spec in specs.readable()},
        )
        self._policy = _Kept(lambda: _stamp(host_file), specs.policy, Policy())
        self._state = _Kept(lambda: _stamp(state.directory / "state.json"), state.read, State())
        self._versions: dict[tuple[object, ...], Spec] = {}
        self._since = now()

    def known(self) -> list[str]:
        """Return the services that this host runs."""
        return list(self._specs.get())

    def serving(self) -> tuple[str, ...]:
        """Return the services that should be serving."""
        return self._state.get().names

    def specs(self) -> dict[str, Spec]:
        """Return the spec of each service: of an active one that which it serves with, else the planned one."""
        serving = {one.service: spec for one in self._state.get().active if (spec := self._spec(one)) is not None}
        return {**self._specs.get(), **serving}

    def policy(self) -> Policy:
        """Return how long services stay, and which is the default."""
        return self._policy.get()

    def status(self) -> Data:
        """Return what serves now, and how it is."""
        state, job, views = self._state.get(), self._jobs.current(), self._views.view()
        active = [self._active(serving, job, views.get(serving.service, View())) for serving in state.active]
        first = active[0] if active else None
        return {
            "model": state.first,
            "model_name": first["name"] if first else "",
            "state": _state(state, job),
            "status": job.text or f"{job.said} is under way" if job else self._sentence(state, active),
            "active": active,
            "default": self._policy.get().default_service,
            "stopped": state.stopped,
            "job": job.to_dict() if job else None,
            "queue": [waiting.to_dict() for waiting in (*self._jobs.aside(), *self._jobs.waiting())],
            "given_up": {name: asdict(what) for name, what in state.given_up.items()},
            "warnings": self._troubles(),
            "agent": self.version(),
            "time": round(self._now(), 3),
        }

    def models(self) -> Data:
        """Return what could serve, in the words of the seeds."""
        active = self.serving()
        return {
            "models": [
                {
                    "id": spec.service,
                    "name": _name(spec),
                    "speed": spec.speed,
                    "ctx_size": str(context) if (context := _context(spec)) is not None else "",
                    "is_bench": spec.bench,
                    "active": spec.service in active,
                }
                for spec in self._specs.get().values()
            ]
        }

    def services(self) -> Data:
        """Return what could serve, and what would leave for it."""
        state, policy, views, job = self._state.get(), self._policy.get(), self._views.view(), self._jobs.current()
        present = self._present(state)
        coming = job.service if job and job.kind == Kind.SWITCH else None
        return {
            "services": [
                {
                    "service": spec.service,
                    "profile": spec.profile,
                    "name": _name(spec),
                    "description": spec.description,
                    "speed": spec.speed,
                    "context": _context(spec),
                    "strategy": spec.strategy,
                    "is_bench": spec.bench,
                    "url": spec.url,
                    "port": spec.port,
                    "active": spec.service in state.names,
                    "pinned": policy.of(spec.service).pinned,
                    "default": spec.service == policy.default_service,
                    "state": _state_of(spec.service, state, views, coming),
                    "memory": asdict(spec.memory) if spec.memory is not None else None,
                    "leaves": leaving(spec, present, policy),
                }
                for spec in self._specs.get().values()
            ]
        }

    def plan(self, service: str) -> Data:
        """Return what a switch to a service would do.

        Raises:
            NotFoundError: no such service here.

        """
        spec = self._specs.get().get(service)
        if spec is None:
            names = ", ".join(self.known()) or "none"
            raise NotFoundError(f"this host runs no service {service!r}", f"choose one of: {names}")
        state = self._state.get()
        leaves = leaving(spec, self._present(state), self._policy.get())
        refused = refusal(self._store, self._memory, spec, leaves, self._policy.get())
        return {
            "service": service,
            "active": service in state.names,
            "leaves": leaves,
            "stays": [name for name in state.names if name not in leaves and name != service],
            "refused": refused.message if refused else None,
            "remedy": refused.remedy if refused else "",
            "memory": asdict(spec.memory) if spec.memory is not None else None,
            "url": spec.url,
        }

    def history(self, lines: int) -> list[Data]:
        """Return the last events, oldest first."""
        return [{"time": 0.0, "kind": "", "outcome": "", **event} for event in self._state_store.history(lines)]

    def history_mark(self) -> object:
        """Return something that is another thing when the history is."""
        return _stamp(self._history)

    def version(self) -> Data:
        """Return what this daemon is, and which host it is on: through a tunnel all have the same address."""
        return {"version": __version__, "release": release(), "host": socket.gethostname()}

    def _active(self, serving: Serving, job: Job | None, view: View) -> Data:
        name = serving.service
        planned, spec = self._specs.get().get(name), self._spec(serving)
        stay = self._policy.get().of(name)
        is_open = spec is not None and self._door.behind(spec.port) == name
        health = view.health
        if job is not None and not is_open:
            # Nobody looks while a job changes what serves; a door that is closed says enough.
            health = "loading" if job.service == name else "down"
        elif health == "unknown" and not view.reason and is_open and serving.since >= self._since:
            # It has answered since this daemon began, or it would not be there.
            health = "ok"
        return {
            "service": name,
            "profile": spec.profile if spec else "",
            "name": _name(spec) if spec else name,
            "url": spec.url if spec else "",
            "port": spec.port if spec else 0,
            "health": health,
            "reason": view.reason,
            "since": serving.since,
            "pinned": stay.pinned,
            "idle_seconds": stay.idle_seconds,
            "in_flight": view.in_flight,
            "restarts": view.restarts,
            "version": serving.version,
            "planned": planned is not None and planned.spec_sha256 == serving.version,
        }

    def _present(self, state: State) -> list[Spec]:
        return [spec for serving in state.active if (spec := self._spec(serving)) is not None]

    def _spec(self, serving: Serving) -> Spec | None:
        """Return the spec that a service serves with; what a hash stands for never changes, where it is asked may."""
        planned = self._specs.get().get(serving.service)
        if planned is not None and planned.spec_sha256 == serving.version:
            return planned
        where = (planned.bind, planned.port, planned.drain_seconds) if planned is not None else ()
        key = (serving.service, serving.version, *where)
        found = self._versions.get(key) or self._store.version(serving.service, serving.version)
        if found is None:
            return planned
        if len(self._versions) >= _VERSIONS:
            self._versions.clear()
        self._versions[key] = found
        return found

    def _sentence(self, state: State, active: Sequence[Data]) -> str:
        if active:
            return "; ".join(map(_how, active))
        if state.stopped:
            return "nothing serves: the last service was stopped on purpose"
        default = self._policy.get().default_service
        if default is None:
            return "this host runs no service"
        if default in state.given_up:
            return f"nothing serves: {default} was given up ({state.given_up[default].reason})"
        return "nothing serves"

    def _troubles(self) -> list[str]:
        kept = (self._specs.trouble, self._policy.trouble)
        return [*self._warnings(), *filter(None, kept)]


class _Kept(Generic[T]):
    """What was read from files, read again where ``stamp`` is another; what was read before stays where it fails."""

    def __init__(self, stamp: Callable[[], object], read: Callable[[], T], first: T) -> None:
        self._stamp = stamp
        self._read = read
        self._seen: object = None
        self._value = first
        self.trouble = ""

    def get(self) -> T:
        stamp = self._stamp()
        if stamp != self._seen or self._seen is None:
            try:
                self._value, self.trouble = self._read(), ""
            except (LlamarigError, OSError) as error:
                self.trouble = str(error)
            self._seen = stamp
        return self._value


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _entries(directory: Path) -> tuple[tuple[str, int, int, int], ...]:
    try:
        with os.scandir(directory) as entries:
            stats = sorted((entry.name, entry.stat()) for entry in entries)
    except OSError:
        return ()
    return tuple((name, stat.st_mtime_ns, stat.st_ino, stat.st_size) for name, stat in stats)


def _state(state: State, job: Job | None) -> str:
    """Return the seeds' word for what the host does."""
    if job is not None:
        if job.kind == Kind.STOP or job.phase in _ENDING:
            return "stopping"
        if job.kind == Kind.SWITCH or job.phase not in {"", "validate"}:
            return "starting"
    return "running" if state.active else "idle"


def _state_of(service: str, state: State, views: Mapping[str, View], coming: str | None) -> str:
    if service == coming:
        return "starting"
    if service in state.names:
        return views.get(service, View()).health
    return "given up" if service in state.given_up else "stopped"


def _how(active: Data) -> str:
    name, health = active["service"], active["health"]
    if health in {"ok", "unknown"}:
        return f"{name} serves at {active['url']}"
    return f"{name} is {health}" + (f": {active['reason']}" if active["reason"] else "")


def _name(spec: Spec) -> str:
    return spec.title or spec.profile


def _context(spec: Spec) -> int | None:
    value = spec.origins.get("ctx_size", {}).get("value")
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
