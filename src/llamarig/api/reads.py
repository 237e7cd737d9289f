"""What only looks."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp

from llamarig.api.lines import Splitter, shown
from llamarig.api.openapi import HTML, document
from llamarig.api.page import PAGE, POLICY
from llamarig.api.pools import Pools
from llamarig.api.providers import Data, Follower, Providers
from llamarig.api.sse import Stream, event
from llamarig.api.waking import Ears
from llamarig.web.answers import Answer, refusal, written
from llamarig.web.exposition import Exposition

if TYPE_CHECKING:
    from llamarig.api.app import Asked

# How often what nobody tells is looked for, while somebody wants to know it.
_LOOK_SECONDS: Final = 1.0
_EVENTS: Final = 50
# At each place to listen. Each log that is followed is a process of its own, within the daemon's memory.
FOLLOWERS: Final = 8
LISTENERS: Final = 32
_CHUNK: Final = 1 << 16


class Reads:
    """Answers what only looks, at one place to listen: who asks too much there takes nothing from the others."""

    def __init__(self, providers: Providers, pools: Pools, ending: asyncio.Event) -> None:
        self._board = providers.board
        self._desk = providers.desk
        self._logs = providers.logs
        self._gauges = providers.gauges
        self._metrics = providers.metrics
        self._samples = providers.samples
        self._pools = pools
        self._ending = ending
        self._document = document()
        self._followers = _Seats(FOLLOWERS)
        self._listeners = _Seats(LISTENERS)

    async def models(self, _: Asked) -> ASGIApp:
        """Say what could serve, in the seeds' words."""
        return Answer(self._board.models())

    async def status(self, _: Asked) -> ASGIApp:
        """Say what serves."""
        return Answer(self._board.status())

    async def jobs(self, _: Asked) -> ASGIApp:
        """Say what the last jobs were."""
        return Answer({"jobs": self._desk.jobs()})

    async def job(self, asked: Asked) -> ASGIApp:
        """Say how far a job is."""
        return Answer({"job": self._desk.job(asked.path["job"])})

    async def services(self, _: Asked) -> ASGIApp:
        """Say what could serve."""
        return Answer(await self._pools.files(self._board.services))

    async def plan(self, asked: Asked) -> ASGIApp:
        """Say what would leave for a service."""
        return Answer(await self._pools.files(self._board.plan, asked.path["service"]))

    async def logs(self, asked: Asked) -> ASGIApp:
        """Say what a service printed, or prints."""
        service, count = asked.path["service"], asked.query["lines"]
        if not asked.query["follow"]:
            return await self._pools.files(self._last_lines, service, count)
        # Taken before anything is waited for: many who come at once must not all find one free.
        if not self._followers.take():
            return _full(f"{FOLLOWERS} logs are followed here already")
        opening = _Opening(lambda: self._logs.follow(service, count))
        try:
            follower = await self._pools.files(opening.open)
        except BaseException:
            opening.leave()
            self._followers.leave()
            raise
        return Stream(lambda: self._printed(follower), self._ending, lambda: self._leave(follower))

    def _last_lines(self, service: str, count: int) -> ASGIApp:
        """Return an answer that is made here, in a thread: it is long, and nobody else is to wait for it."""
        lines = self._logs.lines(service, count)
        return Answer({"service": service, "lines": [shown(line) for line in lines[-count:]]})

    async def history(self, asked: Asked) -> ASGIApp:
        """Say what happened."""
        return await self._pools.files(lambda: Answer({"events": self._board.history(asked.query["lines"])}))

    async def gpus(self, _: Asked) -> ASGIApp:
        """Say what the cards say."""
        return Answer(await self._pools.machine(self._gauges.gpus))

    async def system(self, _: Asked) -> ASGIApp:
        """Say what processors and memory do."""
        return Answer(await self._pools.machine(self._gauges.system))

    async def samples(self, asked: Asked) -> ASGIApp:
        """Say what the cards did."""
        # Not laid out for people: a line for each of some thousand figures.
        found = written(self._samples.recent(asked.query["seconds"]))
        return Response(found + b"\n", media_type="application/json")

    async def metrics(self, _: Asked) -> ASGIApp:
        """Say what is counted and known, for Prometheus."""
        text = await self._pools.engines(self._metrics.text)
        return Exposition(text.encode())

    async def page(self, _: Asked) -> ASGIApp:
        """Give the page, which asks for the rest itself."""
        return Response(PAGE, headers={"Content-Type": f"{HTML}; charset=utf-8", "Content-Security-Policy": POLICY})

    async def events(self, asked: Asked) -> ASGIApp:
        """Tell what happens."""
        if not self._listeners.take():
            return _full(f"{LISTENERS} are told everything here already")
        return Stream(lambda: self._happenings(asked.after), self._ending, self._listeners.leave)

    async def healthz(self, _: Asked) -> ASGIApp:
        """Say that the daemon is there."""
        return Answer({"ok": True})

    async def version(self, _: Asked) -> ASGIApp:
        """Say which daemon this is."""
        return Answer(self._board.version())

    async def openapi(self, _: Asked) -> ASGIApp:
        """Say what can be asked."""
        return Answer(self._document)

    async def _happenings(self, after: int | None) -> AsyncGenerator[bytes, None]:
        with closing(Ears(self._desk, after)) as ears:
            status, seen = self._board.status(), _Seen(self._board.history_mark())
            seen.read(await self._pools.files(self._board.history, _EVENTS))
            yield event("status", status)
            while not ears.lost:
                for step in ears.take():
                    yield event("job", step.data, step.id)
                now = self._board.status()
                if _timeless(now) != _timeless(status):
                    status = now
                    yield event("status", status)
                mark = self._board.history_mark()
                if mark != seen.mark:
                    seen.mark = mark
                    for item in seen.read(await self._pools.files(self._board.history, _EVENTS)):
                        yield event("history", item)
                await ears.wait(_LOOK_SECONDS)

    async def _printed(self, follower: Follower) -> AsyncGenerator[bytes, None]:
        reader, splitter = asyncio.StreamReader(_CHUNK), Splitter()
        pipe = os.fdopen(os.dup(follower.fileno()), "rb", 0)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        with closing(transport):
            while data := await reader.read(_CHUNK):
                for line in splitter.feed(data):
                    yield event("line", {"line": line})
            for line in splitter.rest():
                yield event("line", {"line": line})

    def _leave(self, follower: Follower) -> None:
        self._followers.leave()
        follower.close()


class _Seats:
    """So many at once, and no more."""

    def __init__(self, count: int) -> None:
        self._free = count

    def take(self) -> bool:
        """Take one; False where all are taken."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    def leave(self) -> None:
        """Give one back."""
        self._free += 1


class _Opening:
    """A log that is opened in a thread, for one who may not wait for it any more when it is open."""

    def __init__(self, follow: Callable[[], Follower]) -> None:
        self._follow = follow
        self._lock = threading.Lock()
        self._opened: Follower | None = None
        self._left = False

    def open(self) -> Follower:
        """Open it; closes it again where nobody waits for it any more."""
        follower = self._follow()
        with self._lock:
            self._opened = follower
            left = self._left
        if left:
            follower.close()
        return follower

    def leave(self) -> None:
        """Wait for it no more."""
        with self._lock:
            self._left = True
            opened = self._opened
        if opened is not None:
            opened.close()


class _Seen:
    """Events of the history that were told already."""

    def __init__(self, mark: object) -> None:
        self.mark = mark
        self._last: Data | None = None

    def read(self, events: list[Data]) -> list[Data]:
        """Return those that are new."""
        known = max((place for place, item in enumerate(events) if item == self._last), default=-1)
        self._last = events[-1] if events else self._last
        return events[known + 1 :]


def _timeless(status: Data) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key != "time"}


def _full(why: str) -> ASGIApp:
    remedy = "follow fewer of them, or ask again when others have left"
    return refusal(HTTPStatus.SERVICE_UNAVAILABLE, why, remedy, {"Retry-After": "30"})
