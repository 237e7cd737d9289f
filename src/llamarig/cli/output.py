"""How commands speak: an envelope for programs, plain tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from llamarig.errors import ConfigError, ExitCode, LlamarigError, SwitchError

ENVELOPE: Final = 1


def envelope(command: str, data: dict[str, Any] | None, error: LlamarigError | None = None, **more: Any) -> str:
    """Return the JSON envelope of a command: ``{version, command, data, error}``; ``more`` goes into the error."""
    body: dict[str, Any] = {"version": ENVELOPE, "command": command, "data": data, "error": None}
    if error is not None:
        body["error"] = {
            "code": type(error).__name__.removesuffix("Error").lower(),
            "message": error.message,
            "remedy": error.remedy,
        }
        if isinstance(error, SwitchError):
            body["error"] |= {"serving": error.serving, "log_lines": error.log_lines}
        if isinstance(error, ConfigError):
            body["error"]["problems"] = [str(problem) for problem in error.problems]
        body["error"] |= more
    return json.dumps(body, indent=2)


def fail(command: str, error: LlamarigError, *, as_json: bool, **more: Any) -> NoReturn:
    """Say what went wrong and leave with its exit code; programs get ``more`` in the error."""
    if as_json:
        click.echo(envelope(command, None, error, **more))
    else:
        say(command, error)
    sys.exit(int(error.exit_code))


def say(command: str, error: LlamarigError) -> None:
    """Say to people what went wrong, the last words of a service that failed, and what helps."""
    click.secho(f"llamarig {command}: {error.message}", err=True, fg="red")
    if isinstance(error, SwitchError) and error.log_lines:
        click.echo("last lines of its log:", err=True)
        for line in error.log_lines:
            click.echo(f"    {line}", err=True)
    if error.remedy:
        click.echo(f"    remedy: {error.remedy}", err=True)


def finish(
    command: str, data: dict[str, Any], lines: list[str], *, as_json: bool, code: ExitCode = ExitCode.OK
) -> None:
    """Print a result and leave with ``code``."""
    if as_json:
        click.echo(envelope(command, data))
    else:
        for line in lines:
            click.echo(line)
    if code != ExitCode.OK:
        sys.exit(int(code))


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lay out a small table; costs nothing to import, which a command that is typed all day needs."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]
    return [click.style(lines[0], bold=True), *lines[1:]]
