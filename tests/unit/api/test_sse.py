from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from starlette.types import Message, Scope

from llamarig.api.sse import Stream, event

SCOPE: Scope = {"type": "http", "method": "GET", "headers": []}


async def numbers(count: int) -> AsyncGenerator[bytes, None]:
    for number in range(count):
        yield event("number", number, number)


class Reader:
    """Who is at the other end; ``reads`` is cleared while it does not."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.gone = asyncio.Event()
        self._came = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        self.sent.append(message)
        self._came.set()

    async def has(self, words: str, count: int = 1) -> None:
        """Wait until so much was read."""
        while self.text.count(words) < count:
            self._came.clear()
            await self._came.wait()

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()


def run(work: Callable[[], Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work(), 20))


def test_an_event_is_written_as_browsers_read_it() -> None:
    written = event("job", {"text": "über\nzwei Zeilen", "half": "\ud800"}, 7)
    assert written.startswith(b"id: 7\nevent: job\ndata: {")
    assert written.endswith(b"}\n\n")
    assert written.count(b"\n") == 4, "a line break within is an escape"
    assert json.loads(written.split(b"data: ")[1]) == {"text": "über\nzwei Zeilen", "half": "\ud800"}
    assert event("status", {}).startswith(b"event: status\n")


def test_a_stream_ends_with_its_source() -> None:
    async def work() -> None:
        reader, closed = Reader(), []
        stream = Stream(lambda: numbers(3), asyncio.Event(), lambda: closed.append(True))
        await stream(SCOPE, reader.receive, reader.send)
        assert reader.text == "".join(event("number", n, n).decode() for n in range(3))
        assert reader.sent[0]["headers"][0] == (b"content-type", b"text/event-stream; charset=utf-8")
        assert not reader.sent[-1].get("more_body", False)
        assert closed == [True]

    run(work)


def endless(state: dict[str, bool], first: int = 1) -> Callable[[], AsyncGenerator[bytes, None]]:
    async def source() -> AsyncGenerator[bytes, None]:
        try:
            for number in range(first):
                yield event("number", number)
            await asyncio.Event().wait()
        finally:
            state["closed"] = True

    return source


def test_a_reader_that_leaves_ends_it() -> None:
    async def work() -> None:
        reader, state = Reader(), dict[str, bool]()
        task = asyncio.create_task(Stream(endless(state), asyncio.Event())(SCOPE, reader.receive, reader.send))
        await reader.has("event: number")
        reader.gone.set()
        await task
        assert state == {"closed": True}

    run(work)


def test_the_end_of_the_daemon_ends_it() -> None:
    async def work() -> None:
        reader, state, ending = Reader(), dict[str, bool](), asyncio.Event()
        task = asyncio.create_task(Stream(endless(state), ending)(SCOPE, reader.receive, reader.send))
        await reader.has("event: number")
        ending.set()
        await task
        assert state == {"closed": True}
        assert reader.sent[-1] == {"type": "http.response.body", "body": b""}

    run(work)


def test_a_reader_that_reads_nothing_is_let_go() -> None:
    async def work() -> None:
        reader, state = Reader(), dict[str, bool]()
        stream = Stream(endless(state, first=10**6), asyncio.Event(), patience=0.05)
        task = asyncio.create_task(stream(SCOPE, reader.receive, reader.send))
        await reader.has("event: number")
        reader.reads.clear()
        await task
        assert state == {"closed": True}
        assert reader.sent[-1]["type"] != "http.response.body" or reader.sent[-1]["more_body"], "it is cut, not ended"

    run(work)


def test_a_reader_of_a_quiet_stream_is_told_that_it_is_still_connected() -> None:
    async def work() -> None:
        reader, state = Reader(), dict[str, bool]()
        stream = Stream(endless(state, first=0), asyncio.Event(), beat=0.01)
        task = asyncio.create_task(stream(SCOPE, reader.receive, reader.send))
        await reader.has(": still here\n\n", 3)
        reader.gone.set()
        await task

    run(work)


def test_a_beat_takes_no_event_away() -> None:
    async def work() -> None:
        gate = asyncio.Event()

        async def late() -> AsyncGenerator[bytes, None]:
            await gate.wait()
            yield event("late", 1)

        reader = Reader()
        task = asyncio.create_task(Stream(late, asyncio.Event(), beat=0.001)(SCOPE, reader.receive, reader.send))
        await reader.has("still here", 3)
        gate.set()
        await task
        assert "event: late" in reader.text

    run(work)


def test_an_error_of_the_source_is_not_hidden() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield event("number", 1)
        raise KeyError("what")

    async def work() -> None:
        reader = Reader()
        with pytest.raises(KeyError):
            await Stream(broken, asyncio.Event())(SCOPE, reader.receive, reader.send)

    run(work)


def test_one_who_asks_for_the_head_alone_gets_it_and_the_source_is_closed() -> None:
    async def work() -> None:
        reader, closed = Reader(), []
        stream = Stream(lambda: numbers(3), asyncio.Event(), lambda: closed.append(True))
        await stream({**SCOPE, "method": "HEAD"}, reader.receive, reader.send)
        assert reader.text == ""
        assert closed == [True]

    run(work)
