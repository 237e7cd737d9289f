"""All hosts of an inventory, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from textual import events
from textual.app import ComposeResult
from textual.screen import Screen

from llamarig.dashboard.heights import fits
from llamarig.dashboard.host_screen import HostScreen
from llamarig.dashboard.panel import Panel
from llamarig.dashboard.sheet import Reading, key_of
from llamarig.dashboard.text import line
from llamarig.dashboard.view_fleet import fleet_help, fleet_keys, head_line, host_line, summary
from llamarig.dashboard.view_small import small_lines
from llamarig.dashboard.watch import Watch

# A table is looked at, not watched; twenty hosts are asked less often than one.
_SECONDS: Final = 5.0


class FleetScreen(Screen[None], inherit_bindings=False):
    """A table of hosts; Enter opens one."""

    def __init__(self, watches: Sequence[Watch], *, few: bool) -> None:
        super().__init__()
        self.watches = watches
        self.few = few
        self.index = self.top = 0
        self.table = Panel(few=few)
        self.keys = Panel(framed=False, few=few)
        self._asked: bool | None = None

    def compose(self) -> ComposeResult:
        """Lay the table over the keys."""
        yield from (self.table, self.keys)

    def on_mount(self) -> None:
        """Draw it."""
        self.repaint()

    def on_resize(self) -> None:
        """Draw it for another size."""
        self.repaint()

    def on_screen_resume(self) -> None:
        """Draw it again after a host was looked at."""
        self._asked = None
        self.repaint()

    def on_screen_suspend(self) -> None:
        """Let no host be asked for what nobody sees."""
        self._look(())

    def _look(self, kinds: Sequence[str]) -> None:
        for watch in self.watches:
            watch.show(*kinds, seconds=_SECONDS)

    def repaint(self) -> None:
        """Draw what is known now."""
        cells, height = self.app.size
        large = fits(cells, height)
        if self.app.screen is self and large is not self._asked:
            self._asked = large
            self._look(("gpus",) if large else ())
        self.keys.display = large
        self.table.framed = large
        self.table.place(cells, height - 1 if large else height)
        if not large:
            self.table.show(small_lines(cells, height))
            return
        inside, room = self.table.room
        shown = max(1, room - 1)
        self.top = min(max(self.top, self.index - shown + 1), self.index)
        rows = [
            host_line(watch, self.watches, inside, chosen=number == self.index)
            for number, watch in enumerate(self.watches)
        ]
        title = line((f"Hosts · {len(self.watches)}", "title"))
        lines = [head_line(self.watches, inside), *rows[self.top : self.top + shown]]
        self.table.show(lines, title, summary(self.watches))
        self.keys.place(cells, 1)
        self.keys.show([fleet_keys(cells)])

    def on_key(self, event: events.Key) -> None:
        """Handle every key here."""
        event.stop()
        event.prevent_default()
        key = key_of(event)
        page = max(1, self.table.room[1] - 1)
        step = {
            "up": -1,
            "down": 1,
            "pageup": -page,
            "pagedown": page,
            "home": -len(self.watches),
            "end": len(self.watches),
        }
        if key in {"q", "Q"}:
            self.app.exit()
        elif key in step:
            self.index = max(0, min(len(self.watches) - 1, self.index + step[key]))
            self.repaint()
        elif key == "enter" and self.watches and self._asked:
            self.app.push_screen(HostScreen(self.watches[self.index], few=self.few, fleet=True))
        elif key == "?" and self._asked:
            self.app.push_screen(Reading("Keys", fleet_help, few=self.few))
