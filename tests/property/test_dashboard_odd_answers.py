"""Whatever a daemon answers, the dashboard draws it in its place and goes on."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llamarig.dashboard.answers import Event, Offer, Plan
from llamarig.dashboard.app import Dashboard
from llamarig.dashboard.feed import LogBegun, Logged, Lost, Message, Said, Unsaid, Up
from llamarig.dashboard.heights import heights
from llamarig.dashboard.text import width
from llamarig.dashboard.view_cards import card_lines, every_card
from llamarig.dashboard.view_fleet import head_line, host_line, summary
from llamarig.dashboard.view_machine import machine_lines
from llamarig.dashboard.view_services import key_line, message, rows, service_lines, state_of
from llamarig.dashboard.view_sheets import effect, event_details, event_line, offer_line, plan_lines
from tests.unit.dashboard.fakes import (
    GPUS,
    HISTORY,
    JOB,
    PLAN,
    SERVICES,
    SYSTEM,
    Box,
    Scripted,
    Terminal,
    serving,
    status,
)

# What JSON can hold, the oddest numbers and letters among it.
ODD = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=20)
ODD |= st.sampled_from(["\ud800", "\x1b[2J", "日本語" * 9, "\u202e", "a" * 5000, "e\u0301", "\u200b", "👩\u200d💻"])
JSON = st.recursive(
    ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FULL = status(
    serving("chat", in_flight=2, restarts=1, pinned=True),
    job=JOB,
    queue=[JOB],
    given_up={"x": {"time": 1, "reason": "y"}},
)


@st.composite
def spoiled(draw: st.DrawFn, answer: Any) -> Any:
    """A right answer in which some parts are something else, or are not there."""
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON)
    if isinstance(answer, dict):
        kept = {key: draw(spoiled(value)) for key, value in answer.items() if draw(st.integers(0, 9))}
        return kept | draw(st.dictionaries(st.sampled_from([*answer, "more"]), JSON, max_size=1))
    if isinstance(answer, list):
        return [draw(spoiled(value)) for value in answer] + draw(st.lists(JSON, max_size=1))
    return answer


SAID = st.one_of(
    spoiled(FULL).map(lambda value: Said("status", value)),
    spoiled(JOB).map(lambda value: Said("job", value)),
    spoiled(GPUS).map(lambda value: Said("gpus", value)),
    spoiled(SYSTEM).map(lambda value: Said("system", value)),
    st.tuples(st.sampled_from(["status", "job", "gpus", "system", "history", "?"]), JSON).map(lambda pair: Said(*pair)),
    st.text().map(Lost),
    st.text().map(Up),
    st.tuples(st.sampled_from(["log", "gpus"]), st.text()).map(lambda pair: Unsaid(*pair)),
    st.text().map(LogBegun),
    st.tuples(st.sampled_from(["chat", ""]), st.text()).map(lambda pair: Logged(*pair)),
)
SIZES = st.tuples(st.integers(17, 130), st.integers(1, 12))


@settings(max_examples=300)
@given(st.lists(SAID, max_size=8), SIZES)
def test_every_view_draws_what_it_is_given_in_the_room_that_it_has(said: list[Message], size: tuple[int, int]) -> None:
    one = Box(Scripted(*said))
    one.watch.follow_log()
    one.watch.drain()
    one.clock.now += 100
    cells, height = size
    watch = one.watch
    panels = [
        card_lines(watch.gpus, cells, height, watch.failure("gpus")),
        machine_lines(watch.machine, cells, height, watch.failure("system")),
        service_lines(watch, cells, height),
        watch.log.lines(cells, height),
    ]
    assert all(len(lines) <= height for lines in panels)
    assert all(width(text) <= cells for lines in panels[:3] for text in lines)
    every_card(watch.gpus, cells)
    assert width(key_line(cells, read_only=bool(watch.read_only), job=watch.job)) <= cells
    assert (message(watch), state_of(watch.status), summary([watch]), rows(watch)) is not None
    assert width(head_line([watch], 60 + cells)) == 60 + cells
    assert width(host_line(watch, [watch], 60 + cells, chosen=True)) == 60 + cells
    heights(20 + height, len(watch.gpus.cards) if watch.gpus else 1, rows(watch))


@settings(max_examples=200)
@given(spoiled(SERVICES), spoiled(PLAN), spoiled(HISTORY), st.integers(1, 130))
def test_every_sheet_draws_what_it_is_given(services: Any, plan: Any, history: Any, cells: int) -> None:
    for number, offer in enumerate(Offer.read_all(services)):
        assert width(offer_line(offer, number, 10, cells)) == cells
        assert all(width(text) <= cells + 20 for text in effect(offer, {}, cells))
    assert plan_lines(Plan.read(plan), cells)
    for event in Event.read_all(history):
        assert width(event_line(event, cells)) == cells
        assert event_details(event, cells)


# A terminal for each try is slow: what fails is shown as it was found.
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], phases=[Phase.generate])
@given(
    st.lists(SAID, max_size=6),
    spoiled(SERVICES),
    spoiled(PLAN),
    spoiled(HISTORY),
    st.lists(
        st.sampled_from([*"mscphgl?nNbry123", "up", "home", "end", "enter", "escape", "slash", "right"]), max_size=10
    ),
    st.sampled_from([(60, 20), (80, 24), (120, 40), (40, 10)]),
    st.booleans(),
)
def test_the_screen_stays_whatever_is_said_and_pressed(
    said: list[Message], services: Any, plan: Any, history: Any, keys: list[str], size: tuple[int, int], fleet: bool
) -> None:
    answers = {"/services": services, "/plan/code": plan, "/history": history}
    one = Box(Scripted(Said("status", FULL), Up(""), *said, answers=answers))
    app = Dashboard([one.watch], fleet=fleet, few=False)

    async def use() -> None:
        async with app.run_test(size=size) as pilot:
            terminal = Terminal(app, pilot)
            await terminal.draw()
            for key in keys:
                await terminal.press(key)
                one.say(*said)
            await terminal.draw()
            assert app.screen._compositor.render_strips()

    asyncio.run(use())
    assert app.return_code != 1
