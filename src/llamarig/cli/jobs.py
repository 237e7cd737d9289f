"""The verbs about what the daemon does and did: jobs, cancel, history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from llamarig.cli.output import fail, finish, table
from llamarig.cli.verb import JSON, host_root
from llamarig.errors import BusyError, DaemonGoneError, LlamarigError

if TYPE_CHECKING:
    from llamarig.runtime.management import Job, Management


@click.command(short_help="List what llamarigd does, will do and did lately.")
@click.argument("job_id", metavar="[ID]", required=False)
@click.option("-f", "--follow", "go_on", is_flag=True, help="Wait until it is over, and say how it ended.")
@JSON
def jobs(job_id: str | None, *, go_on: bool, as_json: bool) -> None:
    """List what llamarigd does, will do and did lately, newest last; with ID, one of them.

    --follow without ID waits for the one under way. Ctrl-C ends the wait and not the job.

    \b
    Examples:
      llamarig jobs
      llamarig jobs --follow
      llamarig jobs 17 --json
    """  # noqa: D301  click's mark
    from llamarig.runtime.management import OVER, Management  # noqa: PLC0415

    try:
        client = Management.here(host_root())
        found = [client.job(job_id)] if job_id else list(client.get("/jobs").get("jobs") or [])
    except LlamarigError as error:
        fail("jobs", error, as_json=as_json)
    if go_on:
        data, lines = _followed(
            client, [job for job in found if job_id or job.get("state") not in OVER], as_json=as_json
        )
    elif job_id:
        data, lines = {"jobs": found}, _in_full(found[0])
    else:
        head = ("ID", "WHAT", "STATE", "PHASE", "TOOK", "BY", "SUBMITTED (UTC)", "")
        data, lines = {"jobs": found}, table(head, [_row(job) for job in found]) if found else ["there is no job"]
    finish("jobs", data, lines, as_json=as_json)


@click.command(short_help="Cancel a job; what served before serves again.")
@click.argument("job_id", metavar="ID")
@click.option("--no-wait", is_flag=True, help="Return at once.")
@JSON
def cancel(job_id: str, *, no_wait: bool, as_json: bool) -> None:
    """Cancel a job: one that waits is dropped, a switch under way goes back to what served before.

    Needs root or the group llamarig.

    \b
    Examples:
      llamarig cancel 17
    """  # noqa: D301
    from llamarig.cli.switch import with_sudo  # noqa: PLC0415
    from llamarig.cli.waiting import follow, what  # noqa: PLC0415
    from llamarig.runtime.management import Management  # noqa: PLC0415

    try:
        client = Management.here(host_root())
        client.delete(f"/jobs/{job_id}")
        job = client.job(job_id)
        if not no_wait:
            job = follow(client, job, quiet=as_json)
    except BusyError as error:
        # Too late is no matter of waiting for another.
        fail("cancel", LlamarigError(error.message, "llamarig history"), as_json=as_json)
    except LlamarigError as error:
        fail("cancel", with_sudo(error), as_json=as_json)
    if job.get("state") == "succeeded":
        late = LlamarigError(f"job {job_id} ({what(job)}) had come to its end already", "llamarig status")
        fail("cancel", late, as_json=as_json, job=job)
    how = "is cancelled" if not no_wait else "is told to end"
    serving = (job.get("error") or {}).get("serving")
    line = f"job {job_id} ({what(job)}) {how}{f'; {serving} serves' if serving else ''}"
    finish("cancel", {"job": job, "changed": True}, [line], as_json=as_json)


@click.command(short_help="Show what happened to services, how it ended, and why.")
@click.option("-n", "--lines", type=click.IntRange(0, 10_000), default=20, show_default=True, help="How many events.")
@click.option("-v", "--phases", is_flag=True, help="What each phase took too.")
@JSON
def history(*, lines: int, phases: bool, as_json: bool) -> None:
    """Show what happened to services, newest last: switches, stops, what was given up; how it ended and why.

    \b
    Examples:
      llamarig history
      llamarig history -n 5 --phases
    """  # noqa: D301
    from llamarig.runtime.management import Management  # noqa: PLC0415

    try:
        events = _events(Management.here(host_root()), lines)
    except LlamarigError as error:
        fail("history", error, as_json=as_json)
    head = ("TIME (UTC)", "WHAT", "SERVICE", "BEFORE", "OUTCOME", "TOOK", "BY", "REASON")
    rows = [_happened(event) for event in events]
    shown = table(head, rows)
    if phases:
        shown = [
            shown[0],
            *(line for row, event in zip(shown[1:], events, strict=True) for line in (row, *_took(event))),
        ]
    finish("history", {"events": events}, shown if rows else ["nothing happened yet"], as_json=as_json)


def _events(client: Management, count: int) -> list[dict[str, Any]]:
    """Return the last events, from the daemon or, where there is none, from its file."""
    from llamarig.daemon.state import StateStore  # noqa: PLC0415

    if count == 0:
        return []
    try:
        return list(client.get("/history", lines=count).get("events") or [])[-count:]
    except DaemonGoneError:
        return StateStore(host_root()).history()[-count:]


def _happened(event: Mapping[str, Any]) -> tuple[str, ...]:
    phases = event.get("phases") or {}
    return (
        moment(event.get("time")),
        str(event.get("kind") or "-"),
        names(event.get("service")),
        names(event.get("previous")),
        str(event.get("outcome") or "-"),
        f"{sum(phases.values()):.1f} s" if phases else "-",
        str(event.get("origin") or "-"),
        str(event.get("reason") or ""),
    )


def _took(event: Mapping[str, Any]) -> list[str]:
    phases = event.get("phases") or {}
    return ["    " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items())] if phases else []


def _row(job: Job) -> tuple[str, ...]:
    from llamarig.cli.waiting import what  # noqa: PLC0415

    phases = job.get("phases") or {}
    error = job.get("error") or {}
    return (
        str(job.get("id")),
        what(job),
        str(job.get("state")),
        str(job.get("phase") or "-"),
        f"{sum(phases.values()):.1f} s" if phases else "-",
        str(job.get("origin") or "-"),
        moment(job.get("submitted")),
        str(error.get("message") or job.get("reason") or "").partition("\n")[0],
    )


def _in_full(job: Job) -> list[str]:
    from llamarig.cli.waiting import what  # noqa: PLC0415

    error = job.get("error") or {}
    said = {
        "what": what(job),
        "state": job.get("state"),
        "by": ", ".join(str(job[key]) for key in ("origin", "reason") if job.get(key)),
        "phase": job.get("phase"),
        "now": job.get("text"),
        "submitted": moment(job.get("submitted")),
        "started": moment(job.get("started")),
        "finished": moment(job.get("finished")),
        "took": ", ".join(f"{name} {seconds:.1f} s" for name, seconds in (job.get("phases") or {}).items()),
        "outcome": (job.get("outcome") or {}).get("message"),
        "error": error.get("message"),
        "remedy": error.get("remedy"),
    }
    lines = [f"{label + ':':<11}{text}" for label, text in said.items() if text and text != "-"]
    return [*lines, *(f"    {line}" for line in error.get("log_lines") or [])]


def _followed(client: Management, found: list[Job], *, as_json: bool) -> tuple[dict[str, Any], list[str]]:
    """Wait for the first of some jobs; there may be none."""
    from llamarig.cli.waiting import conclude  # noqa: PLC0415

    return conclude("jobs", client, found[0], as_json=as_json) if found else ({"job": None}, ["nothing is under way"])


def moment(seconds: float | None) -> str:
    """Return a moment in UTC, to the second; a dash where there is none."""
    from datetime import UTC, datetime  # noqa: PLC0415

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds else "-"


def names(value: object) -> str:
    """Return one name or several, a dash where there is none."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return str(value) if value else "-"
