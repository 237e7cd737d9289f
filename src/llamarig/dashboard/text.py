"""Lines of the dashboard: pieces of text with the names of their styles, fitted to a width in terminal cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from rich.cells import cell_len, set_cell_size

from llamarig.runtime.logline import plain

# A piece of text and the name of its style, which palette.py knows.
Piece = tuple[str, str]
Line = tuple[Piece, ...]
CUT: Final = "…"
NONE: Final = "-"
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_GIB: Final = 1024


def clean(text: str) -> str:
    """Return text as one line that a terminal can be given: nothing that moves its cursor, nothing it cannot encode."""
    whole = plain(text.encode("utf-8", "replace").decode("utf-8"))
    return " ".join(whole.splitlines()).expandtabs(4)


def line(*pieces: Piece | str) -> Line:
    """Make a line; a piece without a style is plain."""
    return tuple((piece, "plain") if isinstance(piece, str) else piece for piece in pieces)


def words(text: Iterable[Piece]) -> str:
    """Return what a line says, without its styles."""
    return "".join(piece for piece, _ in text)


def width(text: Line) -> int:
    """Cells that a line takes."""
    return sum(cell_len(piece) for piece, _ in text)


def cut(text: Line, cells: int) -> Line:
    """Return a line of these cells at most; where something is left out it ends in an ellipsis."""
    if width(text) <= cells:
        return text
    if cells <= 0:
        return ()
    left, result = cells - 1, []
    for piece, style in text:
        taken = min(cell_len(piece), left)
        result.append((set_cell_size(piece, taken), style))
        left -= taken
        if left == 0:
            break
    return (*result, (CUT, "faint"))


def fit(text: Line, cells: int) -> Line:
    """Return a line of exactly these cells."""
    short = cut(text, cells)
    return (*short, (" " * (cells - width(short)), "plain"))


def apart(left: Line, right: Line, cells: int) -> Line:
    """Put one line at the left end of a width and one at the right; the left one gives way."""
    right = cut(right, cells)
    room = cells - width(right)
    return (*fit(left, max(0, room - 1)), (" " * min(1, room), "plain"), *right) if right else fit(left, cells)


def column(text: str, cells: int, *, right: bool = False) -> str:
    """Return text of exactly these cells, cut or filled."""
    short = words(cut(line(text), cells))
    space = " " * (cells - cell_len(short))
    return space + short if right else short + space


def wrapped(text: str, cells: int) -> list[str]:
    """Break a text into lines of these cells at most, between words where that can be."""
    lines, current = [], ""
    for word in text.split():
        joined = f"{current} {word}" if current else word
        if cell_len(joined) <= cells:
            current = joined
            continue
        if current:
            lines.append(current)
        while cell_len(word) > cells:
            # Letters that fit, one of them at least: a wide one may not.
            end = next((end for end in range(cells, 1, -1) if cell_len(word[:end]) <= cells), 1)
            lines.append(word[:end])
            word = word[end:]  # noqa: PLW2901  what is left of it
        current = word
    return [*lines, current] if current else lines


def bar(parts: Sequence[tuple[float, str]], cells: int) -> Line:
    """Draw shares of one whole, each 0 to 1 and in its style, and what is left of it; anything above zero shows."""
    ends = [min(1.0, total) for total in accumulate(max(0.0, share) for share, _ in parts)]
    stops = [round(end * cells) for end in ends]
    if cells > 0 and stops and stops[-1] == 0 and ends[-1] > 0:
        stops[-1] = 1
    pieces, begin = [], 0
    for (_, style), stop in zip(parts, stops, strict=True):
        pieces.append((_FILLS.get(style, "█") * (stop - begin), style))
        begin = stop
    return (*pieces, ("░" * (cells - begin), "rest"))


# Where a bar has several parts they differ without colours too.
_FILLS: Final = {"cache": "▒", "system": "▓"}


def gib(mib: float | None) -> str:
    """Say MiB as GiB with one digit, as people speak of cards."""
    return NONE if mib is None else f"{mib / _GIB:.1f}"


def percent(share: float | None) -> str:
    """Say a share of 0 to 1 in percent."""
    return NONE if share is None else f"{share * 100:.0f}%"


def whole(value: float | None, unit: str = "") -> str:
    """Say a number without digits after the point, and its unit."""
    return NONE if value is None else f"{value:.0f}{unit}"


def lasting(seconds: float | None) -> str:
    """Say how long something has been so, as exactly as a glance needs."""
    if seconds is None:
        return NONE
    passed = max(0, int(seconds))
    if passed < _MINUTE:
        return f"{passed} s"
    if passed < _HOUR:
        return f"{passed // _MINUTE} min"
    if passed < _DAY:
        return f"{passed // _HOUR} h {passed % _HOUR // _MINUTE} min"
    return f"{passed // _DAY} d {passed % _DAY // _HOUR} h"


def counted(number: int, thing: str) -> str:
    """Say how many there are: ``1 host``, ``2 hosts``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def level(share: float | None, warn: float, bad: float) -> str:
    """Return the style of a share: calm below the first limit, bad from the second."""
    if share is None:
        return "faint"
    return "bad" if share >= bad else "warn" if share >= warn else "ok"
