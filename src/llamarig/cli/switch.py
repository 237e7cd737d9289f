"""The verbs that change what serves: switch and stop. The daemon does it; they ask, and wait."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from llamarig.cli.output import fail, finish
from llamarig.cli.verb import CHECK, JSON, complete_service, host_root, typed
from llamarig.errors import LlamarigError, NotAllowedError

if TYPE_CHECKING:
    from llamarig.runtime.management import Job, Management


@click.command(short_help="Make SERVICE serve; if it does not, the old one serves again.")
@click.argument("service", shell_complete=complete_service)
@click.option("--now", is_flag=True, help="Also where what would leave has not served as long as it should.")
@click.option("--queue", is_flag=True, help="While another switch is under way, wait until it is over.")
@click.option("--no-wait", is_flag=True, help="Return at once; llamarig jobs says how far it is.")
@CHECK
@JSON
def switch(service: str, *, now: bool, queue: bool, no_wait: bool, dry: bool, as_json: bool) -> None:
    """Make SERVICE the active one; if it does not come to serve, what served before serves again.

    Requests under way are answered first, as long as the services that leave allow. Others of this host go on where
    there is room for all: llamarig plan SERVICE says who leaves. Ctrl-C ends the wait and not the switch.

    Needs root or the group llamarig.

    \b
    Examples:
      llamarig switch chat
      llamarig switch chat --queue --no-wait
      llamarig switch chat --json
    """  # noqa: D301  click's mark
    from llamarig.runtime.management import Management  # noqa: PLC0415

    try:
        client = Management.here(host_root())
        if dry:
            data, lines = _would(client, service)
        else:
            job = client.submit("/switch", {"model": service, "now": now, "queue": queue})
    except LlamarigError as error:
        fail("switch", with_sudo(error), as_json=as_json)
    if not dry:
        data, lines = _submitted(job) if no_wait else _waited("switch", client, job, as_json=as_json)
    finish("switch", data, lines, as_json=as_json)


@click.command(short_help="Stop SERVICE, or all that serve, until the next switch.")
@click.argument("service", required=False, shell_complete=complete_service)
@JSON
def stop(service: str | None, *, as_json: bool) -> None:
    """Stop SERVICE, by default all that serve; a host on which nothing is left stays so, also after a reboot.

    Requests under way are answered first. It lasts until the next switch. Needs root or the group llamarig.

    \b
    Examples:
      llamarig stop
      llamarig stop chat
    """  # noqa: D301
    from llamarig.runtime.management import Management  # noqa: PLC0415

    try:
        client = Management.here(host_root())
        job = client.submit("/stop", {"model": service} if service else {})
    except LlamarigError as error:
        fail("stop", with_sudo(error), as_json=as_json)
    data, _ = _waited("stop", client, job, as_json=as_json)
    left = [str(name) for name in data.get("left") or []]
    verb = "are" if len(left) > 1 else "is"
    text = (
        f"{', '.join(left)} {verb} stopped; start again with: llamarig switch {left[0]}"
        if left
        else "nothing was active"
    )
    finish("stop", {**data, "stopped": left}, [text], as_json=as_json)


def with_sudo(error: LlamarigError) -> LlamarigError:
    """Say to whom may not change what serves how he may, in the words that he typed."""
    if isinstance(error, NotAllowedError) and typed() and not os.environ.get("LLAMARIG_URL"):
        error.remedy = f"sudo llamarig {typed()}; or join the group llamarig"
    return error


def _waited(command: str, client: Management, job: Job, *, as_json: bool) -> tuple[dict[str, Any], list[str]]:
    from llamarig.cli.waiting import conclude  # noqa: PLC0415

    return conclude(command, client, job, as_json=as_json)


def _submitted(job: Job) -> tuple[dict[str, Any], list[str]]:
    from llamarig.cli.waiting import what  # noqa: PLC0415

    line = f"job {job['id']}, {what(job)}, is {job['state']}; llamarig jobs --follow {job['id']} waits for it"
    return {"job": job}, [line]


def _would(client: Management, service: str) -> tuple[dict[str, Any], list[str]]:
    """Say what a switch would do.

    Raises:
        LlamarigError: it would be refused.

    """
    plan = client.get(f"/plan/{service}")
    if plan.get("refused"):
        raise LlamarigError(f"{plan['refused']}; nothing was touched", plan.get("remedy") or f"llamarig plan {service}")
    leaves = [str(name) for name in plan.get("leaves") or []]
    active = client.get("/status").get("active") or []
    if any(each.get("service") == service and each.get("planned") for each in active):
        message, changed = f"{service} is active already", False
    else:
        message, changed = f"would switch to {service}", True
        if leaves:
            message += f"; {', '.join(leaves)} would leave"
    return {"changed": changed, "message": message, "leaves": leaves, "active": [service]}, [message]
