"""How what happens in other threads comes to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from llamarig.api.providers import Desk, Happened


class Ears:
    """Listens to jobs for one request. Used in the event loop's thread."""

    def __init__(self, desk: Desk, after: int | None = None) -> None:
        loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        self._listening = desk.listen(lambda: loop.call_soon_threadsafe(self._woken.set), after)

    @property
    def lost(self) -> bool:
        """Whether too much happened unread."""
        return self._listening.lost

    def take(self) -> Sequence[Happened]:
        """Return what happened since the last time."""
        self._woken.clear()
        return self._listening.take()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until something happens, or so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    def close(self) -> None:
        """Listen no more."""
        self._listening.close()
