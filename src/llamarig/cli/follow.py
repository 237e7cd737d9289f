"""Following a service's log until Ctrl-C."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import click

from llamarig.runtime.systemd import journal_command


def follow_log(service: str, lines: int, show: Callable[[str], str]) -> None:
    """Print lines as they come; Ctrl-C is the way to leave, so it is no error."""
    command = journal_command(service, ["--lines", str(lines), "--follow"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        try:
            for line in process.stdout or ():
                click.echo(show(line.rstrip("\n")))
        except KeyboardInterrupt:
            process.terminate()
