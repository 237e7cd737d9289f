"""What every verb stands on: its options, the root of the host's files, who may call it, and what it says meanwhile.

Importing it costs nothing, so that a command that is typed all day starts at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import click

from llamarig.cli.output import fail
from llamarig.errors import NotAllowedError

JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print a versioned JSON envelope.")
CHECK: Final = click.option("--check", "dry", is_flag=True, help="Say what would happen; change nothing.")
INVENTORY: Final = click.option(
    "-i", "--inventory", type=click.Path(exists=True, path_type=Path), help="Ask an inventory, on the control node."
)

Say = Callable[[str], None]


def host_root() -> Path:
    """Return where the host's files are."""
    return Path(os.environ.get("LLAMARIG_ROOT", "/"))


def typed() -> str:
    """Return what was typed after the command's name."""
    return " ".join(sys.argv[1:])


def needs_root(command: str, *, as_json: bool) -> None:
    """Leave where another than root calls a verb that is root's."""
    if os.geteuid() != 0:
        fail(command, NotAllowedError("only root may do this", f"sudo llamarig {typed()}"), as_json=as_json)


def stop_like_ctrl_c() -> None:
    """Let a closed terminal or a kill end a command as Ctrl-C does, and not half-way."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def sayer(*, as_json: bool) -> Say:
    """Return what says a sentence to people while something takes its time; programs are told nothing."""

    def say(text: str) -> None:
        # The terminal may be gone; that must not end what is under way.
        with contextlib.suppress(OSError):
            if not as_json:
                click.echo(f"  {text}", err=True)

    return say


def complete_service(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the services of this host whose names begin so, for the shell."""
    return [name for name in services() if name.startswith(incomplete)]


def services() -> list[str]:
    """Return the names of the services of this host."""
    from llamarig.config import paths  # noqa: PLC0415

    return sorted(path.stem for path in (host_root() / paths.SPECS.lstrip("/")).glob("*.json"))
