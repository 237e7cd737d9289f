"""``llamarig keys``: who may ask the daemon over the network. Only hashes are kept; a key is shown once."""

from __future__ import annotations

import click

from llamarig.cli.output import fail, finish, table
from llamarig.cli.verb import JSON, host_root, needs_root
from llamarig.errors import LlamarigError


@click.group(
    epilog="Every verb takes --help and --json, and needs root.",
    short_help="Give, list and take back keys for the management API.",
)
def keys() -> None:
    """Give keys for the management API, list them, and take them back.

    Once there is a key, the API wants one on its port; on the host's own sockets it never does.
    """


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["read", "manage"]),
    default="read",
    show_default=True,
    help="read: look only. manage: switch, stop and cancel too.",
)
@JSON
def add(name: str, *, scope: str, as_json: bool) -> None:
    """Make a key and show it, this once.

    \b
    Examples:
      sudo llamarig keys add wall-display
      sudo llamarig keys add ci --scope manage --json
    """  # noqa: D301  click's mark
    from llamarig.api import keys as store  # noqa: PLC0415

    needs_root("keys add", as_json=as_json)
    try:
        key = store.add(host_root(), name, scope)
    except LlamarigError as error:
        fail("keys add", error, as_json=as_json)
    lines = [key, f"    {name} may {scope} with it; it is shown now and never again"]
    finish("keys add", {"name": name, "scope": scope, "key": key, "changed": True}, lines, as_json=as_json)


@keys.command("list", short_help="List the keys: name, scope and since when.")
@JSON
def list_command(*, as_json: bool) -> None:
    """List the keys: their names, what each may do, and since when; none is shown.

    \b
    Examples:
      sudo llamarig keys list
    """  # noqa: D301  click's mark
    from llamarig.api import keys as store  # noqa: PLC0415
    from llamarig.cli.jobs import moment  # noqa: PLC0415

    needs_root("keys list", as_json=as_json)
    try:
        found = store.listed(host_root())
    except LlamarigError as error:
        fail("keys list", error, as_json=as_json)
    data = [{"name": key.name, "scope": key.scope, "created": key.created} for key in found]
    rows = [(key.name, key.scope, moment(key.created)) for key in found]
    lines = (
        table(("NAME", "SCOPE", "CREATED (UTC)"), rows) if rows else ["there is no key: the API is on loopback only"]
    )
    finish("keys list", {"keys": data}, lines, as_json=as_json)


@keys.command()
@click.argument("name")
@JSON
def revoke(name: str, *, as_json: bool) -> None:
    """Take a key back, from the next request on.

    \b
    Examples:
      sudo llamarig keys revoke wall-display
    """  # noqa: D301  click's mark
    from llamarig.api import keys as store  # noqa: PLC0415

    needs_root("keys revoke", as_json=as_json)
    try:
        store.revoke(host_root(), name)
    except LlamarigError as error:
        fail("keys revoke", error, as_json=as_json)
    finish("keys revoke", {"name": name, "changed": True}, [f"{name} may nothing any more"], as_json=as_json)
