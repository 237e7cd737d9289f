"""The playbook's last word to a host: the engine judges what is new, the daemon makes it serve, root tidies up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from llamarig.cli.output import fail, finish
from llamarig.cli.verb import CHECK, JSON, host_root, needs_root, sayer
from llamarig.errors import ExitCode, LlamarigError

if TYPE_CHECKING:
    from llamarig.cli.verb import Say

# A playbook may have started the daemon anew just now.
_STARTS_SECONDS: Final = 20.0


@click.command(hidden=True)
@CHECK
@JSON
def reconcile(*, dry: bool, as_json: bool) -> None:
    """Make what serves what should serve; the playbook's last word to a host.

    Which service is active stays as it is, unless it is no longer planned.
    """
    from llamarig.cli.check import ask_new  # noqa: PLC0415

    needs_root("reconcile", as_json=as_json)
    say = sayer(as_json=as_json)
    try:
        judged = ask_new(host_root(), say, dry=dry)
        data, lines = _would(host_root()) if dry else _done(host_root(), say, as_json=as_json)
    except LlamarigError as error:
        fail("reconcile", error, as_json=as_json)
    # The doctor's verdict comes along, so that a playbook needs one visit to the host and not two.
    verdict = {} if dry else _verdict()
    code = ExitCode.OK if verdict.get("healthy", True) else ExitCode.UNHEALTHY
    finish("reconcile", {**data, "judge": judged, "doctor": verdict}, lines, as_json=as_json, code=code)


def _done(host: Path, say: Say, *, as_json: bool) -> tuple[dict[str, Any], list[str]]:
    """Ask the daemon, and do what is root's afterwards.

    Raises:
        LlamarigError: the host's file cannot be read, the daemon does not answer, or another command holds the host
            all the time.

    """
    from llamarig.cli.waiting import conclude  # noqa: PLC0415
    from llamarig.daemon.chores import Chores  # noqa: PLC0415
    from llamarig.runtime.management import Management  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415

    # The daemon goes on with the policy of before where the new one cannot be read; whoever wrote it is told.
    SpecStore(host).policy()
    client = Management.here(host, origin="playbook")
    client.wait(_STARTS_SECONDS)
    # Where a switch is under way, it waits for its turn.
    job = client.submit("/reconcile", {"adopt": True})
    data, lines = conclude("reconcile", client, job, as_json=as_json)
    gone = Chores(host, say).run()
    return {**data, "tidied": gone}, lines


def _verdict() -> dict[str, Any]:
    from llamarig.cli.machine import examine  # noqa: PLC0415

    return examine(show=False)


def _would(host: Path) -> tuple[dict[str, Any], list[str]]:
    """Say what a reconciliation would change, by the files of the host."""
    from llamarig.daemon.state import StateStore  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415

    specs, state = SpecStore(host), StateStore(host).read()
    planned = {spec.service: spec.spec_sha256 for spec in specs.all()}
    stays = [serving for serving in state.active if serving.service in planned]
    said = [f"stop {serving.service}" for serving in state.active if serving.service not in planned]
    said += [f"start {one.service} with its new spec" for one in stays if planned[one.service] != one.version]
    wanted = specs.default_service()
    if not stays and not (state.stopped and not state.active) and wanted in planned:
        said.append(f"start {wanted}")
    active = [serving.service for serving in stays]
    message = f"would {' and '.join(said)}" if said else f"{', '.join(active) or 'nothing'} serves, as it should"
    return {"active": active, "changed": bool(said), "message": message}, [message]
