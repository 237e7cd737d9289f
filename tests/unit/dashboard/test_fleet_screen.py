from __future__ import annotations

import threading

import pytest

from llamarig.dashboard.app import Dashboard
from llamarig.dashboard.client import Link
from llamarig.dashboard.feed import Feed, Lost, Said, Up
from llamarig.dashboard.watch import Watch
from llamarig.errors import LlamarigError
from tests.unit.dashboard.fakes import GPUS, JOB, Box, Daemon, Scripted, Terminal, box, nothing, serving, status, watch


def hosts() -> list[Box]:
    serves = Box(
        Scripted(Said("status", status(serving("chat", health="hung"))), Up(""), Said("gpus", GPUS)), name="a01"
    )
    moves = Box(
        Scripted(Said("status", nothing(state="starting", job=JOB)), Up(""), Said("gpus", {"gpus": []})), name="a02"
    )
    gone = Box(Scripted(Lost("ssh: connect to host a03: No route to host")), name="a03")
    waits = Box(Scripted(), name="a04")
    return [serves, moves, gone, waits]


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
def test_every_host_has_a_row_with_what_is_known_of_it(size: tuple[int, int]) -> None:
    async def script(terminal: Terminal) -> None:
        head, columns, first, second, third, fourth, *_ = terminal.screen
        assert "Hosts · 4" in head
        assert "1 serving · 1 switching · 1 host lost" in head
        assert "1 connecting" in head or size[0] < 80
        assert columns.split()[1:-1] == ["host", "serves", "health", "state", "VRAM"]
        assert first.split()[1:6] == [">", "a01", "chat", "hung", "running"]
        assert "27.0/40.0 GiB" in first
        assert second.split()[1:6] == ["a02", "→", "code", "-", "starting"]
        assert "no card" in second
        assert "not reached: ssh: connect to host" in third
        assert "connecting" in fourth

    watch(hosts(), script, size=size, fleet=True)


def test_a_host_that_was_seen_and_is_lost_says_since_when() -> None:
    async def script(terminal: Terminal) -> None:
        boxes[0].clock.now += 65
        boxes[0].say(Lost("it does not run"))
        await terminal.draw()
        assert "lost 1 min: it does not run" in terminal.screen[2]

    boxes = hosts()
    watch(boxes, script, fleet=True)


def test_enter_opens_a_host_and_escape_comes_back() -> None:
    async def script(terminal: Terminal) -> None:
        assert [one.feed.looked for one in boxes] == [("gpus",)] * 4
        await terminal.press("down", "up", "enter")
        assert "Services · a01" in "".join(terminal.screen)
        assert [one.feed.looked for one in boxes] == [("gpus", "system"), (), (), ()]
        assert boxes[0].feed.followed == ["chat"]
        assert "Esc all hosts" in terminal.panel("keys")
        await terminal.press("m", "escape")
        await terminal.press("question_mark")
        assert "Esc" in terminal.sheet
        await terminal.press("escape", "escape")
        assert "Hosts · 4" in terminal.screen[0]
        assert [one.feed.looked for one in boxes] == [("gpus",)] * 4
        assert boxes[0].feed.followed[-1] == ""
        await terminal.press("q")
        assert not terminal.app.is_running

    boxes = hosts()
    watch(boxes, script, fleet=True)
    assert all(one.feed.stopped for one in boxes)


def test_more_hosts_than_lines_can_be_scrolled_and_help_says_how() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("end")
        assert "> gpu39" in "".join(terminal.screen)
        await terminal.press("pageup", "pagedown", "home")
        assert "> gpu00" in "".join(terminal.screen)
        await terminal.press("question_mark")
        assert "Esc comes back" in terminal.sheet
        await terminal.press("q")
        assert terminal.app.is_running

    boxes = [box() for _ in range(40)]
    for number, one in enumerate(boxes):
        one.watch.name = f"gpu{number:02}"
    watch(boxes, script, fleet=True)


def test_a_fleet_in_a_terminal_that_is_too_small() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.resize(40, 10)
        assert "too small" in "".join(terminal.screen)
        assert boxes[0].feed.looked == ()
        await terminal.press("enter", "question_mark", "down")
        assert terminal.sheet == ""
        await terminal.resize(80, 24)
        assert "Hosts" in terminal.screen[0]

    boxes = hosts()
    watch(boxes, script, fleet=True)


def test_a_fleet_without_hosts() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("enter", "down", "end")
        assert "Hosts · 0" in terminal.screen[0]

    watch([], script, fleet=True)


def test_twenty_hosts_are_reached_side_by_side() -> None:
    """Every way waits until all of them are waited for: one after the other would never come to its end."""
    together = threading.Barrier(20)

    def connect() -> Link:
        together.wait(timeout=30)
        raise LlamarigError("reached together")

    feeds = [Feed(connect) for _ in range(20)]
    woken = threading.Semaphore(0)
    for feed in feeds:
        feed.start(woken.release)
    for _ in feeds:
        assert woken.acquire(timeout=30)
    for feed in feeds:
        feed.stop()
    assert {message for feed in feeds for message in feed.drain() if isinstance(message, Lost)} == {
        Lost("reached together")
    }


def test_real_feeds_wake_the_screen_from_their_threads() -> None:
    daemon = Daemon()

    async def script(terminal: Terminal) -> None:
        for _ in range(2000):
            if "running" in "".join(terminal.screen):
                break
            await terminal.pilot.pause(0.01)
        assert "chat" in terminal.screen[2]
        await terminal.press("q")

    one = Box(Scripted())
    one.watch = Watch("a01", Feed(daemon.connect))
    app = watch(one, script, fleet=True)
    assert isinstance(app, Dashboard)
    daemon.happened.put(None)
