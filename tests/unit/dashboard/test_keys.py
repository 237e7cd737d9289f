"""What every key does, on a terminal that nobody sees."""

from __future__ import annotations

import pytest

from llamarig.dashboard.feed import Lost, Said
from llamarig.errors import BusyError, LlamarigError
from tests.unit.dashboard.fakes import JOB, SERVICES, Terminal, box, nothing, serving, status, watch


def test_q_leaves_and_asks_the_daemon_for_nothing() -> None:
    one = box()

    async def script(terminal: Terminal) -> None:
        await terminal.press("q")

    app = watch(one, script)
    assert app.return_code == 0
    assert one.feed.asked == []
    assert one.feed.stopped


@pytest.mark.parametrize("key", ["ctrl+c", "ctrl+q"])
def test_the_usual_ways_out_lead_out(key: str) -> None:
    one = box()

    async def script(terminal: Terminal) -> None:
        await terminal.press("m", key)
        assert not terminal.app.is_running

    watch(one, script)


def test_the_log_is_moved_by_lines_by_thirds_and_to_both_ends() -> None:
    async def script(terminal: Terminal) -> None:
        assert "[" not in terminal.panel("logs").splitlines()[0]
        height = terminal.host.logs.room[1]
        await terminal.press("up")
        assert f"[{100 - height}-99/100]" in terminal.panel("logs")
        await terminal.press("pageup")
        assert f"-{99 - height // 3}/100]" in terminal.panel("logs")
        await terminal.press("pagedown", "down")
        assert "[" not in terminal.panel("logs").splitlines()[0]
        await terminal.press("home")
        assert f"[1-{height}/100]" in terminal.panel("logs")
        assert "line 1 " in terminal.panel("logs")
        await terminal.press("end")
        assert "line 100" in terminal.panel("logs")

    watch(box(), script)


def test_long_lines_are_moved_sideways() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("right")
        assert "line 100" not in terminal.panel("logs")
        await terminal.press("left", "left")
        assert "line 100" in terminal.panel("logs")

    watch(box(), script)


def test_search_finds_marks_and_ends() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("slash", *"lime", "backspace", "backspace", *"ne 4")
        assert "/line 4" in terminal.panel("keys")
        assert terminal.sheet == ""
        await terminal.press("enter")
        assert "/line 4 11 of 11" in terminal.panel("logs")
        assert "line 49" in terminal.panel("logs")
        await terminal.press("n", "n")
        assert "9 of 11" in terminal.panel("logs")
        await terminal.press("N")
        assert "10 of 11" in terminal.panel("logs")
        await terminal.press("escape")
        assert "/line" not in terminal.panel("logs")
        await terminal.press("slash", "q", "ctrl+u", "x", "escape")
        assert terminal.app.is_running
        assert "m switch" in terminal.panel("keys")

    watch(box(), script)


def test_the_picker_shows_what_there_is_and_what_leaves() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("m")
        assert "1 * chat" in terminal.sheet
        assert "~120 t/s    256K" in terminal.sheet
        assert "it serves already" in terminal.sheet
        assert "bench-chat" not in terminal.sheet
        await terminal.press("down")
        assert "> 2   code" in terminal.sheet
        assert "leaves: chat" in terminal.sheet
        assert "2 requests in flight" in terminal.sheet
        await terminal.press("b")
        assert "bench-chat" in terminal.sheet
        assert "code " not in terminal.sheet
        await terminal.press("r")
        assert "code " in terminal.sheet
        await terminal.press("escape")
        assert terminal.sheet == ""

    one = box(Said("status", status(serving("chat", in_flight=2))))
    watch(one, script)
    assert one.feed.asked == []


@pytest.mark.parametrize("keys", [("m", "3"), ("m", "down", "down", "enter"), ("m", "end", "enter")])
def test_a_service_is_chosen_with_arrows_or_its_digit(keys: tuple[str, ...]) -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press(*keys)
        assert terminal.sheet == ""

    one = box()
    watch(one, script)
    assert one.feed.asked == [("/switch", {"model": "tiny"})]


def test_a_switch_that_makes_an_idle_service_leave_needs_no_question() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("m", "2")

    one = box()
    watch(one, script)
    assert one.feed.asked == [("/switch", {"model": "code"})]


def test_requests_in_flight_are_asked_about_before_they_could_be_cut() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("m", "2")
        assert "Switch to code?" in terminal.sheet
        assert "chat has 1 request in flight" in terminal.sheet
        await terminal.press("n")
        assert terminal.sheet == ""
        assert one.feed.asked == []
        await terminal.press("m", "2", "y")
        assert terminal.sheet == ""

    one = box(Said("status", status(serving("chat", in_flight=1))))
    watch(one, script)
    assert one.feed.asked == [("/switch", {"model": "code"})]


def test_what_serves_already_is_not_asked_for() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("m", "enter")
        assert "chat serves already" in terminal.panel("keys")

    one = box()
    watch(one, script)
    assert one.feed.asked == []


def test_a_switch_behind_another_is_queued_on_demand() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("m", "3")
        assert "switch to code is under way" in terminal.sheet
        await terminal.press("y")

    one = box(Said("status", status(job=JOB)))
    watch(one, script)
    assert one.feed.asked == [("/switch", {"model": "tiny", "queue": True})]


def test_a_refusal_is_shown_with_its_remedy() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("m", "3")
        assert "chat must serve 5 min first" in terminal.sheet
        assert "Remedy: say it again with --now" in terminal.sheet
        await terminal.press("escape")
        assert terminal.sheet == ""

    watch(box(answers={"/switch": BusyError("chat must serve 5 min first", "say it again with --now")}), script)


def test_services_that_cannot_be_had_say_why() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("m")
        assert "no such thing" in terminal.sheet

    watch(box(answers={"/services": LlamarigError("no such thing")}), script)


def test_a_host_without_services_or_with_bench_profiles_alone() -> None:
    async def nothing_there(terminal: Terminal) -> None:
        await terminal.press("m", "enter", "5", "down", "b", "p")
        assert "this host has no service" in terminal.sheet

    async def bench_alone(terminal: Terminal) -> None:
        await terminal.press("m", "b", "r")
        assert "bench-chat" in terminal.sheet

    watch(box(answers={"/services": {"services": []}}), nothing_there)
    watch(box(answers={"/services": {"services": SERVICES["services"][3:]}}), bench_alone)


def test_more_services_than_lines_can_be_scrolled() -> None:
    many = {"services": [{"service": f"service-{number}"} for number in range(40)]}

    async def script(terminal: Terminal) -> None:
        await terminal.press("m")
        assert "more below" in terminal.sheet
        await terminal.press("end")
        assert "service-39" in terminal.sheet
        assert "Enter" in terminal.sheet
        await terminal.press("pageup", "home", "enter")

    one = box(answers={"/services": many})
    watch(one, script)
    assert one.feed.asked == [("/switch", {"model": "service-0"})]


def test_a_plan_is_shown_from_the_picker_and_by_its_own_key() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("m", "down", "p")
        assert "Plan of code" in terminal.sheet
        assert "20.0/24.0 GiB" in terminal.sheet
        await terminal.press("escape")
        assert "Switch to which service?" in terminal.sheet
        await terminal.press("escape", "p")
        assert "The plan of which service?" in terminal.sheet
        await terminal.press("2")
        assert "what leaves chat" in terminal.sheet
        await terminal.press("q")
        assert terminal.sheet == ""

    one = box()
    watch(one, script)
    assert one.feed.asked == []


def test_stopping_asks_first() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("s")
        assert "Stop chat?" in terminal.sheet
        assert "chat has 3 requests in flight" in terminal.sheet
        await terminal.press("escape")
        assert one.feed.asked == []
        await terminal.press("s", "y")

    one = box(Said("status", status(serving("chat", in_flight=3))))
    watch(one, script)
    assert one.feed.asked == [("/stop", {"model": "chat"})]


@pytest.mark.parametrize(("digit", "body"), [("2", {"model": "embed"}), ("3", {})])
def test_of_several_services_one_is_stopped_or_all(digit: str, body: dict[str, str]) -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("s")
        assert "all of them" in terminal.sheet
        await terminal.press(digit)
        assert "Stop embed?" in terminal.sheet or "Stop 2 services?" in terminal.sheet
        await terminal.press("y")

    one = box(Said("status", status(serving("chat"), serving("embed"))))
    watch(one, script)
    assert one.feed.asked == [("/stop", body)]


def test_where_nothing_serves_there_is_nothing_to_stop_or_to_cancel() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("s")
        assert "nothing serves" in terminal.panel("keys")
        await terminal.press("c")
        assert "no job runs" in terminal.panel("keys")
        await terminal.press("x")
        assert "m switch" in terminal.panel("keys")

    watch(box(Said("status", nothing())), script)


def test_a_job_is_cancelled_after_a_question() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("c")
        assert "Cancel the switch to code?" in terminal.sheet
        await terminal.press("n", "c", "y")

    one = box(Said("status", status(job=JOB)))
    watch(one, script)
    assert one.feed.asked == [("/jobs/j7", None)]


def test_history_shows_phases_and_reasons_of_what_is_marked() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("h")
        assert "chat → code" in terminal.sheet
        assert "its weights are not there" in terminal.sheet
        assert "drain 1.50 s" in terminal.sheet
        await terminal.press("down", "enter")
        assert "nothing more is known of it" in terminal.sheet

    watch(box(), script)


def test_an_empty_history_says_so() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("h", "down", "enter", "1")
        assert "nothing has happened yet" in terminal.sheet

    watch(box(answers={"/history": {"events": []}}), script)


def test_cards_in_full_and_help() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("g")
        assert "2500/10501 MHz" in terminal.sheet
        assert "chat holds 11.0 GiB" in terminal.sheet
        await terminal.press("escape", "question_mark")
        assert "switch to another service" in terminal.sheet
        assert "llamarigd 9.8" in terminal.sheet

    watch(box(), script)


def test_the_log_of_the_next_service() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press("l")
        await terminal.press("l")

    one = box(Said("status", status(serving("chat"), serving("embed"))))
    watch(one, script)
    assert one.feed.followed[:3] == ["chat", "chat", "embed"] or one.feed.followed[:2] == ["chat", "embed"]


def test_a_switch_leaves_the_log_and_begins_the_other_s() -> None:
    async def script(terminal: Terminal) -> None:
        one.say(Said("status", status(serving("code"), model="code")))
        await terminal.draw()
        assert one.feed.followed == ["chat", "code"]

    one = box()
    watch(one, script)


@pytest.mark.parametrize("key", ["m", "s", "c"])
def test_what_changes_something_is_refused_where_one_may_only_look(key: str) -> None:
    async def script(terminal: Terminal) -> None:
        assert "read only: no m s c" in terminal.panel("keys")
        assert "m switch" not in terminal.panel("keys")
        await terminal.press(key)
        assert terminal.sheet == ""
        assert f"{key}: read only, join the group" in terminal.panel("keys")
        await terminal.press("p", "2")
        assert "Plan of code" in terminal.sheet
        await terminal.press("escape", "question_mark")
        assert "Read only: join the group" in terminal.sheet

    one = box(Said("status", status(job=JOB)), read_only="join the group")
    watch(one, script)
    assert one.feed.asked == []


@pytest.mark.parametrize("key", ["m", "p", "h"])
def test_nothing_is_asked_of_a_daemon_that_is_lost(key: str) -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.press(key)
        assert terminal.sheet == ""
        assert "not now: it does not run" in terminal.panel("keys")

    watch(box(Lost("it does not run")), script)


def test_an_answer_that_comes_after_something_else_was_opened_opens_nothing() -> None:
    async def script(terminal: Terminal) -> None:
        await terminal.pilot.press("m", "question_mark")
        await terminal.draw()
        assert "Keys" in terminal.sheet
        await terminal.press("escape")
        assert terminal.sheet == ""

    watch(box(), script)


def test_a_word_about_a_key_goes_away_by_itself() -> None:
    async def script(terminal: Terminal) -> None:
        terminal.host.notice("something")
        assert "something" in terminal.panel("keys")
        terminal.host.notice("something else")
        terminal.host._unsay()
        assert "m switch" in terminal.panel("keys")

    watch(box(), script)
