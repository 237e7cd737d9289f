"""``llamarig engine``: which engines this host has, whether another is as good, how fast this one is, the way back."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from llamarig.cli.output import envelope, fail, finish, table
from llamarig.errors import ExitCode, LlamarigError, NotFoundError

if TYPE_CHECKING:
    from llamarig.config.spec import Spec
    from llamarig.daemon.memory import Judged
    from llamarig.trial.report import Report
    from llamarig.trial.trial import Trial

_JSON = click.option("--json", "as_json", is_flag=True, help="Print a versioned JSON envelope.")
_CHECK = click.option("--check", "dry", is_flag=True, help="Say what would happen; change nothing.")
_PERCENT = click.FloatRange(min=0, max=100)
_COLOURS: Final = {"ok": "green", "fail": "red", "skipped": "yellow"}
_BEST_OF: Final = 3
# A slower figure is measured again this often, and so long, before it is believed.
_MORE_TIMES: Final = 9
_MORE_SECONDS: Final = 20.0
_TOKENS: Final = 64
_SECONDS: Final = 300.0
_MIB: Final = 1 << 20


class EndedError(LlamarigError):
    """A trial was ended by Ctrl-C, a kill, another trial or a switch."""

    exit_code = ExitCode.INTERRUPTED


class WorseError(LlamarigError):
    """An engine is worse than the one that it was held against; the message has every check that failed."""

    exit_code = ExitCode.UNHEALTHY


def _finish(command: str, data: dict[str, Any], lines: list[str], worse: WorseError | None, *, as_json: bool) -> None:
    """Print a result, for programs with what is worse beside it, and leave with the code that it comes to."""
    if worse is None:
        finish(command, data, lines, as_json=as_json)
        return
    if as_json:
        click.echo(envelope(command, data, worse))
        sys.exit(int(worse.exit_code))
    finish(command, data, lines, as_json=False, code=worse.exit_code)


@click.group(epilog="Every verb takes --help and --json.")
def engine() -> None:
    """Show the engines of this host, try another one, measure this one, and go back to the one before."""


@engine.command("list")
@_JSON
def list_command(*, as_json: bool) -> None:
    """List the engines that this host has as images, and what each is for.

    planned: named by the specs. running: containers are made of it. before: what engine rollback goes back to.

    \b
    Examples:
      sudo llamarig engine list
      sudo llamarig engine list --json
    """  # noqa: D301  click's mark
    from llamarig.cli.main import _root  # noqa: PLC0415  it imports this module
    from llamarig.daemon.engines import read_engines  # noqa: PLC0415
    from llamarig.runtime.images import Docker  # noqa: PLC0415

    try:
        found = read_engines(_root(), Docker())
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
@click.option("--image", required=True, help="The engine to try: an image of this host.")
@click.option("--against", help="The engine to hold it against; default: that of the active service.")
@click.option("--slower", default=10.0, show_default=True, type=_PERCENT, help="Per cent that it may be slower.")
@click.option("--service", "names", multiple=True, metavar="NAME", help="Only with this service; may be repeated.")
@_JSON
def trial(*, image: str, against: str | None, slower: float, names: tuple[str, ...], as_json: bool) -> None:
    """Try another engine beside the service that runs, which goes on as it is.

    Checks: version; options of every service; ops, the operations that models are made of, on each card; memory; and
    with the smallest model of each architecture short-prompt, long-prompt (320, 512 and 768 tokens) and speed
    (llama-bench), against the engine that serves, in the same place, in what memory is free. It takes minutes and
    leaves nothing behind. Ctrl-C, another trial or a switch ends it.

    Exits 0 where nothing failed, 6 where a check did, 3 where an image or service is not here, 130 where it was ended.

    \b
    Examples:
      sudo llamarig engine trial --image llamarig/llama-cpp:v0.8.0-cuda-0123456789ab
      sudo llamarig engine trial --image llamarig/llama-cpp:v0.8.0-cuda-0123456789ab --slower 5 --service chat --json
    """  # noqa: D301
    from llamarig.cli.main import _needs_root, _root, _say, _stop_like_ctrl_c  # noqa: PLC0415  it imports this module
    from llamarig.runtime.trials import claim_trial  # noqa: PLC0415

    _needs_root("engine trial", as_json=as_json)
    _stop_like_ctrl_c()
    root = _root()
    try:
        planned = _trial(root, image, against, slower, names, _say(as_json=as_json))
        with claim_trial(root, planned.docker):
            report = planned.run()
    except KeyboardInterrupt:
        ended = EndedError("the trial was ended, and nothing was changed", "start it again when nothing needs the room")
        fail("engine trial", ended, as_json=as_json)
    except LlamarigError as error:
        fail("engine trial", error, as_json=as_json)
    _finish("engine trial", report.to_dict(), _told(report), _worse(report), as_json=as_json)


def _trial(root: Path, image: str, against: str | None, slower: float, names: tuple[str, ...], say: Any) -> Trial:
    from functools import partial  # noqa: PLC0415

    from llamarig.cli.check import busy_cards  # noqa: PLC0415
    from llamarig.daemon.memory import MemoryStore  # noqa: PLC0415
    from llamarig.runtime.fit_params import DockerJudge  # noqa: PLC0415
    from llamarig.runtime.images import Docker  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415
    from llamarig.trial.placement import available_mib  # noqa: PLC0415
    from llamarig.trial.trial import Trial  # noqa: PLC0415

    specs = SpecStore(root)
    every = specs.all()
    chosen = [specs.get(name) for name in dict.fromkeys(names)] or every
    if not chosen:
        raise NotFoundError("this host runs no service to try an engine with", "try it on a host that does")
    held = against or _serving_image(root)
    docker, judge = Docker(), DockerJudge()
    if held == image:
        raise LlamarigError(f"{image} is the engine that it would be held against", "name another with --image")
    for name in (image, held):
        if docker.image(name) is None:
            raise NotFoundError(
                f"the image {name} is not on this host", "sudo llamarig engine list shows those that are"
            )
    return Trial(
        candidate=image,
        against=held,
        specs=chosen,
        running=[found for spec in every if (found := specs.running(spec.service))],
        slower_percent=slower,
        docker=docker,
        judge=judge,
        old=partial(_judged, MemoryStore(root), judge, held),
        busy=busy_cards(root),
        place=specs.path,
        available=available_mib,
        say=say,
    )


def _serving_image(root: Path) -> str:
    """Return the image of what serves now, or of what last did."""
    from llamarig.daemon.generation import GenerationStore  # noqa: PLC0415
    from llamarig.daemon.state import StateStore  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415

    specs, active = SpecStore(root), StateStore(root).read().active
    running = specs.running(active) if active else None
    if running is not None:
        return running.image
    current = GenerationStore(root).current()
    if current is None:
        remedy = "name the engine to hold it against: --against IMAGE"
        raise LlamarigError("nothing serves on this host, and nothing did", remedy)
    return current.image


def _judged(store: Any, judge: Any, image: str, spec: Spec) -> Judged | None:
    """Return what the engine that serves says of a spec's memory; what it said before need not be asked again."""
    from dataclasses import replace  # noqa: PLC0415

    from llamarig.daemon.memory import Judged  # noqa: PLC0415

    known: Judged | None = store.read(spec).engine if spec.image == image else None
    old = replace(spec, image=image)
    return known or Judged.of(old, judge.estimate(old), time.time())


def _worse(report: Report) -> WorseError | None:
    failed = [check for check in report.checks if check.status.value == "fail"]
    if not failed:
        return None
    told = [f"{check.name}: {check.message}" for check in failed]
    head = f"{report.candidate} is worse than {report.against}, and nothing was changed:"
    return WorseError("\n".join([head, *told]), "; ".join(dict.fromkeys(check.remedy for check in failed)))


def _told(report: Report) -> list[str]:
    lines = [f"{report.candidate}", f"against {report.against}, {report.slower_percent:g} % slower at most", ""]
    for check in report.checks:
        word = click.style(check.status.value.ljust(7), fg=_COLOURS[check.status.value])
        lines.append(f"{word}  {check.name}: {check.message} ({check.seconds:.0f} s)")
        if check.remedy:
            lines.append(f"         remedy: {check.remedy}")
    failed = report.to_dict()["failed"]
    verdict = f"worse: {', '.join(failed)}" if failed else "as good as the engine that serves"
    return [*lines, "", f"verdict: {verdict}"]


@engine.command()
@click.option("--to", metavar="IMAGE", help="Go back to this engine; default: to the one before.")
@_CHECK
@_JSON
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
    from llamarig.cli.main import _needs_root, _root, _say, _stop_like_ctrl_c, _switcher  # noqa: PLC0415  it imports this module
    from llamarig.daemon.generation import GenerationStore  # noqa: PLC0415
    from llamarig.daemon.rollback import Rollback  # noqa: PLC0415
    from llamarig.runtime import unit_files  # noqa: PLC0415
    from llamarig.runtime.images import Docker  # noqa: PLC0415

    _needs_root("engine rollback", as_json=as_json)
    _stop_like_ctrl_c()
    docker = Docker()
    way_back = Rollback(
        GenerationStore(_root()),
        _switcher(_say(as_json=as_json)),
        lambda image: docker.image(image) is not None,
        unit_files.reload_units,
    )
    try:
        back = way_back.run(to, dry=dry)
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


@engine.command()
@_CHECK
@_JSON
def prune(*, dry: bool, as_json: bool) -> None:
    """Remove engines that nobody needs: not planned, of no container, not the one before, and kept for no other host.

    \b
    Examples:
      sudo llamarig engine prune --check
      sudo llamarig engine prune
    """  # noqa: D301
    from llamarig.cli.main import _needs_root, _root  # noqa: PLC0415  it imports this module
    from llamarig.daemon.engines import read_engines  # noqa: PLC0415
    from llamarig.daemon.speeds import SpeedStore  # noqa: PLC0415
    from llamarig.runtime.images import Docker  # noqa: PLC0415

    _needs_root("engine prune", as_json=as_json)
    docker = Docker()
    try:
        found = read_engines(_root(), docker).images
        gone = [each.image for each in found if not each.needed]
        for image in () if dry else gone:
            docker.remove_image(image.name)
    except LlamarigError as error:
        fail("engine prune", error, as_json=as_json)
    if not dry:
        SpeedStore(_root()).forget([image.name for image in gone])
    kept = [each.image.name for each in found if each.needed]
    data = {"changed": bool(gone), "removed": [image.name for image in gone], "kept": kept}
    verb = "would remove" if dry else "removed"
    lines = [f"{verb} {image.name}, {image.bytes / _MIB:.0f} MiB" for image in gone]
    finish("engine prune", data, lines or ["every engine here is needed"], as_json=as_json)


@engine.command()
@click.option("--against", metavar="IMAGE", help="Compare with what this engine reached with the same service.")
@click.option("--slower", default=10.0, show_default=True, type=_PERCENT, help="Per cent that it may be slower.")
@_JSON
def speed(*, against: str | None, slower: float, as_json: bool) -> None:
    """Measure how fast the active service generates: 64 tokens, the best of three times, in the layout that it has.

    The figure is kept for each engine and service. With --against it exits 6 where the service is slower by more than
    --slower per cent than it was with that engine; it measures nine times, and for 20 s, before it says so.

    \b
    Examples:
      sudo llamarig engine speed
      sudo llamarig engine speed --against llamarig/llama-cpp:v0.7.0-cuda-0123456789ab --slower 10
    """  # noqa: D301
    from llamarig.cli.main import _needs_root, _root, _say  # noqa: PLC0415  it imports this module
    from llamarig.daemon.speeds import Figure, SpeedStore  # noqa: PLC0415
    from llamarig.daemon.state import StateStore  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415

    _needs_root("engine speed", as_json=as_json)
    root = _root()
    active = StateStore(root).read().active
    running = SpecStore(root).running(active) if active else None
    if active is None or running is None:
        data: dict[str, Any] = {"image": None, "service": active, "tokens_per_second": None, "checks": []}
        finish("engine speed", data, ["nothing serves, so nothing was measured"], as_json=as_json)
        return
    store = SpeedStore(root)
    before = store.read().get(against, {}).get(active) if against else None
    if against and before is None:
        remedy = "measure it while it serves: sudo llamarig engine speed"
        fail("engine speed", LlamarigError(f"{active} was never measured with {against}", remedy), as_json=as_json)
    least = before.tokens_per_second * (1 - slower / 100) if before else 0.0
    best = _measured(root, running, least, _say(as_json=as_json), as_json=as_json)
    store.keep(running.image, active, Figure(round(best, 3), round(time.time()), running.spec_sha256))
    others = {image: figures[active].tokens_per_second for image, figures in store.read().items() if active in figures}
    message = f"{active}: {best:.4g} tokens/s with {running.image}"
    if before is not None:
        change = 100 * (best / before.tokens_per_second - 1)
        message += f", {before.tokens_per_second:.4g} with {against} ({change:+.1f} %, {-slower:g} % is the most)"
    too_slow = best < least
    check = {
        "name": "speed",
        "status": "fail" if too_slow else "ok",
        "message": message,
        "remedy": "go back: sudo llamarig engine rollback" if too_slow else "",
    }
    data = {
        "image": running.image,
        "service": active,
        "tokens_per_second": round(best, 3),
        "images": others,
        "against": {"image": against, "tokens_per_second": before.tokens_per_second} if before else None,
        "slower_percent": round(100 * (1 - best / before.tokens_per_second), 1) if before else None,
        "checks": [check],
    }
    worse = WorseError(message, check["remedy"]) if too_slow else None
    _finish("engine speed", data, [message], worse, as_json=as_json)


def _measured(root: Path, spec: Spec, least: float, say: Any, *, as_json: bool) -> float:
    """Return the best of three times, or of more where none is as fast as it should be."""
    from llamarig.runtime.completions import SPEED_PROMPT, Completions  # noqa: PLC0415
    from llamarig.runtime.engine import EngineError  # noqa: PLC0415

    best, server, start = 0.0, Completions(root), time.monotonic()
    for number in itertools.count():
        patient = number < _MORE_TIMES or time.monotonic() - start < _MORE_SECONDS
        if number >= _BEST_OF and (best >= least or not patient):
            break
        try:
            answer = server.generate(spec, SPEED_PROMPT, _TOKENS, timeout=_SECONDS)
        except EngineError as error:
            _unmeasured(spec, str(error), as_json=as_json)
        if not answer.predicted_per_second:
            _unmeasured(spec, "the server does not say how fast it was", as_json=as_json)
        say(f"{spec.service}: {answer.predicted_per_second:.4g} tokens/s")
        best = max(best, answer.predicted_per_second)
    return best


def _unmeasured(spec: Spec, why: str, *, as_json: bool) -> NoReturn:
    error = LlamarigError(f"{spec.service} could not be measured: {why}", f"llamarig logs {spec.service}")
    fail("engine speed", error, as_json=as_json)
