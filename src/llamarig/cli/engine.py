"""``llamarig engine``: which engines this host has, whether another is as good, how fast this one is, the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from llamarig.cli.output import fail, finish, table
from llamarig.cli.speed import speed
from llamarig.cli.trial import end_trial, put_models_back, trial
from llamarig.cli.verb import CHECK, JSON, host_root, needs_root, sayer, stop_like_ctrl_c
from llamarig.errors import LlamarigError

if TYPE_CHECKING:
    from llamarig.cli.verb import Say
    from llamarig.daemon.rollback import Rollback

_MIB: Final = 1 << 20


@click.group(
    epilog="Every verb takes --help and --json.", short_help="Show engines, try another one, measure, go back."
)
def engine() -> None:
    """Show the engines of this host, try another one, measure this one, and go back to the one before."""


for _verb in (trial, end_trial, put_models_back, speed):
    engine.add_command(_verb)


@engine.command("list")
@JSON
def list_command(*, as_json: bool) -> None:
    """List the engines that this host has as images, and what each is for.

    planned: named by the specs. running: containers are made of it. before: what engine rollback goes back to.

    \b
    Examples:
      sudo llamarig engine list
      sudo llamarig engine list --json
    """  # noqa: D301  click's mark
    from llamarig.daemon.engines import read_engines  # noqa: PLC0415
    from llamarig.runtime.images import Docker  # noqa: PLC0415

    try:
        found = read_engines(host_root(), Docker())
    except LlamarigError as error:
        fail("engine list", error, as_json=as_json)
    rows = [
        (
            each.image.name,
            f"{each.image.bytes / _MIB:.0f} MiB",
            each.image.labels.get("llamarig.ref") or "-",
            (each.image.labels.get("org.opencontainers.image.revision") or "-")[:9],
            each.image.labels.get("llamarig.backend") or "-",
            ", ".join(_uses(each)) or "-",
        )
        for each in found.images
    ]
    lines = table(("IMAGE", "SIZE", "REF", "COMMIT", "BACKEND", "FOR"), rows) if rows else ["there is no engine here"]
    if found.planned and found.planned not in {each.image.name for each in found.images}:
        lines.append(f"planned, and not here: {found.planned}")
    finish("engine list", found.to_dict(), lines, as_json=as_json)


def _uses(each: Any) -> list[str]:
    uses = [name for name in ("planned", "current", "before") if getattr(each, name)]
    running = [f"running {', '.join(each.containers)}"] if each.containers else []
    served = [f"kept for {', '.join(each.served)}"] if each.served else []
    return [*uses, *running, *served]


@engine.command()
@click.option("--to", metavar="IMAGE", help="Go back to this engine; default: to the one before.")
@CHECK
@JSON
def rollback(*, to: str | None, dry: bool, as_json: bool) -> None:
    """Go back to the engine of before: its specs, compose projects and units come back, and its service serves.

    Without a build and without the network. Where the last upgrade did not come to its end on this host, it goes back
    to what served; otherwise to the engine before. Twice goes forward again. Where it fails, what served before serves
    again. API keys are no part of it: a service keeps the key that it has now.

    \b
    Examples:
      sudo llamarig engine rollback --check
      sudo llamarig engine rollback
    """  # noqa: D301
    needs_root("engine rollback", as_json=as_json)
    stop_like_ctrl_c()
    try:
        back = _way_back(sayer(as_json=as_json), quiet=as_json).run(to, dry=dry)
    except LlamarigError as error:
        fail("engine rollback", error, as_json=as_json)
    way = back.way
    data = {
        "changed": back.changed,
        "from": list(way.left),
        "to": way.target.image,
        "active": way.service,
        "written": list(way.written),
        "removed": list(way.removed),
        "phases": dict(back.phases),
        "message": back.message,
    }
    seconds = sum(back.phases.values())
    finish("engine rollback", data, [f"{back.message}{f' ({seconds:.1f} s)' if seconds else ''}"], as_json=as_json)


def _way_back(say: Say, *, quiet: bool) -> Rollback:
    """Return the way back of this host.

    Raises:
        DaemonGoneError: the daemon, which has to make it serve, does not answer.

    """
    from llamarig.cli.asking import Asking  # noqa: PLC0415
    from llamarig.daemon.chores import Chores  # noqa: PLC0415
    from llamarig.daemon.generation import GenerationStore  # noqa: PLC0415
    from llamarig.daemon.rollback import Rollback  # noqa: PLC0415
    from llamarig.runtime import unit_files  # noqa: PLC0415
    from llamarig.runtime.images import Docker  # noqa: PLC0415
    from llamarig.runtime.management import Management  # noqa: PLC0415

    root, docker = host_root(), Docker()
    client = Management(root, origin="cli")
    client.get("/healthz")
    return Rollback(
        GenerationStore(root),
        Asking(client, quiet=quiet),
        Chores(root, say),
        lambda image: docker.image(image) is not None,
        unit_files.reload_units,
        say,
    )


@engine.command()
@CHECK
@JSON
def prune(*, dry: bool, as_json: bool) -> None:
    """Remove engines that nobody needs: not planned, of no container, not the one before, and kept for no other host.

    \b
    Examples:
      sudo llamarig engine prune --check
      sudo llamarig engine prune
    """  # noqa: D301
    from llamarig.daemon.engines import read_engines  # noqa: PLC0415
    from llamarig.daemon.speeds import SpeedStore  # noqa: PLC0415
    from llamarig.runtime.images import Docker  # noqa: PLC0415

    needs_root("engine prune", as_json=as_json)
    docker = Docker()
    try:
        found = read_engines(host_root(), docker).images
        gone = [each.image for each in found if not each.needed]
        for image in () if dry else gone:
            docker.remove_image(image.name)
    except LlamarigError as error:
        fail("engine prune", error, as_json=as_json)
    if not dry:
        SpeedStore(host_root()).forget([image.name for image in gone])
    kept = [each.image.name for each in found if each.needed]
    data = {"changed": bool(gone), "removed": [image.name for image in gone], "kept": kept}
    verb = "would remove" if dry else "removed"
    lines = [f"{verb} {image.name}, {image.bytes / _MIB:.0f} MiB" for image in gone]
    finish("engine prune", data, lines or ["every engine here is needed"], as_json=as_json)
