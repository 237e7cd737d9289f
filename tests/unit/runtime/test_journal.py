from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from llamarig.errors import NotFoundError
from llamarig.runtime import journal as module
from llamarig.runtime.journal import MOST_BYTES, Following, Journal, _last

COUNTER = "import sys\nfor n in range(3): print('line', n, flush=True)\nsys.stdin.read()\nimport time; time.sleep(60)"


@pytest.fixture
def logs() -> Journal:
    return Journal(lambda: ["chat"])


def printing(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_the_last_lines_are_those_of_the_unit(logs: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def command(service: str, arguments: list[str]) -> list[str]:
        asked.append((service, arguments))
        return printing("print('newest'); print(); print('a\\x85b'); print('oldest')")

    monkeypatch.setattr(module, "journal_command", command)
    assert logs.lines("chat", 7) == ["oldest", "a\x85b", "", "newest"]
    assert asked == [("chat", ["--reverse", "--lines", "7"])]


@pytest.mark.parametrize("program", ["", "import sys; sys.exit('no journal')"])
def test_a_journal_without_lines_has_none(program: str) -> None:
    assert _last(printing(program)) == []


def test_of_a_log_without_an_end_only_so_much_is_read() -> None:
    endless = "import itertools\nfor n in itertools.count(): print(n, 'x' * 1000)"
    lines = _last(printing(endless), most=2500)
    assert [line.split()[0] for line in lines] == ["1", "0"], "the newest, and no piece of one"
    assert _last(printing(endless), most=500) == []
    assert sum(map(len, _last(printing(endless)))) <= MOST_BYTES


def test_a_journal_that_takes_too_long_is_not_waited_for() -> None:
    assert _last(printing("import time; print('newest', flush=True); time.sleep(600)"), seconds=0.3) == []


def test_only_logs_of_services_can_be_read(logs: Journal) -> None:
    for ask in (logs.lines, logs.follow):
        for service in ("sshd", "../chat", "", "chat "):
            with pytest.raises(NotFoundError):
                ask(service, 5)


def test_lines_come_as_they_are_printed_until_nobody_reads_them(logs: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "journal_command", lambda *_: [sys.executable, "-c", COUNTER])
    following = logs.follow("chat", 5)
    text = b""
    while text.count(b"\n") < 3:
        text += os.read(following.fileno(), 100)
    assert text == b"line 0\nline 1\nline 2\n"
    process = following._process
    following.close()
    assert process.returncode is not None


def test_a_program_that_is_not_there_leaves_nothing_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        Following(["/nowhere/journalctl"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
