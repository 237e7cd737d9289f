"""The verbs about trying an engine beside the one that serves: trial, and what ends one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from llamarig.cli.output import fail, finish
from llamarig.cli.verb import JSON, host_root, needs_root, sayer, stop_like_ctrl_c
from llamarig.cli.worse import PERCENT, WorseError, conclude
from llamarig.errors import ExitCode, LlamarigError, NotFoundError

if TYPE_CHECKING:
    from llamarig.config.spec import Spec
    from llamarig.daemon.memory import Judged
    from llamarig.trial.report import Report
    from llamarig.trial.trial import Trial

_COLOURS: Final = {"ok": "green", "fail": "red", "skipped": "yellow"}


class EndedError(LlamarigError):
    """A trial was ended by Ctrl-C, a kill, another trial or a switch."""

    exit_code = ExitCode.INTERRUPTED


@click.command()
@click.option("--image", required=True, help="The engine to try: an image of this host.")
@click.option("--against", help="The engine to hold it against; default: that of the active service.")
@click.option("--slower", default=10.0, show_default=True, type=PERCENT, help="Per cent that it may be slower.")
@click.option("--service", "names", multiple=True, metavar="NAME", help="Only with this service; may be repeated.")
@JSON
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
    from llamarig.runtime.trials import claim_trial  # noqa: PLC0415

    needs_root("engine trial", as_json=as_json)
    stop_like_ctrl_c()
    root = host_root()
    try:
        planned = _trial(root, image, against, slower, names, sayer(as_json=as_json))
        with claim_trial(root, planned.docker):
            report = planned.run()
    except KeyboardInterrupt:
        ended = EndedError("the trial was ended, and nothing was changed", "start it again when nothing needs the room")
        fail("engine trial", ended, as_json=as_json)
    except LlamarigError as error:
        fail("engine trial", error, as_json=as_json)
    conclude("engine trial", report.to_dict(), _told(report), _worse(report), as_json=as_json)


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

    specs, active = SpecStore(root), StateStore(root).read().first
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


@click.command(hidden=True)
@JSON
def end_trial(*, as_json: bool) -> None:
    """End the trial that is under way, if any: it takes memory that a service may need. Units call it as they start."""
    from llamarig.runtime import trials  # noqa: PLC0415

    needs_root("engine end-trial", as_json=as_json)
    try:
        ended = trials.end_trial(host_root())
    except LlamarigError as error:
        fail("engine end-trial", error, as_json=as_json)
    line = "the trial of an engine was ended" if ended else "no engine is on trial"
    finish("engine end-trial", {"changed": ended}, [line], as_json=as_json)


@click.command(hidden=True)
@click.argument("service")
@click.argument("version")
@JSON
def put_models_back(service: str, version: str, *, as_json: bool) -> None:
    """Put back model files that were replaced since VERSION of SERVICE served. Units call it as they start."""
    from llamarig.daemon.chores import Chores  # noqa: PLC0415

    needs_root("engine put-models-back", as_json=as_json)
    back = Chores(host_root()).put_models_back(service, version)
    lines = [f"{path} is what it was" for path in back] or ["every file is what it was"]
    finish("engine put-models-back", {"changed": bool(back), "files": back}, lines, as_json=as_json)
