"""What the daemon says, passed on: its own text, and whether it answers at all."""

from __future__ import annotations

import asyncio
import http.client
import time
from http import HTTPStatus
from pathlib import Path
from typing import Final

from llamarig.config import paths
from llamarig.runtime.connections import UnixConnection, read_whole

# A daemon that is started anew is away for a second or two; a scrape is given up by Prometheus after 10.
AWAY_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 9.0
_PAUSE: Final = 0.1
_LARGEST: Final = 8 << 20


class DaemonError(Exception):
    """The daemon does not say it; the message says why."""


class DaemonLink:
    """The daemon, as everybody on the host may ask it.

    Many who ask at the same time share one answer, so that scrapers cannot multiply the daemon's work.
    """

    def __init__(self, root: Path = Path("/"), *, away: float = AWAY_SECONDS, answer: float = ANSWER_SECONDS) -> None:
        self._socket = root / paths.READ_SOCKET.lstrip("/")
        self._away = away
        self._answer = answer
        self._asked: asyncio.Task[bytes] | None = None

    async def metrics(self) -> bytes:
        """Return the daemon's metrics as text; one that is away is waited for.

        Raises:
            DaemonError: it stays away, is too slow, or answers something else.

        """
        if self._asked is None:
            self._asked = asyncio.create_task(asyncio.to_thread(self._metrics))
            # Whoever asked may be gone before it is over; its error is nobody's then.
            self._asked.add_done_callback(self._over)
        return await asyncio.shield(self._asked)

    def _over(self, asked: asyncio.Task[bytes]) -> None:
        """Forget a question: what was answered, or why not, is kept by nobody but those who wait for it."""
        if not asked.cancelled():
            asked.exception()
        if self._asked is asked:
            self._asked = None

    async def answers(self, seconds: float) -> bool:
        """Tell whether the daemon answers within so many seconds."""
        try:
            await asyncio.to_thread(self._get, "/healthz", seconds)
        except Exception:  # noqa: BLE001  whatever it says instead: it does not answer, and whoever asks goes on
            return False
        return True

    def _metrics(self) -> bytes:
        began = time.monotonic()
        while True:
            left = began + self._answer - time.monotonic()
            try:
                return self._get("/metrics", max(left, _PAUSE))
            except TimeoutError as error:
                raise DaemonError(f"llamarigd gave no answer within {self._answer:g} s") from error
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, http.client.IncompleteRead) and len(error.partial) >= _LARGEST:
                    raise DaemonError(f"llamarigd answers more than {_LARGEST >> 20} MiB") from error
                if time.monotonic() - began >= self._away:
                    raise DaemonError(f"llamarigd is away: {error}") from error
            time.sleep(_PAUSE)

    def _get(self, path: str, seconds: float) -> bytes:
        """Return what is at a path.

        Raises:
            OSError, http.client.HTTPException: it does not answer, or ends in the middle of it.
            DaemonError: it answers something else.

        """
        connection = UnixConnection(str(self._socket), seconds)
        try:
            connection.request("GET", path)
            with connection.getresponse() as response:
                if response.status != HTTPStatus.OK:
                    raise DaemonError(f"llamarigd answered {response.status} to GET {path}")
                return read_whole(response, _LARGEST)
        finally:
            connection.close()
