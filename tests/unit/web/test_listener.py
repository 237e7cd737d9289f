"""How is listened; tests of the API's server ask it from outside."""

from __future__ import annotations

import asyncio
import socket

import pytest
from starlette.types import Receive, Scope, Send

from llamarig.web import listener
from llamarig.web.listener import Listener, bound


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    del receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def test_small_parts_of_an_answer_are_sent_at_once() -> None:
    """Otherwise each answer on a connection that is kept takes 40 ms."""

    async def listen() -> None:
        ending = asyncio.Event()
        serving_here, place = Listener(app, ending), bound("127.0.0.1", 0)
        serving = asyncio.create_task(serving_here.serve([place]))
        reader, writer = await asyncio.open_connection("127.0.0.1", place.getsockname()[1])
        writer.write(b"GET /here HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        (connection,) = serving_here.server_state.connections
        there = connection.transport.get_extra_info("socket")
        assert there.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        ending.set()
        writer.close()
        await serving

    asyncio.run(asyncio.wait_for(listen(), 60))


def test_one_that_asks_for_much_at_once_and_reads_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_IDLE_SECONDS", 0.1)

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "path": "x" * (48 << 10)}, receive, send)

    async def listen() -> None:
        ending = asyncio.Event()
        serving_here, place = Listener(large, ending), bound("127.0.0.1", 0)
        serving = asyncio.create_task(serving_here.serve([place]))
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(place.getsockname())
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        while not serving_here.server_state.connections:  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.01)
        while serving_here.server_state.connections:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.01)
        client.close()
        ending.set()
        await serving

    asyncio.run(asyncio.wait_for(listen(), 60))


def test_a_port_that_is_taken_is_an_error() -> None:
    with bound("127.0.0.1", 0) as place, pytest.raises(OSError, match="in use"):
        bound("127.0.0.1", place.getsockname()[1])
