"""How a job's progress is shown: on a terminal, in a log, and to programs."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest

from llamarig.cli.waiting import Showing, told, what

JOB: dict[str, Any] = {"id": "7", "kind": "switch", "service": "chat", "state": "running", "phase": "", "phases": {}}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def screen(self) -> str:
        """What the line that lives shows now."""
        return self.getvalue().rpartition("\r")[2].removesuffix("\x1b[K")


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    return Clock()


def test_a_terminal_has_one_line_that_lives(clock: Clock) -> None:
    stream = Terminal()
    with Showing(stream=stream, clock=clock) as showing:
        showing.show(JOB | {"state": "queued"})
        assert stream.screen() == "switch to chat: queued"
        showing.show(JOB | {"phase": "stop", "text": "stopping code"})
        clock.seconds += 3
        showing.show(JOB | {"phase": "stop", "text": "stopping code"})
        assert stream.screen() == "switch to chat: stop 3 s: stopping code"
        showing.show(JOB | {"phase": "load", "text": "chat is loading"})
        assert stream.screen() == "switch to chat: load 0 s: chat is loading"
    assert stream.screen() == ""
    assert "\n" not in stream.getvalue()


def test_its_seconds_go_on_while_nothing_is_said(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamarig.cli.waiting._BEAT_SECONDS", 0.001)
    stream = Terminal()
    with Showing(stream=stream, clock=clock) as showing:
        showing.show(JOB | {"phase": "load"})
        clock.seconds += 7
        until = time.monotonic() + 20
        while stream.screen() != "switch to chat: load 7 s":
            assert time.monotonic() < until


def test_it_is_no_longer_than_the_terminal_and_tells_it_nothing(clock: Clock) -> None:
    stream = Terminal()
    with Showing(stream=stream, clock=clock) as showing:
        showing.show(JOB | {"phase": "load", "text": f"\x1b[31m{'long ' * 30}"})
        assert len(stream.screen()) == 59
        assert "\x1b" not in stream.screen()


def test_a_log_gets_a_line_for_each_phase_and_not_too_many_sentences(clock: Clock) -> None:
    stream = io.StringIO()
    with Showing(stream=stream, clock=clock) as showing:
        showing.show(JOB | {"phase": "stop", "text": "stopping code"})
        showing.show(JOB | {"phase": "stop", "text": "stopping code"})
        loading = JOB | {"phase": "load", "phases": {"stop": 1.25}}
        for percent in (1, 2, 3):
            showing.show(loading | {"text": f"loading, {percent} %"})
        clock.seconds += 6
        showing.show(loading | {"text": "loading, 50 %"})
        showing.show(JOB | {"phase": "load", "phases": {"stop": 1.25, "load": 12.3}, "text": "loading, 50 %"})
    assert stream.getvalue().splitlines() == [
        "  stopping code",
        "  stop 1.2 s",
        "  loading, 1 %",
        "  loading, 50 %",
        "  load 12.3 s",
    ]


def test_a_dumb_terminal_is_as_a_log(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Showing(stream=stream, clock=clock) as showing:
        showing.show(JOB | {"phase": "load", "text": "loading"})
    assert stream.getvalue() == "  loading\n"


def test_programs_are_told_nothing(clock: Clock) -> None:
    stream = Terminal()
    with Showing(quiet=True, stream=stream, clock=clock) as showing:
        showing.show(JOB | {"phase": "load", "text": "loading"})
    assert stream.getvalue() == ""


def test_a_terminal_that_is_gone_ends_nothing(clock: Clock) -> None:
    class Gone(Terminal):
        def write(self, _: str) -> int:
            raise OSError(5, "Input/output error")

    with Showing(stream=Gone(), clock=clock) as showing:
        showing.show(JOB | {"phase": "load"})


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (JOB, "switch to chat"),
        ({"kind": "stop", "service": "chat"}, "stop chat"),
        ({"kind": "stop", "service": None}, "stop"),
        ({"kind": "reconcile"}, "reconcile"),
    ],
)
def test_what_a_job_is_for(job: dict[str, Any], said: str) -> None:
    assert what(job) == said


def test_what_came_of_it() -> None:
    outcome = {"message": "chat serves", "phases": {"stop": 1.0, "load": 2.5}, "answer": " Hello "}
    assert told(outcome) == ["chat serves (3.5 s)", "  it answers: 'Hello'"]
    assert told({}) == ["done"]
