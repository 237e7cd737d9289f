"""The verb that shows what an engine says: logs. From the daemon, so that everybody on the host may read it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from llamarig.cli.output import fail, finish
from llamarig.cli.verb import JSON, complete_service, host_root
from llamarig.errors import DaemonGoneError, LlamarigError

if TYPE_CHECKING:
    from llamarig.runtime.management import Management

Show = Callable[[str], str]


@click.command(short_help="Show what an engine logs; -f follows.")
@click.argument("service", required=False, shell_complete=complete_service)
@click.option("-n", "--lines", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows; Ctrl-C ends it.")
@click.option("--raw", is_flag=True, help="The engine's JSON lines as they are.")
@JSON
def logs(service: str | None, *, lines: int, follow: bool, raw: bool, as_json: bool) -> None:
    """Show the log of SERVICE, by default of the one that was switched to last.

    \b
    Examples:
      llamarig logs -f
      llamarig logs chat -n 200 --raw
    """  # noqa: D301  click's mark
    from llamarig.runtime.logline import plain, readable  # noqa: PLC0415
    from llamarig.runtime.management import Management  # noqa: PLC0415

    show = plain if raw else readable
    try:
        client = Management.here(host_root())
        name = service or _active(client)
        if follow and not as_json:
            _follow(client, name, lines, show)
            return
        found = [show(line) for line in _read(client, name, lines)]
    except LlamarigError as error:
        fail("logs", error, as_json=as_json)
    finish("logs", {"service": name, "lines": found}, found, as_json=as_json)


def _active(client: Management) -> str:
    """Return the service that was switched to last.

    Raises:
        LlamarigError: none is active.

    """
    from llamarig.daemon.state import StateStore  # noqa: PLC0415

    try:
        name = client.get("/status").get("model")
    except DaemonGoneError:
        name = StateStore(host_root()).read().first
    if not name:
        raise LlamarigError("no service is active", "name one: llamarig logs <service>")
    return str(name)


def _read(client: Management, service: str, lines: int) -> list[str]:
    """Return the last lines, from the journal itself where the daemon does not run."""
    from llamarig.runtime.systemd import journal  # noqa: PLC0415

    try:
        return list(client.get(f"/logs/{service}", lines=lines).get("lines") or [])
    except DaemonGoneError:
        _look_alone(service)
        return journal(service, ["--lines", str(lines)])


def _follow(client: Management, service: str, lines: int, show: Show) -> None:
    """Print lines as they come; Ctrl-C is the way to leave, so it is no error."""
    from llamarig.cli.follow import follow_log  # noqa: PLC0415

    said = 0
    with contextlib.suppress(KeyboardInterrupt):
        try:
            for line in client.log(service, lines):
                said += 1
                click.echo(show(line))
        except DaemonGoneError:
            _look_alone(service)
            # What was shown already is not shown again.
            follow_log(service, 0 if said else lines, show)


def _look_alone(service: str) -> None:
    """See that there is such a service, and tell a user who may not read the journal how to.

    Raises:
        NotFoundError: there is none.

    """
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415

    SpecStore(host_root()).get(service)
    if os.geteuid() != 0:
        hint = f"llamarigd does not run, and this user may see no log lines: sudo llamarig logs {service}"
        click.echo(hint, err=True)
