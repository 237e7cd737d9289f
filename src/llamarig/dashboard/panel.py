"""The one widget of the dashboard: lines in a frame, of which only those that changed are drawn anew."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from llamarig.dashboard.palette import style
from llamarig.dashboard.text import Line, cut, fit, line, width


class Panel(Widget):
    """Lines in a frame with a title at the left of its upper edge and a message at the right; or without a frame."""

    def __init__(self, *, framed: bool = True, few: bool = False, ground: str = "ground") -> None:
        super().__init__()
        self.ground = ground
        self.framed = framed
        self.few = few
        self._cells = self._height = 0
        self._rows: list[Line] = []

    def place(self, cells: int, height: int) -> None:
        """Say how large it is; it is laid out so, and draws itself for this size from now on."""
        if (cells, height) != (self._cells, self._height):
            self._cells, self._height = cells, height
            self.styles.width, self.styles.height = cells, height

    @property
    def room(self) -> tuple[int, int]:
        """Cells of a line and number of lines inside the frame."""
        if not self.framed:
            return self._cells, self._height
        return max(0, self._cells - 4), max(0, self._height - 2)

    def show(self, lines: Sequence[Line], title: Line = (), message: Line = ()) -> None:
        """Show these lines; those that stay as they are are not drawn again."""
        cells, height = self._cells, self._height
        if self.framed:
            rows = framed(lines, title, message, cells, height)
        else:
            rows = [fit(text, cells) for text in lines[:height]]
        old, self._rows = self._rows, rows
        for number in range(max(len(rows), len(old))):
            if number >= len(old) or number >= len(rows) or rows[number] != old[number]:
                self.refresh(Region(0, number, cells, 1))

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        cells = self.size.width
        row = self._rows[y] if y < len(self._rows) else ()
        ground = style(self.ground, few=self.few)
        segments = [Segment(text, ground + style(name, few=self.few)) for text, name in row if text]
        return Strip(segments).adjust_cell_length(cells, ground)

    @property
    def words(self) -> list[str]:
        """What it shows, without styles."""
        return ["".join(text for text, _ in row) for row in self._rows]


def framed(lines: Sequence[Line], title: Line, message: Line, cells: int, height: int) -> list[Line]:
    """Draw a frame of these cells and lines around lines."""
    if cells < 6 or height < 2:  # noqa: PLR2004  a frame and a character
        return []
    inside = cells - 4
    body = [*lines[: height - 2], *[()] * (height - 2 - len(lines))]
    return [
        _edge("╭", "╮", title, message, cells),
        *(line(("│ ", "frame"), *fit(text, inside), (" │", "frame")) for text in body),
        line(("╰" + "─" * (cells - 2) + "╯", "frame")),
    ]


def _edge(left: str, right: str, title: Line, message: Line, cells: int) -> Line:
    """Draw the upper edge; where there is too little room for both, the message gives way."""
    inside = cells - 4
    title = cut(title, inside - 2)
    name = line((" ", "frame"), *title, (" ", "frame")) if title else ()
    room = inside - width(name) - 4
    said = cut(message, room) if room > 3 else ()  # noqa: PLR2004  less says nothing
    end = line((" ", "frame"), *said, (" ", "frame")) if width(said) else ()
    between = "─" * (inside - width(name) - width(end))
    return line((f"{left}─", "frame"), *name, (between, "frame"), *end, (f"─{right}", "frame"))
