"""The dashboard of one host: log, cards, system, services and keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.screen import Screen
from textual.timer import Timer

from llamarig.dashboard.controls import Controls
from llamarig.dashboard.heights import Heights, fits, heights
from llamarig.dashboard.panel import Panel
from llamarig.dashboard.sheet import key_of
from llamarig.dashboard.text import Line, lasting, line, wrapped
from llamarig.dashboard.view_cards import card_lines
from llamarig.dashboard.view_machine import machine_lines
from llamarig.dashboard.view_services import key_line, message, rows, service_lines, state_of
from llamarig.dashboard.view_small import small_lines
from llamarig.dashboard.watch import Watch

# How long a word about what was pressed stays.
_NOTICE_SECONDS: Final = 6.0
_NARROW: Final = 100
_SIDEWAYS: Final = 8
# A card that is asked answers within moments.
_OLD_SECONDS: Final = 10.0


class HostScreen(Screen[None], inherit_bindings=False):
    """Everything about one host. It draws what its watch knows, and asks nobody by itself."""

    def __init__(self, host: Watch, *, few: bool, fleet: bool = False) -> None:
        super().__init__()
        self.host = host
        self.few, self.fleet = few, fleet
        self.small = Panel(framed=False, few=few)
        self.banner = Panel(framed=False, few=few)
        self.logs = Panel(few=few)
        self.cards = Panel(few=few)
        self.machine = Panel(few=few)
        self.services = Panel(few=few)
        self.keys = Panel(framed=False, few=few)
        self.middle = Horizontal(self.cards, self.machine, id="middle")
        self.controls = Controls(self)
        self.typed: str | None = None
        self._notice: Line = ()
        self._forget: Timer | None = None
        self._shown: bool | None = None

    def compose(self) -> ComposeResult:
        """Lay the panels over each other."""
        yield from (self.small, self.banner, self.logs, self.middle, self.services, self.keys)

    @property
    def on_top(self) -> bool:
        """Whether nothing lies over it."""
        return self.app.screen is self

    def on_mount(self) -> None:
        """Begin to follow the log."""
        self.host.follow_log()
        self.repaint()

    def on_unmount(self) -> None:
        """Let nothing be asked for that nobody sees."""
        self.host.leave_log()

    def on_resize(self) -> None:
        """Draw everything for another size."""
        self.repaint()

    def notice(self, text: str, style: str = "warn") -> None:
        """Say something in the row of keys for a while."""
        self._notice = line((f" {text}", style)) if text else ()
        if self._forget is not None:
            self._forget.stop()
        self._forget = self.set_timer(_NOTICE_SECONDS, self._unsay)
        self.repaint()

    def _unsay(self) -> None:
        self._notice = ()
        self.repaint()

    def repaint(self) -> None:
        """Draw what is known now."""
        cells, height = self.app.size
        large = fits(cells, height)
        if large is not self._shown:
            self._shown = large
            self.host.show(*(("gpus", "system") if large else ()))
            self.small.display = not large
            for panel in (self.logs, self.middle, self.services, self.keys):
                panel.display = large
        lost = self.host.lost
        self.banner.display = bool(lost) and large
        if not large:
            self.small.place(cells, height)
            self.small.show(small_lines(cells, height))
            return
        if lost:
            self.banner.place(cells, 1)
            self.banner.show([self._lost(lost, cells)])
        gpus = self.host.gpus
        self._place(cells, heights(height, len(gpus.cards) if gpus else 1, rows(self.host)))
        self._draw_log()
        self._draw(self.cards, "GPUs", "gpus", lambda c, h: card_lines(gpus, c, h, self.host.failure("gpus")))
        machine = self.host.machine
        self._draw(
            self.machine, "System", "system", lambda c, h: machine_lines(machine, c, h, self.host.failure("system"))
        )
        self._draw(self.services, f"Services · {self.host.name}", "status", lambda c, h: service_lines(self.host, c, h))
        self.keys.show([self._key_row(cells)])

    def _place(self, cells: int, shares: Heights) -> None:
        left = round(cells * (0.58 if cells < _NARROW else 0.55))
        self.logs.place(cells, shares.logs - self.banner.display)
        self.middle.styles.height = shares.middle
        self.cards.place(left, shares.middle)
        self.machine.place(cells - left, shares.middle)
        self.services.place(cells, shares.services)
        self.keys.place(cells, 1)

    def _lost(self, reason: str, cells: int) -> Line:
        heard = f"; last heard {self.host.away} ago" if self.host.status is not None else ""
        text = f" {reason}{heard}; trying again"
        return line((text.ljust(cells), "banner"))

    def _draw(self, panel: Panel, title: str, kind: str, lines: Callable[[int, int], list[Line]]) -> None:
        """Draw a panel; grey, and with its age, where it shows what was once so."""
        old = self.host.stale(kind) or self._silent(kind)
        drawn = lines(*panel.room)
        if old:
            drawn = [tuple((text, "faint") for text, _ in row) for row in drawn]
        said: Line = state_of(self.host.status) if panel is self.services else ()
        if panel is self.cards and self.host.gpus and self.host.gpus.cards:
            said = line((self.host.gpus.error, "bad"))
        said = line((old, "warn")) if old else said
        panel.show(drawn, line((title, "title")), said)

    def _silent(self, kind: str) -> str:
        """Say how old what the cards said is, where the daemon waits for them."""
        gpus = self.host.gpus
        return f"{lasting(gpus.age)} old" if kind == "gpus" and gpus and gpus.age > _OLD_SECONDS else ""

    def _draw_log(self) -> None:
        log = self.host.log
        cells, height = self.logs.room
        first, last = log.span(height)
        title = line(("Logs", "title"), (f" · {log.service}" if log.service else "", "title"))
        if not log.following:
            title = line(*title, (f" [{first}-{last}/{len(log)}]", "accent"))
        if log.pattern:
            title = line(*title, (f" /{log.pattern} {log.found}", "warn"))
        lines = log.lines(cells, height)
        if not lines:
            text = self.host.failure("log") or "no log yet"
            lines = [line((part, "faint")) for part in wrapped(text, cells)]
        self.logs.show(lines, title, message(self.host))

    def _key_row(self, cells: int) -> Line:
        if self.typed is not None:
            return line((" /", "key"), self.typed, ("▏", "key"), ("  Enter searches, Esc ends", "faint"))
        if self._notice:
            return self._notice
        first = [("Esc", "all hosts", False)] if self.fleet else []
        return key_line(cells, read_only=bool(self.host.read_only), job=self.host.job, first=first)

    def on_key(self, event: events.Key) -> None:
        """Handle every key here."""
        event.stop()
        event.prevent_default()
        key = key_of(event)
        self._notice = ()
        if self.typed is not None:
            self._type(key)
        else:
            self._press(key)
        self.repaint()

    def on_paste(self, event: events.Paste) -> None:
        """Search for what is pasted."""
        if self.typed is not None:
            self.typed += " ".join(event.text.split())
            self.repaint()

    def _type(self, key: str) -> None:
        typed = self.typed or ""
        if key == "enter":
            self.typed = None
            self.host.log.search(typed, self.logs.room[1])
        elif key == "escape":
            self.typed = None
        elif key == "backspace":
            self.typed = typed[:-1]
        elif key == "ctrl+u":
            self.typed = ""
        elif len(key) == 1:
            self.typed = typed + key

    def _press(self, key: str) -> None:
        moves = self._moves()
        if key in {"q", "Q"}:
            self.app.exit()
        elif not self._shown:
            return
        elif key in moves:
            moves[key]()
        else:
            self.controls.press(key)

    def _moves(self) -> dict[str, Callable[[], Any]]:
        log, height = self.host.log, self.logs.room[1]
        third = max(1, height // 3)
        return {
            "up": lambda: log.scroll(-1, height),
            "down": lambda: log.scroll(1, height),
            "pageup": lambda: log.scroll(-third, height),
            "pagedown": lambda: log.scroll(third, height),
            "home": lambda: log.top(height),
            "end": log.follow,
            "left": lambda: self._sideways(-_SIDEWAYS),
            "right": lambda: self._sideways(_SIDEWAYS),
            "/": self._search,
            "n": lambda: log.older(height),
            "N": lambda: log.newer(height),
            "l": self.host.next_log,
            "escape": self._back,
        }

    def _search(self) -> None:
        self.typed = ""

    def _sideways(self, cells: int) -> None:
        self.host.log.left = max(0, self.host.log.left + cells)

    def _back(self) -> None:
        if self.host.log.pattern:
            self.host.log.search("", 0)
        elif self.fleet and self.on_top:
            self.dismiss()
