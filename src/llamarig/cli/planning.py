"""The verbs that say how services are laid out and why: plan and explain."""

from __future__ import annotations

from pathlib import Path

import click

from llamarig.cli.output import fail, finish
from llamarig.cli.verb import INVENTORY, JSON, complete_service, host_root, needs_root, sayer
from llamarig.errors import LlamarigError


@click.command(short_help="Show what each service takes of cards and memory, and why.")
@click.argument("service", required=False, shell_complete=complete_service)
@INVENTORY
@click.option("--limit", help="With --inventory: only these hosts, as Ansible says it.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the picture to this file too.")
@click.option("--check", "ask", is_flag=True, help="On a host: ask the engine itself, and compare.")
@JSON
def plan(
    service: str | None, *, inventory: Path | None, limit: str | None, svg: Path | None, ask: bool, as_json: bool
) -> None:
    """Show how services are laid out: what each takes of every card and of the host's memory, and why.

    With SERVICE, in full: what was considered, what fits beside it and what stops for it, and the exact llama-server
    arguments. On a host it shows what the host was given. On a control node, with --inventory, it plans: no host is
    reached, and files whose size or checksum nobody has said yet are reported.

    \b
    Examples:
      llamarig plan            every service of this host
      llamarig plan chat       one of them in full
      llamarig plan -i inventories/example
      llamarig plan chat -i inventories/example --svg chat.svg
      sudo llamarig plan --check

    --check asks llama-fit-params in each service's own image, 1 to 40 s each, without loading weights, and compares
    it with what was predicted and with what the running service allocated. It exits 0 where all are within 3 % or
    64 MiB, 7 where a figure differs more or a service could not be asked about, and 6 where the engine says that a
    service cannot fit, refuses it, or does not see its cards.
    """  # noqa: D301  click's mark
    from llamarig.cli.plan import present  # noqa: PLC0415

    if ask:
        _check_plan(service, inventory, as_json=as_json)
        return
    try:
        data, lines = present(host_root(), service, inventory, limit, svg, as_json=as_json)
    except LlamarigError as error:
        fail("plan", error, as_json=as_json)
    finish("plan", data, lines, as_json=as_json)


def _check_plan(service: str | None, inventory: Path | None, *, as_json: bool) -> None:
    from llamarig.cli.check import run  # noqa: PLC0415

    if inventory is not None:
        error = LlamarigError("--check asks the engine on a host, and an inventory has none", "run it on the host")
        fail("plan", error, as_json=as_json)
    needs_root("plan", as_json=as_json)
    try:
        data, lines, code = run(host_root(), service, sayer(as_json=as_json))
    except LlamarigError as error:
        fail("plan", error, as_json=as_json)
    finish("plan", data, lines, as_json=as_json, code=code)


@click.command(short_help="Say where each setting of SERVICE comes from.")
@click.argument("service", shell_complete=complete_service)
@click.argument("setting", required=False)
@INVENTORY
@click.option("--host", help="With --inventory: the host, where several run the service.")
@JSON
def explain(service: str, setting: str | None, *, inventory: Path | None, host: str | None, as_json: bool) -> None:
    """Say where each setting of SERVICE comes from, what weaker layers had said, and what the planner decides itself.

    Layers, the weakest first: built-in, profile, strategy, fleet, service. SETTING is one of them, by any name that
    llama-server has for it.

    \b
    Examples:
      llamarig explain chat
      llamarig explain chat ctx_size
      llamarig explain chat c -i inventories/example --host gpu01.example.com
    """  # noqa: D301
    from llamarig.cli.explain import present  # noqa: PLC0415

    try:
        data, lines = present(host_root(), service, setting, inventory, host)
    except LlamarigError as error:
        fail("explain", error, as_json=as_json)
    finish("explain", data, lines, as_json=as_json)
