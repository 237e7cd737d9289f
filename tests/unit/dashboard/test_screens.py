"""The dashboard in terminals of all sizes, with a daemon that goes and comes."""

from __future__ import annotations

import pytest
from textual import events

from llamarig.dashboard.feed import LogBegun, Lost, Said, Unsaid, Up
from tests.unit.dashboard.fakes import JOB, Box, Scripted, Terminal, box, card, serving, status, watch


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (100, 30), (120, 40), (240, 70)])
@pytest.mark.parametrize("few", [False, True])
def test_every_panel_has_its_place_and_nothing_is_cut(size: tuple[int, int], few: bool) -> None:
    async def script(terminal: Terminal) -> None:
        lines = terminal.screen
        assert lines[0].startswith("╭─ Logs · chat ─")
        assert lines[0].endswith("─╮")
        assert lines[-1].startswith(" m switch")
        middle = next(text for text in lines if "GPUs" in text)
        assert "System" in middle
        assert any(text.startswith("╭─ Services · gpu01 ") and "● running" in text for text in lines)
        assert sum(text.count("╭") for text in lines) == sum(text.count("╯") for text in lines) == 4
        assert "line 100" in "".join(lines)
        logs = next(number for number, text in enumerate(lines) if text.startswith("╰")) + 1
        assert logs >= round(size[1] * 0.55)
        assert "12.0/24.0" in "".join(lines)

    watch(box(), script, size=size, few=few)


@pytest.mark.parametrize("size", [(59, 20), (60, 19), (40, 10), (10, 3), (1, 1)])
def test_a_terminal_that_is_too_small_says_so_and_can_be_left(size: tuple[int, int]) -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.resize(*size)
        assert "small" in "".join(terminal.screen) or size[0] < 40
        assert "Logs" not in "".join(terminal.screen)
        assert list(one.feed.looked) == []
        await terminal.press("m", "s", "up", "slash")
        assert terminal.sheet == ""
        await terminal.resize(80, 24)
        assert "Logs · chat" in terminal.screen[0]
        assert list(one.feed.looked) == ["gpus", "system"]
        await terminal.resize(*size)
        await terminal.press("q")
        assert not terminal.app.is_running

    one = box()
    watch(one, script)


@pytest.mark.parametrize("key", ["m", "s", "h", "p", "question_mark", "g"])
def test_sheets_stay_within_a_terminal_that_becomes_small(key: str) -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press(key)
        for size in ((60, 20), (40, 10), (8, 3), (120, 40)):
            await terminal.resize(*size)
            assert terminal.screen
        assert terminal.sheet
        await terminal.press("escape")

    watch(box(), script)


def test_the_loss_of_the_daemon_is_a_banner_and_old_values_are_grey() -> None:
    async def script(terminal: Terminal) -> None:
        one.clock.now += 7
        one.say(Lost("llamarigd does not answer: it does not run"))
        await terminal.draw()
        banner = terminal.screen[0]
        assert banner.startswith(" llamarigd does not answer: it does not run; last heard 7 s ago; trying again")
        assert "Logs" in terminal.screen[1]
        assert "7 s old" in terminal.panel("cards")
        assert "7 s old" in terminal.panel("services")
        styles = {style for row in terminal.host.cards._rows[1:-1] for _, style in row}
        assert styles <= {"faint", "frame", "plain"}
        one.clock.now += 3
        await terminal.draw()
        assert "10 s old" in terminal.panel("machine")
        one.say(Said("status", status()), Up(""), LogBegun("chat"))
        await terminal.draw()
        assert "Logs" in terminal.screen[0]
        assert "old" not in terminal.panel("services")

    one = box()
    watch(one, script)


def test_a_daemon_that_never_answered() -> None:
    async def script(terminal: Terminal) -> None:
        assert "waiting for the daemon" in terminal.panel("services")
        one.say(Lost("it does not run"))
        await terminal.draw()
        assert terminal.screen[0].startswith(" it does not run; trying again")
        await terminal.press("s", "c", "h", "g", "escape", "l", "n", "home", "question_mark", "escape")

    one = Box(Scripted())
    watch(one, script)


def test_a_log_that_cannot_be_had_says_why() -> None:
    async def script(terminal: Terminal) -> None:
        assert "no log yet" in terminal.panel("logs")
        one.say(Unsaid("log", "chat never ran"))
        await terminal.draw()
        assert "chat never ran" in terminal.panel("logs")

    one = Box(Scripted(Said("status", status()), Up("")))
    watch(one, script)


def test_a_switch_is_seen_from_its_begin_to_its_end() -> None:
    async def script(terminal: Terminal) -> None:
        one.say(Said("status", status(state="starting", job=JOB)))
        await terminal.draw()
        assert "→ switch to code  load 28 s" in terminal.panel("services")
        assert "34 % of the weights" in terminal.screen[0]
        assert "c cancel" in terminal.panel("keys")
        one.clock.now += 2
        await terminal.draw()
        assert "load 30 s" in terminal.panel("services")
        one.say(Said("job", JOB | {"state": "failed", "error": {"message": "out of memory"}}), Said("status", status()))
        await terminal.draw()
        assert "switch to code failed: out of memory" in terminal.screen[0]

    one = box()
    watch(one, script)


def test_many_services_get_more_rows_and_many_cards_are_counted() -> None:
    async def script(terminal: Terminal) -> None:
        assert terminal.panel("services").count("●") == 4  # three services and the state
        assert "more: g shows all" in terminal.panel("cards")

    services = [serving(f"s{number}") for number in range(3)]
    one = box(Said("status", status(*services)), Said("gpus", {"gpus": [card()] * 8}))
    watch(one, script)


def test_cards_that_the_daemon_waits_for_are_old_and_one_that_is_gone_is_named() -> None:
    async def script(terminal: Terminal) -> None:
        assert "card 1: it is lost" in terminal.panel("cards")
        one.say(Said("gpus", {"gpus": [card()], "age_seconds": 42.0}))
        await terminal.draw()
        assert "42 s old" in terminal.panel("cards")

    one = box(Said("gpus", {"gpus": [card()], "age_seconds": 0.5, "error": "card 1: it is lost"}))
    watch(one, script)


def test_only_what_changed_is_drawn_again() -> None:
    async def script(terminal: Terminal) -> None:
        drawn: list[object] = []
        for panel in (terminal.host.logs, terminal.host.cards, terminal.host.machine, terminal.host.keys):
            panel.refresh = lambda *regions, **_: drawn.extend(regions)  # type: ignore[method-assign, assignment]
        one.say(Said("status", status()), Said("gpus", {"gpus": [card(), card(temperature_c=61)]}))
        await terminal.draw()
        assert 0 < len(drawn) <= 5

    one = box(Said("gpus", {"gpus": [card(), card()]}))
    watch(one, script)


@pytest.mark.parametrize("colourless", [False, True])
def test_a_terminal_of_few_colours_gets_only_its_own(colourless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if colourless:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "linux")
    monkeypatch.delenv("COLORTERM", raising=False)

    async def script(terminal: Terminal) -> None:
        for key in ("m", "escape", "slash"):
            await terminal.press(key)
            segments = [segment for strip in terminal.app.screen._compositor.render_strips() for segment in strip]
            styles = [segment.style for segment in segments if segment.style is not None]
            colours = [colour for style in styles for colour in (style.color, style.bgcolor) if colour is not None]
            assert all(colour.is_default or (colour.number or 99) < 16 for colour in colours)
            assert not colourless or all(colour.is_default for colour in colours)

    watch(box(), script, few=None)


def test_pasted_text_is_searched_for() -> None:
    async def script(terminal: Terminal) -> None:
        terminal.host.on_paste(events.Paste("ignored"))
        await terminal.press("slash")
        terminal.host.on_paste(events.Paste("line\n77"))
        await terminal.press("enter")
        assert "/line 77 1 of 1" in terminal.panel("logs")

    watch(box(), script)
