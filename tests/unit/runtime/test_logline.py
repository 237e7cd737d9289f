from __future__ import annotations

import json

import pytest

from llamarig.runtime.logline import last_words, readable


def log(**data: object) -> str:
    return json.dumps({"type": "log", **data})


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (log(level="info", msg="model loaded\n"), "model loaded"),
        (log(msg="no level"), "no level"),
        (log(level="error", msg="out of memory"), "error: out of memory"),
        (log(level="warn", msg="slow"), "warn: slow"),
        (log(level="info"), ""),
        ("/usr/bin/llama-server: error: invalid argument", "/usr/bin/llama-server: error: invalid argument"),
        ("", ""),
        ('{"type": "log", "msg": "cut', '{"type": "log", "msg": "cut'),
        ('{"type": "metric", "value": 1}', '{"type": "metric", "value": 1}'),
        ("{}", "{}"),
    ],
)
def test_lines_become_readable(line: str, text: str) -> None:
    assert readable(line) == text


def test_last_words_leave_out_silence_and_keep_the_end() -> None:
    lines = [log(msg="one"), "", log(msg=" \n"), log(msg="two"), "three"]
    assert last_words(lines, 2) == ["two", "three"]
    assert last_words(lines) == ["one", "two", "three"]


@pytest.mark.parametrize(
    "line",
    [
        "Attaching to llama-chat",
        " Container llama-chat  Created",
        "Aborting on container exit...",
        "llama-chat exited with code 1",
        "llama-chat.service: Main process exited, code=exited, status=1/FAILURE",
        "Started llama-chat.service - llama.cpp service chat (small).",
    ],
)
def test_what_compose_and_systemd_say_is_not_among_the_engines_last_words(line: str) -> None:
    assert last_words(["out of memory", line]) == ["out of memory"]


def test_colours_of_compose_are_taken_off_before_a_line_is_read() -> None:
    assert readable("\x1b[2K" + log(level="info", msg="loaded")) == "loaded"
    assert readable("\x1b[1;31mplain\x1b[0m words") == "plain words"


def test_last_words_are_for_people() -> None:
    lines = ['{"type":"log","level":"error","msg":"out of memory"}', '{"type":"fit_memory_breakdown","data":{}}']
    assert last_words(lines) == ["error: out of memory"]
