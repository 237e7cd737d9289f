"""The log panel's memory: the last lines, where one looks, and what one searches. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Final

from llamarig.dashboard.text import Line, clean, line

LINES: Final = 2000
# How far back a follower begins; what of it is known already is not shown twice.
REPLAYED: Final = 200
# What compose writes before each line of a container.
_PREFIX: Final = re.compile(r"^[\w.-]+\s+\| ")
_BAD: Final = re.compile(r"\b(error|fatal|abort(ed)?|failed|panic|out of memory)\b", re.IGNORECASE)
_WARN: Final = re.compile(r"\b(warn(ing)?)\b", re.IGNORECASE)


class _Overlap:
    """Finds what of the lines that come is what the log ends with already.

    A follower begins with lines of the past. They are held back as long as they could be what the log ends with; once
    they cannot, the longest run of them that reached its end is dropped, and the rest is let go.
    """

    def __init__(self, tail: list[str]) -> None:
        self._tail = tail
        self._held: list[str] = []
        self._known = 0
        # Where in the tail the first line that came may stand.
        self._starts = list(range(len(tail)))

    def new(self, text: str) -> list[str]:
        """Return the lines that may be shown now."""
        if not self._starts:
            return [text]
        at = len(self._held)
        self._held.append(text)
        alive = [start for start in self._starts if self._tail[start + at] == text]
        if any(start + at + 1 == len(self._tail) for start in alive):
            self._known = at + 1
        self._starts = [start for start in alive if start + at + 1 < len(self._tail)]
        return [] if self._starts else self._held[self._known :]


class LogBuffer:
    """The last lines of the services that were followed, with a line between two of them.

    Attributes:
        service: the one that is followed, empty at first.
        pattern: what is searched, empty if nothing is.
        left: cells that long lines are moved to the left.

    """

    def __init__(self) -> None:
        self.service = ""
        self.pattern = ""
        self.left = 0
        self._lines: deque[tuple[str, bool]] = deque(maxlen=LINES)
        self._known: dict[str, deque[str]] = {}
        self._overlap = _Overlap([])
        # Index of the line after the last that is shown; None while the end is followed.
        self._end: int | None = None
        self._match: int | None = None

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def following(self) -> bool:
        """Whether new lines are shown as they come."""
        return self._end is None

    def begin(self, service: str) -> None:
        """Say which service the next lines are of; what its follower repeats of them is left out."""
        if service != self.service:
            if self._lines:
                self._append(f" {service} ", between=True)
            self.service = service
        self._overlap = _Overlap(list(self._known.get(service, ())))

    def add(self, text: str) -> None:
        """Add a line of the service that is followed."""
        for fresh in self._overlap.new(_PREFIX.sub("", clean(text).rstrip())):
            self._known.setdefault(self.service, deque(maxlen=REPLAYED)).append(fresh)
            self._append(fresh)

    def _append(self, text: str, *, between: bool = False) -> None:
        dropped = len(self._lines) == LINES
        self._lines.append((text, between))
        if dropped:
            # What is looked at stays where it is while lines go at the other end.
            self._end = None if self._end is None else max(1, self._end - 1)
            self._match = None if not self._match else self._match - 1

    def scroll(self, lines: int, height: int) -> None:
        """Move down by so many lines, up if negative; at the end it follows again."""
        end = len(self) if self._end is None else self._end
        self._look(end + lines, height)

    def top(self, height: int) -> None:
        """Show the oldest lines."""
        self._look(0, height)

    def follow(self) -> None:
        """Show the newest lines, and those to come."""
        self._end = self._match = None

    def _look(self, end: int, height: int) -> None:
        self._end = max(end, min(height, len(self)))
        if self._end >= len(self):
            self._end = None

    def span(self, height: int) -> tuple[int, int]:
        """Return the first and the last line that are shown, counted from 1; 0 and 0 where there is none."""
        end = len(self) if self._end is None else min(self._end, len(self))
        return (max(0, end - height) + 1 if end else 0), end

    def search(self, pattern: str, height: int) -> None:
        """Look for a text, the newest lines first; capitals count where it has some."""
        self.pattern = pattern
        self._match = None
        if pattern:
            self.older(height)

    def older(self, height: int) -> None:
        """Go to the next match upwards; from the first one to the last."""
        self._step(height, list(self._matches())[::-1], newer=False)

    def newer(self, height: int) -> None:
        """Go to the next match downwards; from the last one to the first."""
        self._step(height, list(self._matches()), newer=True)

    def _step(self, height: int, matches: list[int], *, newer: bool) -> None:
        if not matches:
            return
        here = self._match
        if here is None:
            here = self.span(height)[1]
        beyond = [index for index in matches if (index > here if newer else index < here)]
        self._match = (beyond or matches)[0]
        first, last = self.span(height)
        if not first <= self._match + 1 <= last:
            self._look(self._match + 1 + height // 2, height)

    def _matches(self) -> Iterator[int]:
        found = self._finder()
        return (i for i, (text, between) in enumerate(self._lines) if found and not between and found.search(text))

    def _finder(self) -> re.Pattern[str] | None:
        if not self.pattern:
            return None
        return re.compile(re.escape(self.pattern), 0 if self.pattern != self.pattern.lower() else re.IGNORECASE)

    @property
    def found(self) -> str:
        """How many lines match what is searched, and which of them one is at."""
        matches = list(self._matches())
        if not matches:
            return "no match"
        at = f"{matches.index(self._match) + 1} of " if self._match in matches else ""
        return f"{at}{len(matches)}"

    def lines(self, cells: int, height: int) -> list[Line]:
        """Return what is to be seen in so many cells and lines."""
        first, last = self.span(height)
        found = self._finder()
        shown = []
        for index in range(max(0, first - 1), last):
            text, between = self._lines[index]
            if between:
                shown.append(line((text.center(cells, "─"), "between")))
                continue
            pieces = _coloured(text, found, current=index == self._match)
            shown.append(_moved(pieces, self.left))
        return shown


def _coloured(text: str, found: re.Pattern[str] | None, *, current: bool) -> Line:
    style = "bad" if _BAD.search(text) else "warn" if _WARN.search(text) else "plain"
    if found is None:
        return line((text, style))
    pieces, at = [], 0
    for match in found.finditer(text):
        pieces += [(text[at : match.start()], style), (match.group(), "found" if current else "match")]
        at = match.end()
    return (*pieces, (text[at:], style))


def _moved(text: Line, left: int) -> Line:
    """Leave out the first characters of a line."""
    pieces = []
    for piece, style in text:
        pieces.append((piece[left:], style))
        left = max(0, left - len(piece))
    return tuple(pieces)
