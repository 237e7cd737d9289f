"""What the panel of the services shows, and the row of keys below it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from llamarig.dashboard.answers import Job, Serving, Status
from llamarig.dashboard.text import Line, Piece, column, counted, cut, lasting, line, width
from llamarig.dashboard.watch import Watch

STATE_STYLES: Final = {"running": "ok", "starting": "warn", "stopping": "warn", "idle": "faint"}
# Any other health is bad.
HEALTH_STYLES: Final = {"ok": "ok", "loading": "warn", "unknown": "faint"}
_NAME: Final = 24


def rows(watch: Watch) -> int:
    """How many lines the panel would fill."""
    status = watch.status
    if status is None:
        return 1
    said = len(_troubles(status)) + len(status.given_up)
    return max(1, len(status.active)) + (watch.job is not None or bool(status.queue)) + said


def state_of(status: Status | None) -> Line:
    """Say in which state the host is, and which model it serves."""
    if status is None:
        return line(("connecting", "faint"))
    style = STATE_STYLES.get(status.state, "bad")
    name = status.name or status.model
    return line(("● ", style), (status.state, style), *([("  " + name, "title")] if name else []))


def service_lines(watch: Watch, cells: int, height: int) -> list[Line]:
    """Return what serves, what is under way, and what was given up."""
    status = watch.status
    if status is None:
        return [cut(line(("waiting for the daemon", "faint")), cells)][:height]
    last = _under_way(watch, cells)
    lost = [
        line(("✗ ", "bad"), (service, "bad"), " was given up", (f": {why}" if why else "", "plain"))
        for service, why in status.given_up
    ]
    room = max(1, height - len(last))
    shown = _active(status, watch.now, cells) or [_nothing(status, watch.job)]
    lines = [*shown, *_troubles(status), *lost]
    if len(lines) > room:
        rest = len(lines) - room + 1
        lines = [*lines[: room - 1], line((f"and {counted(rest, 'line')} more: a larger terminal shows all", "faint"))]
    return [cut(text, cells) for text in [*lines, *last]][:height]


def _troubles(status: Status) -> list[Line]:
    """Say why an active service is not well, and what the daemon warns of."""
    unwell = [serving for serving in status.active if serving.reason and serving.health != "ok"]
    why = [line(("! ", "bad"), (serving.service, "title"), (f": {serving.reason}", "plain")) for serving in unwell]
    return [*why, *(line(("! ", "warn"), (text, "plain")) for text in status.warnings)]


def _active(status: Status, now: float, cells: int) -> list[Line]:
    """Return a row for each active service; columns that there is no room for are left out of all of them."""
    columns = [
        [(f"{serving.service}", "title") for serving in status.active],
        [(serving.health, HEALTH_STYLES.get(serving.health, "bad")) for serving in status.active],
        [_flight(serving) for serving in status.active],
        [("" if serving.since is None else lasting(now - serving.since), "faint") for serving in status.active],
        [(counted(serving.restarts, "restart") if serving.restarts else "", "warn") for serving in status.active],
        [("pinned" if serving.pinned else "", "faint") for serving in status.active],
        [(serving.url.rstrip("/"), "accent") for serving in status.active],
        [(f"API {serving.url.rstrip('/')}/v1" if serving.url else "", "accent") for serving in status.active],
    ]
    widths = [max((len(said) for said, _ in items), default=0) for items in columns]
    widths[0] = min(_NAME, widths[0])
    widths = next((kept for kept in _narrower(widths) if sum(cell + 2 for cell in kept if cell) <= cells), widths[:3])
    rows = []
    for number, serving in enumerate(status.active):
        pieces: list[Piece] = [("●", HEALTH_STYLES.get(serving.health, "bad"))]
        for items, cell in zip(columns, widths, strict=False):
            said, style = items[number]
            pieces += [("  " if len(pieces) > 1 else " ", "plain"), (column(said, cell), style)] if cell else []
        rows.append(tuple(pieces))
    return rows


def _narrower(widths: list[int]) -> Iterator[list[int]]:
    """Yield the columns' widths, fewer and fewer columns: what matters least is left out first."""
    for left_out in ((), (7,), (7, 5), (7, 5, 3), (7, 5, 6), (7, 5, 3, 6)):
        yield [0 if number in left_out else cell for number, cell in enumerate(widths)]


def _flight(serving: Serving) -> Piece:
    return (f"{serving.in_flight} in flight", "plain") if serving.in_flight else ("at rest", "faint")


def _nothing(status: Status, job: Job | None) -> Line:
    if job is not None and job.kind == "switch":
        why = f"until {job.service} does"
    elif status.stopped:
        why = "somebody stopped it"
    elif status.default:
        why = f"the default is {status.default}"
    else:
        why = "m chooses a service"
    return line(("○ nothing serves", "title"), (f": {why}", "faint"))


def _under_way(watch: Watch, cells: int) -> list[Line]:
    job, queue = watch.job, watch.status.queue if watch.status else ()
    if job is None and not queue:
        return []
    queued = line((f"  then {queue[0].title}", "faint")) if queue else line()
    if len(queue) > 1:
        queued = (*queued, (f" and {len(queue) - 1} more", "faint"))
    if job is None:
        return [line(("… ", "warn"), ("waits", "warn"), *queued)]
    phase = f"  {job.phase}" if job.phase else ""
    seconds = f" {lasting(watch.job_seconds)}" if watch.job_seconds is not None else ""
    head = line(("→ ", "warn"), (job.title, "warn"), (phase + seconds, "title"))
    room = cells - width(head) - width(queued)
    return [line(*head, *cut(line((f"  {job.text}" if job.text else "", "plain")), max(0, room)), *queued)]


def message(watch: Watch) -> Line:
    """Say in a sentence what the host does: yellow while it starts or stops, red when something failed."""
    job, ended, status = watch.job, watch.ended, watch.status
    if watch.lost:
        return line()
    if job is not None:
        return line((job.text or f"{job.title} {job.phase}".strip(), "warn"))
    if ended is not None and ended.state != "succeeded":
        return line((f"{ended.title} {ended.state}" + (f": {ended.error}" if ended.error else ""), "bad"))
    if status is None:
        return line()
    moving = status.state in {"starting", "stopping"}
    return line((status.sentence, "warn" if moving else "faint"))


# Key, what it does, and whether it changes what serves.
Key = tuple[str, str, bool]
KEYS: Final[Sequence[Key]] = (
    ("m", "switch", True),
    ("s", "stop", True),
    ("c", "cancel", True),
    ("p", "plan", False),
    ("h", "history", False),
    ("g", "cards", False),
    ("/", "search", False),
    ("?", "help", False),
    ("q", "leave", False),
)
# What is left to the help where the row is short.
_OPTIONAL: Final = "g"


def key_line(cells: int, *, read_only: bool, job: Job | None, first: Sequence[Key] = ()) -> Line:
    """Return the row of keys; those that may not be used are named apart."""
    keys = [key for key in (*first, *KEYS) if key[0] != "c" or job is not None]
    usable = [key for key in keys if not (key[2] and read_only)]
    barred = "read only: no " + " ".join(key for key, _, changes in keys if changes) if read_only else ""
    fewer = [key for key in usable if key[0] != _OPTIONAL]
    for shown, gap in ((usable, "  "), (usable, " "), (fewer, "  "), (fewer, " ")):
        pieces = [piece for key, what, _ in shown for piece in ((gap, "plain"), (key, "key"), (f" {what}", "plain"))]
        row = line(" ", *pieces[1:], *(((gap, "plain"), (barred, "faint")) if barred else ()))
        if width(row) <= cells:
            return row
    return cut(line(" ", *((key + " ", "key") for key, _, _ in usable), (barred, "faint")), cells)
