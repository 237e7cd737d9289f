"""Sends answers: long ones piece by piece, and only so much of them at once. Who asks and does not read costs nothing.

A connection takes whatever it is given, and keeps it in memory until its client has read it.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from llamarig.web.answers import refusal

# Of long answers at each place to listen, all together; one that is longer than that is sent where there is no other.
MOST_BYTES: Final = 16 << 20
# What is given to a connection at a time; a shorter answer is given whole.
PIECE_BYTES: Final = 64 << 10
# Who takes longer to read a piece is not there any more.
PIECE_SECONDS: Final = 10.0
_LOG: Final = logging.getLogger(__name__)


class Post:
    """Sends the answers of one place to listen."""

    def __init__(self) -> None:
        self._bytes = 0

    async def send(self, answer: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Send an answer; refuses a long one while too much of others is not read yet."""
        # What is a stream has no body.
        size = len(getattr(answer, "body", b""))
        if not isinstance(answer, Response) or size <= PIECE_BYTES or scope["method"] == "HEAD":
            await answer(scope, receive, send)
            return
        if self._bytes and self._bytes + size > MOST_BYTES:
            why, remedy = "too much was asked for at once that nobody has read yet", "ask again later, or for less"
            full = refusal(HTTPStatus.SERVICE_UNAVAILABLE, why, remedy, {"Retry-After": "5"})
            await full(scope, receive, send)
            return
        self._bytes += size
        try:
            await _in_pieces(answer, send)
        except TimeoutError:
            # What was begun cannot be answered otherwise: the connection ends in the middle of it.
            _LOG.info("a reader of a long answer that reads nothing is let go")
        finally:
            self._bytes -= size


async def _in_pieces(answer: Response, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    body = bytes(answer.body)
    for start in range(0, len(body), PIECE_BYTES):
        end = start + PIECE_BYTES
        async with asyncio.timeout(PIECE_SECONDS):
            await send({"type": "http.response.body", "body": body[start:end], "more_body": end < len(body)})
        # Others come first; and only so it is seen that the client has left.
        await asyncio.sleep(0)
