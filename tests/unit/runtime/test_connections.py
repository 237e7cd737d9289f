"""Answers are bounded, whatever the other end says of their length."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from llamarig.runtime.connections import UnixConnection, read_whole

LARGEST = 1 << 16
SECONDS = 30


@contextmanager
def answering(place: Path, head: bytes, *, endless: bool) -> Iterator[UnixConnection]:
    """A server that answers one request so, and the connection to it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()

        def answer() -> None:
            client, _ = listener.accept()
            with client, suppress(OSError):
                client.recv(1 << 16)
                client.sendall(head)
                while endless:
                    client.sendall(b"x" * LARGEST)

        thread = threading.Thread(target=answer)
        thread.start()
        with closing(UnixConnection(str(place), SECONDS)) as connection:
            yield connection
        thread.join()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_no_more_is_read_than_may_be(tmp_path: Path, head: bytes) -> None:
    with answering(tmp_path / "it", head, endless=True) as connection:
        connection.request("GET", "/")
        with connection.getresponse() as response, pytest.raises(http.client.IncompleteRead) as caught:
            read_whole(response, LARGEST)
    assert len(caught.value.partial) <= 2 * LARGEST


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\n\r\nabc",
    ],
)
def test_a_whole_answer_is_returned(tmp_path: Path, head: bytes) -> None:
    with answering(tmp_path / "it", head, endless=False) as connection:
        connection.request("GET", "/")
        with connection.getresponse() as response:
            assert read_whole(response, LARGEST) == b"abc"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab",
    ],
)
def test_half_an_answer_is_none(tmp_path: Path, head: bytes) -> None:
    with answering(tmp_path / "it", head, endless=False) as connection:
        connection.request("GET", "/")
        with connection.getresponse() as response, pytest.raises(http.client.IncompleteRead):
            read_whole(response, LARGEST)
