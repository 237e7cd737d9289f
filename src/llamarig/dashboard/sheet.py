"""Sheets that lie over the dashboard: text to read, questions, lists to choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from textual import events
from textual.app import ComposeResult
from textual.screen import ModalScreen

from llamarig.dashboard.panel import Panel
from llamarig.dashboard.text import Line, line

_WIDTH: Final = 76
_FRAME, _EDGE = 2, 4


def key_of(event: events.Key) -> str:
    """Return the character that a key types, and the name of one that types none."""
    return event.character if event.character and event.character.isprintable() else event.key


class Sheet(ModalScreen[None], inherit_bindings=False):
    """Lines that can be scrolled; Esc goes back."""

    DEFAULT_CSS = """
    Sheet { align: center middle; background: $background 50%; }
    Sheet:ansi { background: transparent; }
    """
    keys: Line = line(("Esc", "key"), " back")

    def __init__(self, *, few: bool, title: str = "") -> None:
        super().__init__()
        self.heading = title
        self.panel = Panel(few=few, ground="raised")
        self.top = 0

    def compose(self) -> ComposeResult:
        """Lay out the one panel."""
        yield self.panel

    def on_mount(self) -> None:
        """Draw it."""
        self.repaint()

    def on_resize(self) -> None:
        """Draw it for another size."""
        self.repaint()

    def content(self, _cells: int) -> list[Line]:
        """Return what can be scrolled."""
        return []

    def below(self, _cells: int) -> list[Line]:
        """Return what is always to be seen below it."""
        return []

    @property
    def _cells(self) -> int:
        return max(0, min(_WIDTH, self.app.size.width - 2) - _EDGE)

    def _height(self, content: int, below: int) -> int:
        """Lines for what can be scrolled."""
        return max(1, min(content, self.app.size.height - 2 - _FRAME - below))

    def repaint(self) -> None:
        """Draw what there is now."""
        cells = self._cells
        content, below = self.content(cells), self.below(cells)
        foot = [line(), *below, *([line()] if below else []), self.keys]
        height = self._height(len(content), len(foot))
        self.top = max(0, min(self.top, len(content) - height))
        more = len(content) - height - self.top
        message = line((f"{more} more below", "faint")) if more > 0 else ()
        self.panel.place(cells + _EDGE, min(height + len(foot) + _FRAME, max(0, self.app.size.height)))
        self.panel.show([*content[self.top : self.top + height], *foot], line((self.heading, "title")), message)
        self.page = height

    page = 1

    def on_key(self, event: events.Key) -> None:
        """Handle every key here; none of them reaches what is below."""
        event.stop()
        event.prevent_default()
        self.press(key_of(event))

    def press(self, key: str) -> None:
        """Scroll, or go back."""
        step = {"up": -1, "down": 1, "pageup": -self.page, "pagedown": self.page, "home": -(10**6), "end": 10**6}.get(
            key
        )
        if step is not None:
            self.move(step)
            self.repaint()
        elif key in {"escape", "q"}:
            self.close()

    def move(self, lines: int) -> None:
        """Scroll by so many lines."""
        self.top += lines

    def close(self) -> None:
        """Go away, if it is what lies on top."""
        if self.app.screen is self:
            self.dismiss()


class Reading(Sheet):
    """Text, made for the width that there is."""

    def __init__(self, title: str, lines: Callable[[int], list[Line]], *, few: bool) -> None:
        super().__init__(few=few, title=title)
        self._lines = lines

    def content(self, cells: int) -> list[Line]:
        """Return the text."""
        return self._lines(cells)


class Question(Reading):
    """A question that is answered with y or n."""

    keys = line(("y", "key"), " yes   ", ("n", "key"), " no")

    def __init__(self, title: str, lines: Callable[[int], list[Line]], act: Callable[[], None], *, few: bool) -> None:
        super().__init__(title, lines, few=few)
        self._act = act

    def press(self, key: str) -> None:
        """Do it, or do not."""
        if key in {"y", "Y"}:
            self.close()
            self._act()
        elif key in {"n", "N"}:
            self.close()
        else:
            super().press(key)


class Choosing(Sheet):
    """A list of which one is chosen, with arrows and Enter or with its digit."""

    def __init__(self, title: str, *, few: bool) -> None:
        super().__init__(few=few, title=title)
        self.index = 0

    def items(self) -> Sequence[Any]:
        """Return what there is to choose from."""
        return ()

    def row(self, _item: Any, _number: int, _cells: int) -> Line:
        """Return one of the rows; numbers begin with 1."""
        return ()

    def choose(self, item: Any) -> None:
        """Do what choosing one is for."""

    def content(self, cells: int) -> list[Line]:
        """Return the rows, the chosen one marked."""
        rows = []
        for number, item in enumerate(self.items()):
            chosen = number == self.index
            row = self.row(item, number + 1, cells - 2)
            marked = tuple((text, "chosen") for text, _ in row) if chosen else row
            rows.append(line(("> " if chosen else "  ", "chosen" if chosen else "plain"), *marked))
        return rows

    @property
    def chosen(self) -> Any | None:
        """What is marked, None where there is nothing."""
        items = self.items()
        return items[self.index] if 0 <= self.index < len(items) else None

    def move(self, lines: int) -> None:
        """Mark another one, and keep it in sight."""
        self.index = max(0, min(len(self.items()) - 1, self.index + lines))
        self.top = min(self.index, max(self.top, self.index - self.page + 1))

    def press(self, key: str) -> None:
        """Choose with Enter or a digit."""
        items = self.items()
        if key == "enter" and self.chosen is not None:
            self.choose(self.chosen)
        elif key in set("123456789") and int(key) <= len(items):
            self.index = int(key) - 1
            self.repaint()
            self.choose(items[self.index])
        else:
            super().press(key)
