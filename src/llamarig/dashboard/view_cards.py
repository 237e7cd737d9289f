"""What the panel of the cards shows. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from llamarig.dashboard.machine import Card, Gpus
from llamarig.dashboard.text import (
    NONE,
    Line,
    Piece,
    apart,
    bar,
    column,
    counted,
    cut,
    gib,
    level,
    line,
    percent,
    whole,
    width,
    wrapped,
)

_WARN, _BAD = 0.70, 0.90
_HOT: Final = (80.0, 90.0)
_NAME: Final = 18
# Cells from which a line has room for power, and for the temperature.
_WIDE, _ROOMY = 70, 38


def card_lines(gpus: Gpus | None, cells: int, height: int, failure: str = "") -> list[Line]:
    """Return the cards' lines: of each as much as there is room for, its memory always.

    Args:
        gpus: the cards, None before they are known.
        cells: that a line has.
        height: how many lines there are.
        failure: why they could not be asked for, where that is so.

    """
    if gpus is None:
        return [line((text, "faint")) for text in wrapped(failure or "asking for the cards", cells)][:height]
    if not gpus.cards:
        return [line((text, "faint")) for text in wrapped(gpus.error or "this host has no card", cells)][:height]
    cards, rest = gpus.cards, 0
    if len(cards) > height:
        cards, rest = cards[: max(0, height - 1)], len(cards) - max(0, height - 1)
    name = min(_NAME, max(cells * 2 // 7, 7), max((len(card.name) for card in cards), default=0))
    draw, tall = _drawing(len(cards), cells, height)
    spaced = tall > 1 and len(cards) * (tall + 1) - 1 <= height
    lines: list[Line] = []
    for card in cards:
        lines += [line()] if spaced and lines else []
        lines += draw(card, name, cells)
    if rest:
        lines.append(line((f"and {counted(rest, 'card')} more: g shows all", "faint")))
    return [cut(text, cells) for text in lines][:height]


def _drawing(cards: int, cells: int, height: int) -> tuple[Callable[[Card, int, int], list[Line]], int]:
    for draw, tall in ((_three, 3), (_two, 2)):
        if cards * tall <= height:
            return draw, tall
    return (_one_wide if cells >= _WIDE else _one), 1


def every_card(gpus: Gpus | None, cells: int) -> list[Line]:
    """Return all that is known of every card, as long as it takes."""
    lines: list[Line] = []
    for card in gpus.cards if gpus is not None else ():
        lines += [line()] if lines else []
        lines += _three(replace(card, services=()), max(cells // 3, _NAME), cells)
        lines += [line("  ", (f"{service} holds {gib(mib)} GiB", "faint")) for service, mib in card.services]
    return [cut(text, cells) for text in lines] or card_lines(gpus, cells, 4)


def _three(card: Card, name: int, cells: int) -> list[Line]:
    """Three lines: what it is and does, its memory, its power and clocks and whose it is."""
    clocks = f"{whole(card.clock)}/{whole(card.memory_clock)} MHz"
    room = f" {gib(card.used)}/{gib(card.total)} GiB {percent(card.share):>4}"
    left = line("  ", *_power(card), "  ", (clocks, "faint"), (_slowed(card)[0], "warn"))
    return [
        apart(_named(card, name), _work(card), cells),
        line("  ", *_bar(card, cells - 2 - len(room)), room),
        apart(left, _held(card, cells - width(left) - 2), cells),
    ]


def _two(card: Card, name: int, cells: int) -> list[Line]:
    """Two lines: its memory, and as much of the rest as there is room for."""
    room = f" {gib(card.used):>4}/{gib(card.total)} GiB"
    left = line("  ", *_work(card), "  ", *_power(card))
    said = [line((text, "warn")) for text in _slowed(card)]
    right = _held(card, cells - width(left) - width(said[-1]) - 2)
    free = cells - width(left) - width(right) - 2
    slowed = next((text for text in said if width(text) <= free), line())
    clock = line((f"  {whole(card.clock)} MHz", "faint"))
    left = line(*left, *slowed, *(clock if width(slowed) + width(clock) <= free else ()))
    return [
        line(*_named(card, name), " ", *_bar(card, cells - 3 - name - len(room)), room),
        apart(left, right, cells),
    ]


def _one(card: Card, name: int, cells: int) -> list[Line]:
    """One line: memory and work; how hot it is where that fits."""
    work = _work(card) if cells >= _ROOMY else _work(card)[:1]
    right = line(f" {gib(card.used):>4}/{gib(card.total)} ", *work)
    return [line(*_named(card, name), " ", *_bar(card, cells - 3 - name - width(right)), *right)]


def _one_wide(card: Card, name: int, cells: int) -> list[Line]:
    """One line with power, and whose it is."""
    right = line(
        f" {gib(card.used):>4}/{gib(card.total)} GiB  ", *_work(card), "  ", *_power(card), (_slowed(card)[0], "warn")
    )
    held = _held(card, 16)
    return [
        apart(line(*_named(card, name), " ", *_bar(card, cells - 20 - name - width(right)), *right), held, cells),
    ]


def _named(card: Card, cells: int) -> Line:
    return line((f"{card.index} ", "faint"), (column(card.name, cells), "title"))


def _bar(card: Card, cells: int) -> Line:
    return bar([(card.share or 0.0, level(card.share, _WARN, _BAD))], max(0, cells))


def _work(card: Card) -> Line:
    hot = "faint" if card.temperature is None else level(card.temperature, *_HOT)
    return line(
        (f"{percent(card.utilisation):>4}", "faint" if card.utilisation is None else "plain"),
        (f" {whole(card.temperature, '°C'):>5}", "plain" if hot == "ok" else hot),
    )


def _power(card: Card) -> Line:
    if card.power is None and card.limit is None:
        return line((f"{NONE} W", "faint"))
    return line((f"{whole(card.power):>3}/{whole(card.limit)} W", "plain"))


def _slowed(card: Card) -> list[str]:
    """Ways to say that a card is slowed down, the longest first."""
    return [f"  slowed: {', '.join(card.throttle)}", "  slowed", "  ▼"] if card.throttle else [""]


def _held(card: Card, cells: int) -> Line:
    """Say which services hold what of it, the largest first, as far as there is room."""
    pieces: list[Piece] = []
    held = sorted(card.services, key=lambda item: -(item[1] or 0.0))
    for number, (service, mib) in enumerate(held):
        more: list[Piece] = [(f"{'  ' if pieces else ''}{service} ", "accent"), (gib(mib), "plain")]
        left = len(held) - number - 1
        if width((*pieces, *more)) + (4 if left else 0) > cells:
            pieces += [(f" +{left + 1}", "faint")] if pieces else []
            break
        pieces += more
    return tuple(pieces)
