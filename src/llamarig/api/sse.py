"""Server-sent events: what happens, for as long as somebody reads it.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from llamarig.api.grants import STANDS
from llamarig.web.answers import written

# After so long without an event a reader is told that it is still connected; clients give up after 30 s.
BEAT_SECONDS: Final = 10.0
# Who takes longer to read is not there any more.
READ_SECONDS: Final = 20.0
_BEAT: Final = b": still here\n\n"
_LOG: Final = logging.getLogger(__name__)


def event(kind: str, data: Any, number: int | None = None) -> bytes:
    """Return one event."""
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {kind}\ndata: ".encode() + written(data) + b"\n\n"


class Stream:
    """An answer that goes on until its source ends, its reader leaves, or the daemon ends.

    Args:
        source: the events.
        ending: is set when the daemon ends.
        close: called at the end, also where nothing was ever read.

    """

    def __init__(
        self,
        source: Callable[[], AsyncGenerator[bytes, None]],
        ending: asyncio.Event,
        close: Callable[[], None] = lambda: None,
        *,
        beat: float = BEAT_SECONDS,
        patience: float = READ_SECONDS,
    ) -> None:
        self._source = source
        self._ending = ending
        self._close = close
        self._beat = beat
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            await self._answer(scope, receive, send)
        finally:
            self._close()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        tasks = [asyncio.create_task(work) for work in (self._tell(scope, send), left(receive), self._ending.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, TimeoutError):
                _LOG.info("a reader of events that reads nothing is let go")
                return
            if isinstance(result, Exception):
                raise result
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await send({"type": "http.response.body", "body": b""})

    async def _tell(self, scope: Scope, send: Send) -> None:
        source, stands = self._source(), scope.get(STANDS, lambda: True)
        async with aclosing(source):
            coming: asyncio.Task[bytes | None] = asyncio.create_task(_next(source))
            try:
                while True:
                    await asyncio.wait({coming}, timeout=self._beat)
                    came = coming.done()
                    chunk = coming.result() if came else _BEAT
                    # A key that was taken back is told nothing more.
                    if chunk is None or not stands():
                        return
                    # Not wait_for: before Python 3.12 a reader that leaves at the wrong moment makes it go on.
                    async with asyncio.timeout(self._patience):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    if came:
                        coming = asyncio.create_task(_next(source))
            finally:
                coming.cancel()
                with suppress(asyncio.CancelledError):
                    await coming


async def _next(source: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(source, None)


async def left(receive: Receive) -> None:
    """Wait until the reader is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
