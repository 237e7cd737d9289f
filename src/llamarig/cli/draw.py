"""Pictures of plans as text: for a terminal of any width, with or without colours, and for a file."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import click

from llamarig.cli.picture import PARTS, Bar, Entry, Missing, Panel, gib

# Each part by a character of its own, so that a bar reads without colours too; '/' is what nobody may take.
_BLOCKS: Final[Mapping[str, str]] = {
    "weights": "█",
    "cache": "▓",
    "compute": "▒",
    "process": "░",
    "kept": "/",
    "free": "·",
}
_ASCII: Final[Mapping[str, str]] = {
    "weights": "#",
    "cache": "=",
    "compute": "+",
    "process": ":",
    "kept": "/",
    "free": ".",
}
_COLOURS: Final[Mapping[str, str]] = {
    "weights": "blue",
    "cache": "cyan",
    "compute": "green",
    "process": "magenta",
    "kept": "bright_black",
    "free": "bright_black",
}
_COLUMNS: Final = (*PARTS, "free")
# On a narrow terminal the numbers that are the same for every service make room.
_FEW_COLUMNS: Final = ("weights", "cache", "compute", "free")
_NARROW: Final = 78
_NUMBER: Final = 6
_NARROWEST, _WIDEST, _SHORTEST_BAR, _LONGEST_BAR = 60, 140, 10, 60
_SHORTEST_TEXT: Final = 24
_LONGEST_LABEL: Final = 16
UNPREDICTED: Final = "memory is not predicted"


@dataclass(frozen=True, slots=True)
class Terminal:
    """What can be shown where the text goes to: columns, whether colours, whether more than ASCII."""

    width: int = 80
    colour: bool = False
    blocks: bool = True

    @classmethod
    def here(cls) -> Terminal:
        """Look at standard output, at NO_COLOR (https://no-color.org), COLUMNS and TERM."""
        width = min(max(shutil.get_terminal_size((80, 24)).columns, _NARROWEST), _WIDEST)
        quiet = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        return cls(width, sys.stdout.isatty() and not quiet, _can_write("".join(_BLOCKS.values())))

    def style(self, text: str, **how: str | bool) -> str:
        """Colour a text where colours are shown."""
        return click.style(text, **how) if self.colour and text else text  # type: ignore[arg-type]


def _can_write(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def panel_lines(panel: Panel, terminal: Terminal) -> list[str]:
    """Draw one panel without its hosts' names: cards, services with their bars, and what is to be known."""
    bars = [bar for entry in panel.entries for bar in entry.bars]
    lines = [f"  {line}" for line in panel.cards]
    if panel.cards and panel.entries:
        lines.append("")
    if bars:
        lines += head(bars, terminal)
    for entry in panel.entries:
        lines += [*entry_lines(entry, bars, terminal)]
    for title, said, colour in (("Side by side", panel.together, "green"), ("Warnings", panel.warnings, "yellow")):
        if said:
            lines += ["", terminal.style(f"{title}:", bold=True, fg=colour)]
            lines += [part for text in said for part in wrapped(text, terminal, "  ")]
    if panel.incomplete:
        lines += ["", terminal.style("Cannot be deployed yet:", bold=True, fg="red")]
        lines += [*incomplete_lines(panel.incomplete, terminal)]
    return lines[1:] if lines and not lines[0] else lines


def incomplete_lines(incomplete: Sequence[Missing], terminal: Terminal) -> Iterator[str]:
    """Write what is missing, and where; a remedy once under all that it mends."""
    for missing in incomplete:
        yield from wrapped(f"{missing.what}:", terminal, "  ")
        for where in missing.where:
            yield f"    {where}"
        yield from wrapped(f"remedy: {missing.remedy}", terminal, "    ")


def entry_lines(entry: Entry, bars: Sequence[Bar], terminal: Terminal) -> Iterator[str]:
    """Draw one service: its strategy and the reason, then a bar for each card and the host."""
    mark = f" ({entry.mark})" if entry.mark else ""
    start = f"{entry.name}{mark}  {entry.strategy}  "
    name = f"{terminal.style(entry.name, bold=True)}{mark}  {terminal.style(entry.strategy, fg='cyan')}  "
    first, *rest = wrapped(entry.reason, terminal, "    ", len(start))
    yield f"{name}{first}".rstrip()
    yield from rest
    if not entry.bars:
        yield f"  {UNPREDICTED}"
    for bar in entry.bars:
        yield bar_line(bar, bars, terminal)


def head(bars: Sequence[Bar], terminal: Terminal) -> list[str]:
    """Write what stands over the numbers of these bars; it says what each part of a bar looks like."""
    glyphs = _BLOCKS if terminal.blocks else _ASCII
    names = [
        " " * (width - len(name)) + terminal.style(glyphs[name], fg=_COLOURS[name]) + name
        for name, width in _columns(terminal).items()
    ]
    room = 2 + _label_width(bars) + 1 + _bar_width(bars, terminal)
    others = [f"{glyphs[name]} {name}" for name in PARTS if name not in _columns(terminal)]
    return [*([f"  {', '.join(others)}"] if others else []), f"{'  GiB'.ljust(room)}{''.join(names)}"]


def bar_line(bar: Bar, bars: Sequence[Bar], terminal: Terminal) -> str:
    """Draw one bar with its numbers in GiB, as wide as all of ``bars`` are drawn."""
    label = bar.label if len(bar.label) <= _LONGEST_LABEL else f"{bar.label[: _LONGEST_LABEL - 1]}~"
    numbers = ""
    for name, width in _columns(terminal).items():
        number = gib(bar.free if name == "free" else bar.parts.get(name, 0)).rjust(width + 1)
        numbers += terminal.style(number, fg="red", bold=True) if name == "free" and bar.free < 0 else number
    picture = _picture(bar, _bar_width(bars, terminal), terminal)
    return f"  {label.ljust(_label_width(bars))} {picture}{numbers}"


def cells(bar: Bar, width: int) -> list[tuple[str, int]]:
    """Share the cells of a bar among its parts and what is free; whatever there is of a part shows in one at least."""
    sizes = {**{name: size for name, size in bar.parts.items() if size > 0}, "free": max(bar.free, 0)}
    total = sum(sizes.values()) or 1
    exact = {name: size * width / total for name, size in sizes.items()}
    shares = {name: max(int(share), int(name != "free")) for name, share in exact.items()}
    while sum(shares.values()) > width:
        larger = [name for name in shares if shares[name] > 1] or list(shares)
        shares[max(larger, key=lambda name: shares[name] - exact[name])] -= 1
    while sum(shares.values()) < width:
        shares[max(shares, key=lambda name: exact[name] - shares[name])] += 1
    return [(name, shares[name]) for name in _COLUMNS if shares.get(name)]


def wrapped(text: str, terminal: Terminal, indent: str, taken: int = 0) -> list[str]:
    """Break a text into lines; the first has ``taken`` columns less and no indent where some are taken."""
    if terminal.width - taken < _SHORTEST_TEXT:
        return ["", *wrapped(text, terminal, indent)]
    first = " " * taken if taken else indent
    lines = textwrap.wrap(
        text,
        terminal.width,
        initial_indent=first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    ) or [first]
    return [lines[0][taken:], *lines[1:]]


def _picture(bar: Bar, width: int, terminal: Terminal) -> str:
    glyphs = _BLOCKS if terminal.blocks else _ASCII
    return "".join(terminal.style(glyphs[name] * count, fg=_COLOURS[name]) for name, count in cells(bar, width))


def _label_width(bars: Sequence[Bar]) -> int:
    return min(max((len(bar.label) for bar in bars), default=0), _LONGEST_LABEL)


def _bar_width(bars: Sequence[Bar], terminal: Terminal) -> int:
    room = terminal.width - 3 - _label_width(bars) - sum(width + 1 for width in _columns(terminal).values())
    return min(max(room, _SHORTEST_BAR), _LONGEST_BAR)


def _columns(terminal: Terminal) -> dict[str, int]:
    """Return the columns of numbers, and how wide each is beside the space before it."""
    names = _FEW_COLUMNS if terminal.width < _NARROW else _COLUMNS
    return {name: max(len(name) + 1, _NUMBER) for name in names}
