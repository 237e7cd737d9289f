"""One way to listen: uvicorn on a socket that is bound already, with bounds on connections.

A connection that asks nothing is closed, one that does not let itself be closed is cut, and no client has all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import struct
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from llamarig.web.answers import raw, refusal
from llamarig.web.guard import SEALS

_IDLE_SECONDS: Final = 15.0
# What is read of a connection at a time. Who is refused while more is coming may miss the answer: a body has less.
_RECEIVED_BYTES: Final = 64 << 10
_GRACE_SECONDS: Final = 3
# Of each place to listen, and of these for one client; who comes then is told so, as long as there are few of them.
_CONNECTIONS: Final = 256
_OF_ONE: Final = 128
_TOLD: Final = 32
_TOLD_SECONDS: Final = 2.0


def bound(address: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; a port of 0 is any that is free.

    Raises:
        OSError: it cannot.

    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # Only where the protocol is named does asyncio send small parts at once; others wait 40 ms for the reader's word.
    place = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind((address, port))
        place.listen()
    except OSError:
        place.close()
        raise
    return place


class Listener(uvicorn.Server):
    """uvicorn on one socket, until it is told to end; signals and the log are the process's own."""

    def __init__(self, app: ASGIApp, ending: asyncio.Event) -> None:
        self._ending = ending
        super().__init__(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                # A header is no proof of where a request comes from.
                proxy_headers=False,
                server_header=False,
                date_header=False,
                backlog=128,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def main_loop(self) -> None:
        """Wait for the end; the original looks for it ten times a second."""
        await self._ending.wait()


class _Connection(H11Protocol):
    """One connection; one that asks nothing is not kept for ever, and no client has all of them."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio's own 256 KiB are kept whole while a request before is answered: of each connection, that is a lot.
        transport.max_size = _RECEIVED_BYTES  # type: ignore[attr-defined]
        self._full_since = math.inf
        # uvicorn warns of what is no HTTP: whoever likes could fill the journal.
        self.logger = _UVICORN
        self.client = self.client or _user(transport)
        self._is_full = False
        self._quiet_since = self.loop.time()
        here, client = len(self.connections), self.client and self.client[0]
        of_one = sum(
            isinstance(other, _Connection) and other.client is not None and other.client[0] == client
            for other in self.connections
        )
        # Each costs the process a file.
        if here > _CONNECTIONS + _TOLD or of_one > _OF_ONE + _TOLD:
            self._timer = self.loop.call_soon(transport.abort)
        elif here > _CONNECTIONS or of_one > _OF_ONE:
            self._is_full = True
            self._timer = self.loop.call_later(_TOLD_SECONDS, transport.abort)
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # A timer would keep all of it in memory until it fires.
        self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_full:
            self._end_with(_FULL)
        else:
            super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._full_since = math.inf

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.abort()
                return
        what = "this is no request in HTTP, or its head has more than 16 KiB"
        remedy = "send a request in HTTP/1.1, such as GET / HTTP/1.1"
        self._end_with(raw(refusal(HTTPStatus.BAD_REQUEST, what, remedy), SEALS))

    def on_response_complete(self) -> None:
        self._quiet_since = self.loop.time()
        super().on_response_complete()

    def _end_with(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()

    def _watch(self) -> None:
        is_quiet = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing():
            self.transport.abort()
        elif self.loop.time() - self._full_since > _IDLE_SECONDS:
            # Short answers wait for the reader too, where it asked for many at once and reads none.
            self.transport.abort()
        elif is_quiet and self.loop.time() - self._quiet_since > _IDLE_SECONDS:
            self.transport.close()
        self._timer = self.loop.call_later(_IDLE_SECONDS / 2, self._watch)


_UVICORN: Final = logging.getLogger("llamarig.web.uvicorn")
_UVICORN.setLevel(logging.ERROR)
_PEER: Final = struct.Struct("3i")
_FULL: Final = raw(
    refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "there are too many connections",
        "close some, or come again later",
        {"Retry-After": "5"},
    ),
    SEALS,
)


def _user(transport: asyncio.Transport) -> tuple[str, int]:
    """Return the user at the other end of a UNIX socket, and the process, as the kernel says it."""
    here = transport.get_extra_info("socket")
    process, user, _ = _PEER.unpack(here.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return f"uid {user}", process
