"""The feed with its threads; every wait ends with what it waits for, and none is a time."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from llamarig.dashboard.feed import Answered, Feed, LogBegun, Logged, Lost, Message, Pauses, Refused, Said, Unsaid, Up
from llamarig.errors import LlamarigError
from tests.unit.dashboard.fakes import Daemon

PATIENCE = 30.0


@dataclass
class Happened:
    name: str
    data: Any


class Line:
    """A feed under test: waits for what it is asked to wait for."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.feed = Feed(daemon.connect, Pauses(first=0.01, longest=0.02, poll=0.01))
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._seen: list[Message] = []

    def start(self) -> None:
        self.feed.start(lambda: self._woken.put(None))

    def until(self, wanted: Callable[[Message], bool]) -> Message:
        """Return the first message that is wanted; what came before it is forgotten."""
        while True:
            while self._seen:
                message = self._seen.pop(0)
                if wanted(message):
                    return message
            self._woken.get(timeout=PATIENCE)
            self._seen += self.feed.drain()


@pytest.fixture
def feed() -> Iterator[Line]:
    one = Line(Daemon())
    yield one
    one.daemon.away = None
    one.feed.stop()
    one.daemon.held.set()
    one.daemon.happened.put(None)
    one.daemon.lines.put(None)


def test_the_status_comes_first_and_then_what_happens(feed: Line) -> None:
    feed.start()
    assert feed.until(lambda message: isinstance(message, Said)).kind == "status"  # type: ignore[union-attr]
    assert feed.until(lambda message: isinstance(message, Up)) == Up("")
    feed.daemon.happened.put(Happened("job", {"id": "1"}))
    assert feed.until(lambda message: isinstance(message, Said)) == Said("job", {"id": "1"})


def test_a_lost_daemon_is_named_and_found_again(feed: Line) -> None:
    feed.start()
    feed.until(lambda message: isinstance(message, Up))
    feed.daemon.away = LlamarigError("it does not run")
    feed.daemon.happened.put(None)
    assert feed.until(lambda message: isinstance(message, Lost)) == Lost("llamarigd ended the connection")
    assert feed.until(lambda message: isinstance(message, Lost)) == Lost("it does not run")
    feed.daemon.away = ValueError("no JSON")
    assert feed.until(lambda message: message == Lost("no JSON"))
    feed.daemon.away = KeyError()
    assert feed.until(lambda message: message == Lost("KeyError"))
    feed.daemon.away = None
    assert feed.until(lambda message: isinstance(message, Up))


def test_cards_and_system_are_asked_only_while_they_are_shown(feed: Line) -> None:
    feed.start()
    feed.until(lambda message: isinstance(message, Up))
    feed.feed.look("gpus")
    feed.until(lambda message: isinstance(message, Said) and message.kind == "gpus")
    feed.until(lambda message: isinstance(message, Said) and message.kind == "gpus")
    feed.feed.look("system")
    feed.until(lambda message: isinstance(message, Said) and message.kind == "system")
    asked = set()
    while not feed.daemon.asked.empty():
        asked.add(feed.daemon.asked.get())
    assert asked == {"/status", "/gpus", "/system"}
    feed.feed.look()


def test_one_answer_that_fails_is_no_loss(feed: Line) -> None:
    feed.start()
    feed.until(lambda message: isinstance(message, Up))
    feed.daemon.away = LlamarigError("no cards today")
    feed.feed.look("gpus")
    assert feed.until(lambda message: isinstance(message, Unsaid)) == Unsaid("gpus", "no cards today")


def test_a_daemon_that_hangs_holds_up_nobody(feed: Line) -> None:
    feed.daemon.held.clear()
    feed.start()
    number = feed.feed.ask(lambda client: client.get("/gpus"))
    feed.feed.follow("chat")
    feed.feed.look("gpus", "system")
    assert not [message for message in feed.feed.drain() if isinstance(message, Up | Answered)]
    feed.daemon.held.set()
    feed.until(lambda message: isinstance(message, Up | Answered | Refused))
    assert number == 1


def test_a_log_is_followed_again_after_it_broke(feed: Line) -> None:
    feed.start()
    feed.until(lambda message: isinstance(message, Up))
    feed.feed.follow("chat")
    feed.until(lambda message: message == LogBegun("chat"))
    assert feed.until(lambda message: isinstance(message, Logged)) == Logged("chat", "first of chat")
    feed.daemon.lines.put("more")
    assert feed.until(lambda message: isinstance(message, Logged)) == Logged("chat", "more")
    feed.daemon.lines.put(LlamarigError("the journal was rotated"))
    assert feed.until(lambda message: isinstance(message, Unsaid)) == Unsaid("log", "the journal was rotated")
    feed.until(lambda message: message == LogBegun("chat"))


def test_lines_of_the_service_before_are_dropped(feed: Line) -> None:
    feed.start()
    feed.until(lambda message: isinstance(message, Up))
    feed.feed.follow("chat")
    feed.until(lambda message: isinstance(message, Logged))
    feed.feed.follow("code")
    assert feed.until(lambda message: isinstance(message, Logged)) == Logged("code", "first of code")
    # Both followers wait for a line now; whoever gets one, only the one that is followed is heard.
    for text in ("one", "two", "three"):
        feed.daemon.lines.put(text)
    said = feed.until(lambda message: isinstance(message, Logged))
    assert isinstance(said, Logged)
    assert said.service == "code"


def test_a_question_is_answered_or_refused_with_its_number(feed: Line) -> None:
    feed.daemon.away = LlamarigError("it does not run")
    feed.start()
    feed.until(lambda message: isinstance(message, Lost))
    feed.feed.ask(lambda client: client.get("/gpus"))
    assert feed.until(lambda message: isinstance(message, Refused)) == Refused(1, "the daemon has not answered yet", "")
    feed.daemon.away = None
    feed.until(lambda message: isinstance(message, Up))
    number = feed.feed.ask(lambda client: client.get("/gpus"))
    answer = feed.until(lambda message: isinstance(message, Answered))
    assert isinstance(answer, Answered)
    assert answer.number == number
    feed.feed.ask(lambda client: client.submit("/switch", {}))
    refused = feed.until(lambda message: isinstance(message, Refused))
    assert isinstance(refused, Refused)
    assert (refused.message, refused.remedy) == ("no /switch", "ask for something else")
    feed.feed.ask(lambda client: client.delete("/jobs/1"))
    refused = feed.until(lambda message: isinstance(message, Refused))
    assert isinstance(refused, Refused)
    assert (refused.message, refused.remedy) == ("/jobs/1", "")


def test_tries_come_less_often_up_to_a_limit() -> None:
    tries = Pauses(first=1.0, longest=3.0).tries()
    assert [next(tries) for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]
