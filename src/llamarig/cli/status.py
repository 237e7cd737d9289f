"""The verb that says what serves now: status. Where the daemon does not run, it says what the host's units do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamarig.cli.output import fail, finish, table
from llamarig.cli.verb import JSON, host_root
from llamarig.errors import DaemonGoneError, ExitCode, LlamarigError

if TYPE_CHECKING:
    from llamarig.config.spec import Spec


@click.command(short_help="Say what serves now, how it is, and what is under way.")
@JSON
def status(*, as_json: bool) -> None:
    """Say what serves now and how it is, and whether a switch is under way.

    Where llamarigd does not run it says what the units of this host do, and exits 8.

    \b
    Examples:
      llamarig status
      llamarig status --json
    """  # noqa: D301  click's mark
    from llamarig.runtime.management import Management  # noqa: PLC0415

    code = ExitCode.OK
    try:
        try:
            data = {"daemon": True, **Management.here(host_root()).get("/status")}
            lines = list(_lines(data))
        except DaemonGoneError as gone:
            data, code = {"daemon": False, **_without(host_root())}, gone.exit_code
            lines = [gone.message, *_units(data), f"remedy: {gone.remedy}"]
    except LlamarigError as error:
        fail("status", error, as_json=as_json)
    finish("status", data, lines, as_json=as_json, code=code)


def _lines(data: Mapping[str, Any]) -> Iterator[str]:
    """Say what the daemon says."""
    from llamarig.cli.jobs import moment  # noqa: PLC0415

    active = data.get("active") or []
    if active:
        head = ("SERVICE", "HEALTH", "IN FLIGHT", "RESTARTS", "SINCE (UTC)", "URL", "")
        rows = [
            (
                str(each.get("service")),
                str(each.get("health")),
                _number(each.get("in_flight")),
                _number(each.get("restarts")),
                moment(each.get("since")),
                str(each.get("url")),
                ", ".join(_notes(each, data.get("default"))),
            )
            for each in active
        ]
        yield from table(head, rows)
    else:
        yield "nothing serves: it was stopped on purpose" if data.get("stopped") else "nothing serves"
    yield from (f"{each['service']} is {each['health']}: {each['reason']}" for each in active if each.get("reason"))
    yield from _under_way(data)
    yield from (f"warning: {text}" for text in data.get("warnings") or [])
    for service, given in (data.get("given_up") or {}).items():
        yield f"given up: {service}, {moment(given.get('time'))}: {given.get('reason')}"


def _under_way(data: Mapping[str, Any]) -> Iterator[str]:
    """Say what the daemon is doing, and what it will."""
    from llamarig.cli.waiting import what  # noqa: PLC0415

    job = data.get("job")
    if job:
        seconds = sum((job.get("phases") or {}).values())
        phase = f", {job['phase']}" if job.get("phase") else ""
        text = f": {job['text']}" if job.get("text") else ""
        yield f"under way: {what(job)} (job {job.get('id')}{phase}, {seconds:.0f} s){text}"
    for waiting in data.get("queue") or []:
        yield f"after that: {what(waiting)} (job {waiting.get('id')})"


def _notes(each: Mapping[str, Any], default: str | None) -> Iterator[str]:
    if each.get("service") == default:
        yield "default"
    if each.get("pinned"):
        yield "pinned"
    elif each.get("idle_seconds"):
        yield f"leaves after {each['idle_seconds'] / 60:g} min without a request"
    if each.get("planned") is False:
        yield "not with its present spec"


def _number(value: object) -> str:
    return "-" if value is None else str(value)


def _without(host: Path) -> dict[str, Any]:
    """Return what is known without the daemon, with the daemon's own names where it is the same.

    Raises:
        LlamarigError: systemd does not say what its units do.

    """
    from llamarig.daemon.state import StateStore  # noqa: PLC0415
    from llamarig.runtime.engine import LlamaServer  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415
    from llamarig.runtime.systemd import Systemd  # noqa: PLC0415

    specs, state, units = SpecStore(host), StateStore(host).read(), Systemd()
    engine = LlamaServer(host)
    running = [name for name in units.running() if specs.running(name) or specs.planned(name)]
    found = []
    for name in dict.fromkeys([*state.names, *running]):
        spec: Spec | None = specs.running(name) or specs.planned(name)
        unit = units.state(name)
        found.append(
            {
                "service": name,
                "should_serve": name in state.names,
                "health": engine.health(spec) if spec else "unknown",
                "url": spec.url if spec else None,
                "restarts": unit.restarts,
                "unit": {"active": unit.active, "sub": unit.sub, "result": unit.result},
            }
        )
    return {"model": state.first, "active": found, "stopped": state.stopped}


def _units(data: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            each["service"],
            f"{each['unit']['active']} ({each['unit']['sub']})",
            each["health"],
            str(each["restarts"]),
            each["url"] or "-",
            "should serve" if each["should_serve"] else "",
        )
        for each in data["active"]
    ]
    return table(("SERVICE", "UNIT", "HEALTH", "RESTARTS", "URL", ""), rows) if rows else ["no unit of a service runs"]
