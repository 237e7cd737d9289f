from __future__ import annotations

import asyncio
import json
import socket
from contextlib import ExitStack, closing
from typing import Any

import pytest
from starlette.types import Message, Scope

from llamarig.config import paths
from llamarig.web import post
from llamarig.web.answers import Answer
from llamarig.web.post import PIECE_BYTES, Post
from tests.support import below
from tests.unit.api.test_sse import Reader
from tests.unit.api.world import world
from tests.unit.daemon.acting import SECONDS

SCOPE: Scope = {"type": "http", "method": "GET", "headers": []}
LONG = {"text": "x" * (3 * PIECE_BYTES)}


def told(reader: Reader) -> tuple[int, Any]:
    """Return the status and the whole content of what a reader got."""
    return reader.sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in reader.sent))


@pytest.mark.parametrize("content", [{}, LONG], ids=["short", "long"])
def test_an_answer_comes_whole_and_no_piece_of_it_is_large(content: dict[str, str]) -> None:
    reader = Reader()
    asyncio.run(Post().send(Answer(content), SCOPE, reader.receive, reader.send))
    assert told(reader) == (200, content)
    assert all(len(message.get("body", b"")) <= PIECE_BYTES for message in reader.sent)
    assert [message.get("more_body", False) for message in reader.sent[1:]].count(False) == 1


def test_long_answers_that_nobody_reads_are_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """One who does not read keeps another from a long answer, not from a short one, and not for long."""
    monkeypatch.setattr(post, "MOST_BYTES", 4 * PIECE_BYTES)
    monkeypatch.setattr(post, "PIECE_SECONDS", 0.05)

    async def several() -> None:
        sends, slow, other = Post(), Reader(), Reader()

        async def read_nothing(message: Message) -> None:
            if message["type"] == "http.response.body":
                slow.reads.clear()
            await slow.send(message)

        first = asyncio.create_task(sends.send(Answer(LONG), SCOPE, slow.receive, read_nothing))
        await asyncio.sleep(0)
        await sends.send(Answer(LONG), SCOPE, other.receive, other.send)
        assert told(other)[0] == 503
        short, later = Reader(), Reader()
        await sends.send(Answer({}), SCOPE, short.receive, short.send)
        assert told(short) == (200, {})
        await first
        assert [message["type"] for message in slow.sent] == ["http.response.start"], "it is let go"
        await sends.send(Answer(LONG), SCOPE, later.receive, later.send)
        assert told(later) == (200, LONG)

    asyncio.run(several())


def test_one_that_is_longer_than_all_may_be_is_sent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "MOST_BYTES", 1)
    reader = Reader()
    asyncio.run(Post().send(Answer(LONG), SCOPE, reader.receive, reader.send))
    assert told(reader) == (200, LONG)


def test_who_asks_for_much_and_reads_nothing_takes_no_memory_and_nothing_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(post, "MOST_BYTES", 4 << 20)
    with world() as api, ExitStack() as stack:
        api.board.events = [{"time": 1.0, "kind": "switch", "outcome": "ok", "reason": "x" * 400}] * 5000
        heads = []
        for _ in range(6):
            client = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
            client.settimeout(SECONDS)
            client.connect(str(below(api.root, paths.READ_SOCKET)))
            client.sendall(b"GET /history?lines=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            heads.append(client.recv(12))
        assert heads.count(b"HTTP/1.1 200") == 1
        assert heads.count(b"HTTP/1.1 503") == 5
        assert api.ask("GET", "/status", where="read").status == 200
        assert len(api.ask("GET", "/history?lines=10000").data["events"]) == 5000
