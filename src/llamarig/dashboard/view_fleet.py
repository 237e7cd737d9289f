"""What the table of all hosts shows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llamarig.dashboard.reading import share
from llamarig.dashboard.text import Line, bar, column, counted, cut, fit, gib, level, line, width
from llamarig.dashboard.view_services import HEALTH_STYLES, STATE_STYLES
from llamarig.dashboard.view_sheets import key_lines
from llamarig.dashboard.watch import Watch

_WARN, _BAD = 0.70, 0.90
_HOST, _SERVICE = 22, 24
_WORST: Final = ("down", "failing", "hung", "unknown", "loading", "ok")


def summary(watches: Sequence[Watch]) -> Line:
    """Say how many hosts serve, are busy with it, or do not answer."""
    lost = sum(1 for watch in watches if watch.lost)
    states = [watch.status.state for watch in watches if watch.reached and watch.status is not None]
    serving = sum(1 for state in states if state == "running")
    moving = sum(1 for state in states if state in {"starting", "stopping"})
    parts = [(f"{serving} serving", "ok" if serving else "faint")]
    parts += [(f"{moving} switching", "warn")] if moving else []
    idle = len(states) - serving - moving
    parts += [(f"{idle} idle", "faint")] if idle else []
    parts += [(f"{counted(lost, 'host')} lost", "bad")] if lost else []
    waiting = len(watches) - len(states) - lost
    parts += [(f"{waiting} connecting", "faint")] if waiting else []
    joined = [piece for part in parts for piece in ((" · ", "faint"), part)]
    return line(*joined[1:])


def head_line(watches: Sequence[Watch], cells: int) -> Line:
    """Return the heads of the columns."""
    host, service = _columns(watches, cells)
    heads = f"  {column('host', host)}  {column('serves', service)}  {'health':<8}{'state':<10}VRAM"
    return fit(line((heads, "faint")), cells)


def host_line(watch: Watch, watches: Sequence[Watch], cells: int, *, chosen: bool) -> Line:
    """Return one host's row."""
    host, service = _columns(watches, cells)
    mark = line(("> " if chosen else "  ", "key"), (column(watch.name, host), "title"), "  ")
    room = cells - width(mark)
    if watch.lost:
        age = f"lost {watch.away}: " if watch.status is not None else "not reached: "
        return fit(line(*mark, *cut(line((age, "bad"), (watch.lost, "plain")), room)), cells)
    status = watch.status
    if status is None:
        return fit(line(*mark, ("connecting", "faint")), cells)
    names, style = _names(watch)
    healths = [serving.health for serving in status.active]
    health = min(healths, key=lambda word: _WORST.index(word) if word in _WORST else 0, default="-")
    left = line(
        *mark,
        (column(names, service), style),
        (f"  {column(health, 8)}", HEALTH_STYLES.get(health, "faint")),
        (column(status.state, 10), STATE_STYLES.get(status.state, "bad")),
    )
    return fit(line(*left, *_memory(watch, cells - width(left))), cells)


def _names(watch: Watch) -> tuple[str, str]:
    """Return what a host serves, or what is on its way."""
    if watch.job is not None and watch.job.kind == "switch":
        return f"→ {watch.job.service}", "warn"
    names = ", ".join(serving.service for serving in watch.status.active) if watch.status is not None else ""
    return (names, "plain") if names else ("-", "faint")


def _memory(watch: Watch, cells: int) -> Line:
    cards = watch.gpus.cards if watch.gpus is not None else ()
    totals = [card.total for card in cards if card.total is not None]
    if not totals:
        return line((("no card" if watch.gpus is not None else "-"), "faint"))
    used, total = sum(card.used or 0.0 for card in cards), sum(totals)
    part = share(used, total)
    number = f" {gib(used):>5}/{gib(total)} GiB"
    style = level(part, _WARN, _BAD)
    return line(*bar([(part or 0.0, style)], max(0, cells - len(number))), number)


def _columns(watches: Sequence[Watch], cells: int) -> tuple[int, int]:
    """Cells for the names of hosts and of what they serve."""
    names = [watch.name for watch in watches]
    served = [_names(watch)[0] for watch in watches]
    host = min(_HOST, max(map(len, [*names, "host"])))
    service = min(_SERVICE, max(map(len, [*served, "serves"])))
    # A bar needs some room too.
    return host, max(6, min(service, cells - host - 24 - 26))


def fleet_keys(cells: int) -> Line:
    """Return the row of keys."""
    keys = [("Enter", "open a host"), ("Up Down", "choose"), ("?", "help"), ("q", "leave")]
    return fit(line(" ", *(piece for key, what in keys for piece in ((key, "key"), f" {what}  "))), cells)


def fleet_help(cells: int) -> list[Line]:
    """Say what each key does."""
    keys = (
        ("Up Down PgUp PgDn", "choose a host; Home the first, End the last"),
        ("Enter", "the dashboard of the chosen host; Esc comes back"),
        ("q", "leave; what serves goes on serving"),
    )
    return [text for key, meaning in keys for text in key_lines(key, meaning, cells)]
