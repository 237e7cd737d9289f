"""How many requests were answered, by route and status."""

from __future__ import annotations

import re
import threading
from collections import Counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llamarig.api.openapi import OPERATIONS

# What is asked for that is not there has one name, or whoever asks could fill the memory with names.
OTHER: Final = "other"
_ROUTES: Final = {
    path: re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)))
    for path in dict.fromkeys(operation.path for operation in OPERATIONS)
}


class Counts:
    """Requests since the daemon was started, at all places to listen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, path: str, status: int) -> None:
        """Count one."""
        if path not in _ROUTES:
            path = next((route for route, pattern in _ROUTES.items() if pattern.fullmatch(path)), OTHER)
        with self._lock:
            self._counts[path, str(status)] += 1

    def read(self) -> dict[tuple[str, str], int]:
        """Return how many there were, by route and status."""
        with self._lock:
            return dict(self._counts)


class Counted:
    """Counts every request that gets an answer, also one that a guard refuses."""

    def __init__(self, app: ASGIApp, counts: Counts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts.add(scope["path"], message["status"])
            await send(message)

        await self._app(scope, receive, counted)
