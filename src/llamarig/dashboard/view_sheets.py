"""What the sheets over the dashboard show: services to choose from, a plan, the history, help. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final

from llamarig.dashboard.answers import Event, Offer, Plan
from llamarig.dashboard.reading import share
from llamarig.dashboard.text import Line, apart, bar, column, cut, gib, level, line, width, wrapped

_KIB: Final = 1024
_WARN, _BAD = 0.70, 0.90
_NAME: Final = 22
_LABEL: Final = 12
# Lines of a reason, and of a failed service's log, that the history shows beside the list.
_LAST_WORDS: Final = 3


def context(tokens: float | None) -> str:
    """Say a context as people do: 131072 tokens are 128K."""
    if tokens is None or tokens <= 0:
        return "-"
    return f"{tokens / _KIB:.0f}K" if tokens % _KIB == 0 else f"{tokens:.0f}"


def offer_line(offer: Offer, number: int, name: int, cells: int) -> Line:
    """Return one service to choose from; what is active has a star."""
    digit = str(number) if number <= 9 else " "  # noqa: PLR2004  keys have one digit
    right = line((f"{offer.speed:>10}", "plain"), (f"{context(offer.context):>8}", "faint"))
    left = line(
        (f"{digit} ", "key"),
        ("* " if offer.active else "  ", "ok"),
        (column(offer.service, name), "title"),
        (f"  {offer.name}", "faint"),
    )
    return apart(left, right, cells)


def name_width(offers: Sequence[Offer]) -> int:
    """Cells that the names of services take."""
    return min(_NAME, max((len(offer.service) for offer in offers), default=0))


def effect(offer: Offer, in_flight: Mapping[str, int], cells: int) -> list[Line]:
    """Say in two lines what a switch to a service does to the others."""
    if offer.active:
        return [line(("it serves already", "faint")), line()]
    if not offer.leaves:
        return [line(("nothing leaves", "ok")), line()]
    lines = [cut(line(("leaves: ", "faint"), (", ".join(offer.leaves), "warn")), cells)]
    busy = busy_words(offer.leaves, in_flight)
    return [*lines, cut(line((busy, "warn")), cells)]


def busy_words(services: Collection[str], in_flight: Mapping[str, int]) -> str:
    """Say which of these services have requests under way."""
    busy = [(name, in_flight.get(name, 0)) for name in services if in_flight.get(name, 0) > 0]
    said = [f"{name} has {count} {'request' if count == 1 else 'requests'} in flight" for name, count in busy]
    return ", ".join(said)


def plan_lines(plan: Plan, cells: int) -> list[Line]:
    """Say what a switch would do, and what the service would take of each card and of the host."""
    rows = [
        ("what leaves", ", ".join(plan.leaves) or "nothing", "warn" if plan.leaves else "ok"),
        ("what stays", ", ".join(plan.stays) or "nothing", "plain"),
        ("address", plan.url or "-", "accent"),
    ]
    lines = [line(("it serves already", "ok"))] if plan.active else []
    for label, said, style in rows:
        lines += _told(label, said, style, cells)
    if plan.refused:
        lines += _told("refused", plan.refused, "bad", cells)
        lines += _told("remedy", plan.remedy, "plain", cells) if plan.remedy else []
    lines.append(line())
    if not plan.memory:
        return [*lines, line(("its memory is not predicted", "faint"))]
    for held in plan.memory:
        part = share(held.needed, held.total)
        number = f" {gib(held.needed):>6}/{gib(held.total)} GiB"
        drawn = bar([(part or 0.0, level(part, _WARN, _BAD))], max(0, cells - _LABEL - len(number)))
        lines.append(line((column(held.label, _LABEL), "faint"), *drawn, number))
    return lines


def _told(label: str, said: str, style: str, cells: int) -> list[Line]:
    texts = wrapped(said, max(1, cells - _LABEL)) or [""]
    labels = [label, *[""] * (len(texts) - 1)]
    return [line((column(name, _LABEL), "faint"), (text, style)) for name, text in zip(labels, texts, strict=True)]


def event_line(event: Event, cells: int, zone: tzinfo | None = None) -> Line:
    """Return one line of the history."""
    moved = event.previous and event.previous != event.service
    what = f"{event.previous} → {event.service}" if moved else event.service
    style = outcome_style(event.outcome)
    left = line((clock_time(event.time, zone), "faint"), f"  {event.kind:<9} ", (what, "title"))
    right = line((event.outcome, style), (f"{_seconds(event.seconds):>9}" if event.phases else " " * 9, "faint"))
    return apart(left, right, cells)


def event_details(event: Event, cells: int) -> list[Line]:
    """Say what else is known of an event: why it was, who asked, and what each phase took."""
    lines = _told("why", event.reason, "plain", cells)[:_LAST_WORDS] if event.reason else []
    if event.origin:
        lines += _told("asked by", event.origin, "plain", cells)
    if event.phases:
        said = "  ".join(f"{name} {_seconds(seconds)}" for name, seconds in event.phases).replace(" ", "\u00a0")
        spaced = said.replace("\u00a0\u00a0", "  ")
        lines += [
            line((column("phases" if number == 0 else "", _LABEL), "faint"), text.replace("\u00a0", " "))
            for number, text in enumerate(_joined(spaced.split("  "), cells - _LABEL))
        ]
    for number, text in enumerate(event.log_lines[-_LAST_WORDS:]):
        lines.append(
            line((column("its log" if number == 0 else "", _LABEL), "faint"), *cut(line(text), cells - _LABEL))
        )
    return lines or [line(("nothing more is known of it", "faint"))]


def _joined(items: Sequence[str], cells: int) -> list[str]:
    """Put items beside each other, as many to a line as fit."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + 2 + len(item) <= cells:
            lines[-1] += f"  {item}"
        else:
            lines.append(item)
    return lines


def outcome_style(outcome: str) -> str:
    """Return the style of how something ended."""
    if outcome in {"ok", "succeeded"}:
        return "ok"
    return "bad" if outcome in {"failed", "refused", "failing", "hung", "down"} else "warn"


def clock_time(seconds: float | None, zone: tzinfo | None = None) -> str:
    """Say when something was, in local time unless another is named."""
    if seconds is None:
        return "-" * 19
    try:
        moment = datetime.fromtimestamp(seconds, UTC).astimezone(zone)
    except (ValueError, OverflowError, OSError):
        return "-" * 19
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004  three digits say enough


_HELP: Final = (
    ("m", "switch to another service, or look at its plan"),
    ("s", "stop what serves; it asks first"),
    ("c", "cancel the job that runs; it asks first"),
    ("p", "what a switch would do, before it is done"),
    ("h", "history: why, how long each phase took"),
    ("g", "every card in full, with why one is slowed (▼)"),
    ("l", "the log of the next active service"),
    ("Up Down PgUp PgDn", "move in the log; Home to its begin, End follows"),
    ("Left Right", "move in long lines"),
    ("/ n N", "search the log; n goes up, N down, Esc ends it"),
    ("q", "leave; what serves goes on serving"),
)
_FLEET_HELP: Final = ("Esc", "back to all hosts")


def help_lines(cells: int, *, read_only: str, fleet: bool, version: str) -> list[Line]:
    """Say what each key does, and what may not be done and why."""
    keys = [*_HELP[:-1], *([_FLEET_HELP] if fleet else []), _HELP[-1]]
    lines = [text for key, meaning in keys for text in key_lines(key, meaning, cells)]
    if read_only:
        lines += [line(), *(line((text, "warn")) for text in wrapped(f"Read only: {read_only}", cells))]
    if version:
        lines += [line(), line((f"llamarigd {version}", "faint"))]
    return lines


def key_lines(key: str, meaning: str, cells: int) -> list[Line]:
    """Say what a key does, in as many lines as it takes."""
    label = 19
    texts = wrapped(meaning, max(1, cells - label))
    keys = [key, *[""] * (len(texts) - 1)]
    return [line((column(name, label), "key"), text) for name, text in zip(keys, texts, strict=True)]


def sentences(texts: Sequence[tuple[str, str]], cells: int) -> list[Line]:
    """Return paragraphs, each in its style, with an empty line between two."""
    lines: list[Line] = []
    for text, style in texts:
        if text:
            lines += [line()] if lines else []
            lines += [line((part, style)) for part in wrapped(text, cells)]
    return lines


def widest(lines: Sequence[Line]) -> int:
    """Cells that the longest line takes."""
    return max(map(width, lines), default=0)
