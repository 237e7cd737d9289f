"""The verb that opens the dashboard: of this host, or of a whole fleet."""

from __future__ import annotations

from pathlib import Path

import click

from llamarig.cli.output import fail
from llamarig.cli.verb import INVENTORY, host_root
from llamarig.errors import LlamarigError


@click.command(short_help="Watch a host, or a fleet, in the terminal, and switch there.")
@click.option("--fleet", is_flag=True, help="All hosts of an inventory.")
@INVENTORY
def dashboard(*, fleet: bool, inventory: Path | None) -> None:
    """Watch this host and switch on it, in the terminal; q leaves, and what serves goes on.

    --fleet is for the control node: hosts are reached as Ansible reaches them, by SSH, and need no key. One host
    elsewhere is shown where LLAMARIG_URL names its daemon, as http://gpu01.example.com:8081, and LLAMARIG_API_KEY has
    a key for it.

    \b
    Examples:
      llamarig dashboard
      llamarig dashboard --fleet -i inventories/mysite
    """  # noqa: D301  click's mark
    if fleet != (inventory is not None):
        raise click.UsageError("--fleet and --inventory go together.")
    try:
        if inventory is None:
            show()
        else:
            _show_fleet(inventory)
    except LlamarigError as error:
        fail("dashboard", error, as_json=False)


def show() -> None:
    """Show the dashboard of this host, or of the one that the environment names, until the user leaves.

    Raises:
        LlamarigError: the environment names what is no address.

    """
    from llamarig.dashboard import app  # noqa: PLC0415
    from llamarig.runtime.management import Management  # noqa: PLC0415

    client = Management.here(host_root())
    app.run(client, host=client.url)


def _show_fleet(inventory: Path) -> None:
    """Show all hosts of an inventory, until the user leaves.

    Raises:
        LlamarigError: the inventory cannot be read, or this is no control node.

    """
    try:
        from llamarig.control.fleet import fleet  # noqa: PLC0415  not part of a host's release
    except ImportError as error:
        raise LlamarigError("a fleet is shown on the control node", "run it there, or leave --fleet out") from error
    from llamarig.dashboard import app  # noqa: PLC0415

    with fleet(inventory) as hosts:
        app.run_fleet(hosts)
