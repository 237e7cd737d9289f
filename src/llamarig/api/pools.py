"""Threads for what has to wait, few of each kind, so that one kind that hangs leaves the others alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

SECONDS: Final = 20.0
P = ParamSpec("P")
T = TypeVar("T")


class Pools:
    """Threads for files and the journal, for the machine, for engines, and for what is asked of the daemon."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._files = ThreadPoolExecutor(3, "api-files")
        self._machine = ThreadPoolExecutor(2, "api-machine")
        self._engines = ThreadPoolExecutor(2, "api-engines")
        self._asking = ThreadPoolExecutor(2, "api-asking")

    async def files(self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Read files, or the journal.

        Raises:
            TimeoutError: it took too long.

        """
        return await self._run(self._files, lambda: work(*arguments, **options))

    async def machine(self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Ask the machine; raises as :meth:`files`."""
        return await self._run(self._machine, lambda: work(*arguments, **options))

    async def engines(self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Ask engines; raises as :meth:`files`."""
        return await self._run(self._engines, lambda: work(*arguments, **options))

    async def asking(self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Ask the daemon for something; raises as :meth:`files`."""
        return await self._run(self._asking, lambda: work(*arguments, **options))

    def close(self) -> None:
        """Let threads end as they come to it."""
        for pool in (self._files, self._machine, self._engines, self._asking):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._seconds):
            return await loop.run_in_executor(pool, work)
