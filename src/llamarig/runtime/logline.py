"""llama-server's ``--log-jsonl`` lines, made readable."""

from __future__ import annotations

import json
import re
from typing import Any, Final

# Compose clears the line before each of the container's, also where its output is no terminal.
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# What a hostile model name could tell a terminal.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_AROUND: Final = re.compile(
    r"Attaching to |Aborting on container exit| ?(Container|Network) |llama-\S+ exited with code|"
    r"llama-\S+\.service: |(Starting|Started|Stopping|Stopped) llama-"
)


def plain(line: str) -> str:
    """Return a line without terminal control sequences."""
    return _CONTROL.sub("", _ANSI.sub("", line))


def readable(line: str) -> str:
    """Return the message of one log line; what is no JSON (an abort, docker's words) stays as it is."""
    line = plain(line)
    if not line.startswith("{"):
        return line
    try:
        data: dict[str, Any] = json.loads(line)
    except ValueError:
        return line
    if data.get("type") == "log":
        text = plain(str(data.get("msg", ""))).rstrip()
        level = data.get("level", "info")
        return text if level == "info" else f"{level}: {text}"
    return line


def last_words(lines: list[str], count: int = 20) -> list[str]:
    """Return the last lines in which the engine says something to people.

    Words of compose and systemd are left out, and what the engine says for programs, as its memory at its end.
    """
    said = map(readable, lines)
    return [text for text in said if text.strip() and not text.startswith('{"type":') and not _AROUND.match(text)][
        -count:
    ]
