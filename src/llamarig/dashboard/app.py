"""The dashboard as a program: one host, or all of an inventory. A client of the daemon like any other."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from rich.console import Console
from textual.app import App
from textual.binding import Binding
from textual.message import Message

from llamarig.dashboard.client import Client, Host, Link
from llamarig.dashboard.feed import Feed
from llamarig.dashboard.fleet_screen import FleetScreen
from llamarig.dashboard.host_screen import HostScreen
from llamarig.dashboard.palette import FEW_THEME, THEME, few_colours
from llamarig.dashboard.sheet import Sheet
from llamarig.dashboard.watch import Watch

# A log that pours does not make the terminal pour.
_DRAW_SECONDS: Final = 0.1
_TICK_SECONDS: Final = 1.0


class Woken(Message):
    """There is something new of some host."""


class Dashboard(App[None], inherit_bindings=False):
    """Draws what the watches know.

    Args:
        watches: the hosts; of one that is not a fleet, the first is shown.
        fleet: whether they are shown as a table first.
        few: whether to use the terminal's own sixteen colours; None to ask the terminal.

    """

    TITLE = "llamarig"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [Binding("ctrl+c,ctrl+q", "quit", show=False, priority=True)]  # noqa: RUF012  textual's
    CSS = """
    Screen { layout: vertical; overflow: hidden; }
    #middle { width: 100%; }
    """

    def __init__(self, watches: Sequence[Watch], *, fleet: bool = False, few: bool | None = None) -> None:
        self._few = few_colours(Console(force_terminal=True).color_system) if few is None else few
        # Said before textual chooses how it leaves colours out where NO_COLOR asks for that.
        super().__init__(ansi_color=True if self._few else None)
        self.watches = watches
        self.fleet = fleet
        self._drawn = 0.0
        self._due = False

    def on_mount(self) -> None:
        """Begin to follow every host."""
        self.register_theme(THEME)
        self.theme = FEW_THEME if self._few else THEME.name
        if self.fleet:
            self.push_screen(FleetScreen(self.watches, few=self._few))
        else:
            self.push_screen(HostScreen(self.watches[0], few=self._few))
        for watch in self.watches:
            watch.feed.start(self.wake)
        self.set_interval(_TICK_SECONDS, self.draw)

    def on_unmount(self) -> None:
        """Follow nothing any more."""
        for watch in self.watches:
            watch.feed.stop()

    def wake(self) -> None:
        """Have what came drawn soon; called from any thread."""
        # The loop may be closed already, by a user who left.
        with suppress(RuntimeError):
            self.post_message(Woken())

    def on_woken(self) -> None:
        """Draw what came, at once unless something was drawn a moment ago."""
        wait = self._drawn + _DRAW_SECONDS - time.monotonic()
        if wait <= 0:
            self.draw()
        elif not self._due:
            self._due = True
            self.set_timer(wait, self.draw)

    def draw(self) -> None:
        """Take in what came of every host, and draw what changed."""
        self._drawn, self._due = time.monotonic(), False
        for watch in self.watches:
            watch.drain()
        for screen in self.screen_stack:
            if isinstance(screen, FleetScreen | HostScreen | Sheet) and screen.is_mounted:
                screen.repaint()


def run(client: Client, *, host: str = "") -> None:
    """Show the dashboard of the host that a client reaches, until the user leaves.

    Where the client only looks nothing can be changed from it, and it says so.

    Args:
        client: of the management API.
        host: the name to show; without one, the name of this machine.

    """

    def connect() -> Link:
        return Link(client, client.only_looks())

    _show([Host(host or platform.node() or "this host", connect)], fleet=False)


def run_fleet(hosts: Sequence[Host]) -> None:
    """Show all hosts in a table, and the dashboard of each on demand, until the user leaves.

    Args:
        hosts: their names, and how each is reached; they are reached side by side.

    """
    _show(hosts, fleet=True)


def _show(hosts: Sequence[Host], *, fleet: bool) -> None:
    watches = [Watch(host.name, Feed(host.connect)) for host in hosts]
    app: App[Any] = Dashboard(watches, fleet=fleet)
    # Without the mouse a terminal selects and copies text as it always does.
    app.run(mouse=False)
