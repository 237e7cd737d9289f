from __future__ import annotations

import contextlib
import io

import pytest

from llamarig.cli.progress import Reading

GIB = 1 << 30


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands at the one number in the list."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_terminal_is_told_in_place_and_cleared(clock: list[float]) -> None:
    stream = Terminal()
    with Reading(4 * GIB, stream=stream) as reading:
        reading.more(GIB)
        assert stream.getvalue() == "", "not yet: a short reading says nothing"
        clock[0] = 1
        reading.more(GIB)
    assert stream.getvalue() == "\rread for sha256: 2.0 of 4.0 GiB, 50 %\x1b[K\r\x1b[K"


def test_a_log_is_told_a_line_now_and_then(clock: list[float]) -> None:
    stream = io.StringIO()
    with Reading(4 * GIB, stream=stream) as reading:
        for clock[0] in (5, 11, 12, 22):
            reading.more(GIB)
    assert stream.getvalue() == "read for sha256: 2.0 of 4.0 GiB, 50 %\nread for sha256: 4.0 of 4.0 GiB, 100 %\n"


def test_an_interrupted_reading_leaves_no_line_behind(clock: list[float]) -> None:
    stream = Terminal()
    reading = Reading(4 * GIB, stream=stream)
    with contextlib.suppress(KeyboardInterrupt), reading:
        clock[0] = 1
        reading.more(GIB)
        raise KeyboardInterrupt
    assert stream.getvalue().endswith("\r\x1b[K")


def test_a_quiet_reading_and_one_of_nothing_say_nothing(clock: list[float]) -> None:
    for total, quiet in ((GIB, True), (0, False)):
        stream = Terminal()
        with Reading(total, quiet=quiet, stream=stream) as reading:
            clock[0] += 60
            reading.more(1)
        assert stream.getvalue() == ""
