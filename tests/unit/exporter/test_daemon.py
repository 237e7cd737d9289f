from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from llamarig.config import paths
from llamarig.exporter.daemon import DaemonError, DaemonLink
from tests.support import below

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\na 1\n"

# What listens in a test, until its end.
OPEN: list[asyncio.Server] = []


class Played:
    """A daemon that gives each of ``answers`` once, and the last one from then on; None is never answered."""

    def __init__(self, root: Path, *answers: bytes | None) -> None:
        self.place = below(root, paths.READ_SOCKET)
        self.place.parent.mkdir(parents=True, exist_ok=True)
        self.answers = list(answers)
        self.asked: list[bytes] = []
        self.came = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()

    async def start(self) -> None:
        listening = await asyncio.start_unix_server(self._answer, self.place)
        OPEN.append(listening)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        self.came.set()
        await self.hold.wait()
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def all_of_it() -> None:
        await asyncio.wait_for(test(), 60)
        while OPEN:
            OPEN.pop().close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)

    asyncio.run(all_of_it())


def test_its_text_is_passed_on_as_it_is(tmp_path: Path) -> None:
    async def test() -> None:
        played = Played(tmp_path, OK)
        await played.start()
        link = DaemonLink(tmp_path)
        assert await link.metrics() == b"a 1\n"
        assert await link.answers(5)
        assert [line.split(b" HTTP")[0] for line in played.asked] == [b"GET /metrics", b"GET /healthz"]

    run(test)


def test_one_that_comes_back_is_waited_for(tmp_path: Path) -> None:
    async def test() -> None:
        asking = asyncio.create_task(DaemonLink(tmp_path, away=30).metrics())
        assert not (await asyncio.wait([asking], timeout=0.3))[0]
        # The one that was told to end cuts what is under way.
        await Played(tmp_path, b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\na", OK).start()
        assert await asking == b"a 1\n"

    run(test)


def test_many_who_ask_share_one_answer_and_each_new_question_is_asked_anew(tmp_path: Path) -> None:
    async def test() -> None:
        played = Played(tmp_path, OK)
        await played.start()
        played.hold.clear()
        link = DaemonLink(tmp_path)
        asking = [asyncio.create_task(link.metrics()) for _ in range(50)]
        await played.came.wait()
        asking[0].cancel()
        played.hold.set()
        assert set(await asyncio.gather(*asking[1:])) == {b"a 1\n"}
        assert len(played.asked) == 1
        await link.metrics()
        assert len(played.asked) == 2

    run(test)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "answered 503"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (9 << 20), "answers more than 8 MiB"),
        (None, "no answer within"),
        (b"nonsense", "is away: nonsense"),
    ],
)
def test_another_answer_is_an_error_that_says_which(tmp_path: Path, answer: bytes | None, said: str) -> None:
    async def test() -> None:
        await Played(tmp_path, answer).start()
        with pytest.raises(DaemonError, match=said):
            await DaemonLink(tmp_path, away=0.2, answer=0.5).metrics()

    run(test)


def test_whether_it_answers_at_all(tmp_path: Path) -> None:
    async def test() -> None:
        link = DaemonLink(tmp_path)
        assert not await link.answers(5)
        played = Played(tmp_path, None)
        await played.start()
        assert not await link.answers(0.1)

    run(test)


def test_what_was_answered_is_kept_by_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        await Played(tmp_path, OK, b"nonsense").start()
        link = DaemonLink(tmp_path, away=0.1)
        assert await link.metrics() == b"a 1\n"
        assert link._asked is None
        with pytest.raises(DaemonError):
            await link.metrics()
        assert link._asked is None

    run(test)


def test_whatever_is_said_instead_of_an_answer_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        def broken(*_: object) -> bytes:
            raise ValueError("what nobody foresaw")

        link = DaemonLink(tmp_path)
        monkeypatch.setattr(link, "_get", broken)
        assert not await link.answers(5), "or nobody would tell systemd any more that the exporter goes round"

    run(test)
