"""Everything llamarig refuses, and how it is said.

LlamarigError
├── ConfigError      the intent is wrong: carries every Problem found, not just the first
├── NotFoundError    a service that this host does not run
├── NotAllowedError  needs root
├── BusyError        another switch is running
├── DaemonGoneError  llamarigd does not answer
├── GgufError        a file is no GGUF model, is damaged, or cannot be had (gguf/error.py)
│   └── MissingFileError  there is nothing of that name
└── SwitchError      a switch failed: says what serves now
    └── CancelledError  by whoever asked for it
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What a llamarig command returns; documented in docs/reference/cli.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    BUSY = 5
    UNHEALTHY = 6
    WARNINGS = 7
    DAEMON_GONE = 8
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the intent, in the words of the person who wrote it."""

    host: str
    key: str
    message: str
    remedy: str
    service: str | None = None

    def __str__(self) -> str:
        where = f"{self.host}, service {self.service!r}" if self.service else self.host
        return f"{where}: {self.key}: {self.message}\n    remedy: {self.remedy}"


class LlamarigError(Exception):
    """Base of every error that is the user's to mend; shown without a traceback."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class ConfigError(LlamarigError):
    """The intent cannot become a plan."""

    exit_code = ExitCode.USAGE

    def __init__(self, problems: list[Problem]) -> None:
        count = len(problems)
        head = "1 problem" if count == 1 else f"{count} problems"
        super().__init__("\n".join([f"{head} in the inventory, nothing was touched:", *map(str, problems)]))
        self.problems = problems


class NotFoundError(LlamarigError):
    """A name that nothing on this host answers to."""

    exit_code = ExitCode.NOT_FOUND


class NotAllowedError(LlamarigError):
    """The user may not do this."""

    exit_code = ExitCode.NOT_ALLOWED


class BusyError(LlamarigError):
    """Another switch holds the host."""

    exit_code = ExitCode.BUSY


class DaemonGoneError(LlamarigError):
    """The daemon does not answer."""

    exit_code = ExitCode.DAEMON_GONE


class SwitchError(LlamarigError):
    """A switch failed; ``serving`` is the service that answers now, None if none does."""

    def __init__(self, message: str, remedy: str, serving: str | None, log_lines: list[str]) -> None:
        super().__init__(message, remedy)
        self.serving = serving
        self.log_lines = log_lines


class CancelledError(SwitchError):
    """A switch was cancelled, and went back."""

    exit_code = ExitCode.INTERRUPTED
