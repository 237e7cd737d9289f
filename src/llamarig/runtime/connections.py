"""HTTP as a client, with a bound for the whole answer; over TCP, and over UNIX sockets."""

from __future__ import annotations

import http.client
import math
import socket
import time
from typing import Any


class _Bounded(socket.socket):
    """A socket that is not read from any more when its time is over, however little came at a time."""

    until = math.inf

    def recv_into(self, *arguments: Any, **more: Any) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        if left < math.inf:
            self.settimeout(left)
        return super().recv_into(*arguments, **more)


class BoundedConnection(http.client.HTTPConnection):
    """HTTP whose whole answer must come within ``timeout`` seconds."""

    def connect(self) -> None:
        """Connect; the time runs from now on."""
        super().connect()
        timeout = self.sock.gettimeout()
        self._bound(_Bounded(fileno=self.sock.detach()), timeout)

    def _bound(self, bounded: _Bounded, timeout: float | None) -> None:
        bounded.settimeout(timeout)
        if timeout is not None:
            bounded.until = time.monotonic() + timeout
        self.sock = bounded


class UnixConnection(BoundedConnection):
    """The same over a UNIX socket, which is a file at ``path``."""

    def __init__(self, path: str, timeout: float | None = None) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket; the time runs from now on."""
        self._bound(_Bounded(socket.AF_UNIX), self.timeout)
        self.sock.connect(self.path)


def read_whole(response: http.client.HTTPResponse, largest: int) -> bytes:
    """Return the body of an answer.

    Raises:
        http.client.IncompleteRead: it ended early, or it has more than ``largest`` bytes.
        OSError: it did not come in time.

    """
    body = _of_chunks(response, largest) if response.chunked else response.read(largest)
    # Of an answer in chunks, or to the end of the connection, nobody knows the length before its end.
    if len(body) > largest or response.length or (len(body) == largest and response.read(1)):
        raise http.client.IncompleteRead(body, response.length)
    return body


def _of_chunks(response: http.client.HTTPResponse, largest: int) -> bytes:
    """Return the body of an answer in chunks, or a little more of it than may be.

    Asked for a number of bytes, http.client takes a chunk whose length is said to be less than none for all that comes.
    """
    body = bytearray()
    while len(body) <= largest and (piece := response.read1(largest)):
        body += piece
    return bytes(body)
