"""How a verb ends that held one engine against another: a result, and where it is worse, an error beside it."""

from __future__ import annotations

import sys
from typing import Any

import click

from llamarig.cli.output import envelope, finish
from llamarig.errors import ExitCode, LlamarigError

# How many per cent slower an engine may be.
PERCENT = click.FloatRange(min=0, max=100)


class WorseError(LlamarigError):
    """An engine is worse than the one that it was held against; the message has every check that failed."""

    exit_code = ExitCode.UNHEALTHY


def conclude(command: str, data: dict[str, Any], lines: list[str], worse: WorseError | None, *, as_json: bool) -> None:
    """Print a result, for programs with what is worse beside it, and leave with the code that it comes to."""
    if worse is None:
        finish(command, data, lines, as_json=as_json)
        return
    if as_json:
        click.echo(envelope(command, data, worse))
        sys.exit(int(worse.exit_code))
    finish(command, data, lines, as_json=False, code=worse.exit_code)
