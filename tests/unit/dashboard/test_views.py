from __future__ import annotations

from datetime import UTC

import pytest

from llamarig.dashboard.answers import Event, Offer, Plan
from llamarig.dashboard.feed import Lost, Said
from llamarig.dashboard.machine import Gpus, Machine
from llamarig.dashboard.text import Line, width, words
from llamarig.dashboard.view_cards import card_lines, every_card
from llamarig.dashboard.view_machine import machine_lines
from llamarig.dashboard.view_services import key_line, message, rows, service_lines, state_of
from llamarig.dashboard.view_sheets import (
    clock_time,
    context,
    effect,
    event_details,
    event_line,
    help_lines,
    offer_line,
    outcome_style,
    plan_lines,
)
from tests.unit.dashboard.fakes import (
    GPUS,
    HISTORY,
    JOB,
    MEMORY,
    NOW,
    PLAN,
    SERVICES,
    SYSTEM,
    box,
    card,
    nothing,
    serving,
    status,
)


def said(lines: list[Line]) -> list[str]:
    return [words(text).rstrip() for text in lines]


def plain(text: Line) -> str:
    return " ".join(words(text).split())


def styles(lines: list[Line], part: str) -> set[str]:
    return {style for text in lines for piece, style in text if part in piece}


def gpus(*cards: dict[str, object]) -> Gpus:
    return Gpus.read({"gpus": list(cards)})


def test_a_card_says_all_where_there_is_room() -> None:
    text = said(card_lines(Gpus.read(GPUS), 60, 7))
    assert text[0].startswith("0 RTX 4090")
    assert text[0].endswith("50%  60°C")
    assert text[1].endswith(" 12.0/24.0 GiB  50%")
    assert text[2].startswith("  300/450 W  2500/10501 MHz")
    assert text[2].endswith("chat 11.0")
    assert text[3] == ""
    assert text[4].startswith("1 RTX 5070 Ti")


def test_a_card_says_less_where_there_is_less_room() -> None:
    two = said(card_lines(Gpus.read(GPUS), 42, 4))
    assert [text.split()[0] for text in two] == ["0", "50%", "1", "50%"]
    assert two[0].endswith("12.0/24.0 GiB")
    assert "chat 11.0" in two[1]
    one = said(card_lines(Gpus.read(GPUS), 32, 2))
    assert [text[:2] for text in one] == ["0 ", "1 "]
    assert all("/" in text and text.endswith("50%") for text in one)


@pytest.mark.parametrize(("used", "style"), [(0.69, "ok"), (0.71, "warn"), (0.91, "bad")])
def test_a_card_s_bar_is_coloured_at_70_and_90_percent(used: float, style: str) -> None:
    assert styles(card_lines(gpus(card(used_mib=24576 * used)), 60, 3), "█") == {style}


@pytest.mark.parametrize(("cells", "height"), [(60, 3), (60, 2), (42, 2)])
def test_a_slowed_card_says_so(cells: int, height: int) -> None:
    text = "\n".join(said(card_lines(gpus(card(throttle=["power"])), cells, height)))
    assert "slowed" in text or "▼" in text


def test_more_cards_than_lines_are_counted() -> None:
    text = said(card_lines(gpus(*[card()] * 8), 60, 5))
    assert len(text) == 5
    assert text[-1] == "and 4 cards more: g shows all"
    assert len(every_card(gpus(*[card()] * 8), 60)) >= 8 * 4


def test_in_the_list_of_all_cards_who_holds_what_is_said_once() -> None:
    text = "\n".join(said(every_card(gpus(card(services={"chat": 11264, "embed": 1024})), 76)))
    assert (text.count("chat"), text.count("embed")) == (1, 1)


def test_a_card_that_keeps_silent_shows_no_zero() -> None:
    text = "\n".join(said(card_lines(gpus({"model": "Card"}), 60, 3)))
    assert "0%" not in text
    assert "-/- GiB" in text


def test_services_on_a_card_come_largest_first_and_are_counted() -> None:
    held = {"one": 1024, "two": 8192, "three": 2048}
    wide = said(card_lines(gpus(card(services=held)), 100, 3))[2]
    assert wide.endswith("two 8.0  three 2.0  one 1.0")
    assert said(card_lines(gpus(card(services=held)), 42, 2))[1].endswith("two 8.0 +2")


def test_cards_that_cannot_be_asked_say_why() -> None:
    assert said(card_lines(None, 60, 4)) == ["asking for the cards"]
    assert said(card_lines(None, 60, 4, "NVML is not there")) == ["NVML is not there"]
    assert said(card_lines(Gpus.read({"gpus": []}), 60, 4)) == ["this host has no card"]
    assert said(card_lines(Gpus.read({"gpus": [], "error": "NVML is not there"}), 60, 4)) == ["NVML is not there"]


def system(**changes: object) -> Machine:
    return Machine.read(SYSTEM | changes)


def test_the_system_says_all_where_there_is_room() -> None:
    text = said(machine_lines(system(), 60, 8))
    assert text[0].endswith("25%  load 1.5 1.0 0.5")
    assert text[1].endswith("32.0/64.0 GiB")
    assert text[2].split() == ["model", "20.0", "cache", "8.0", "system", "4.0", "available", "32.0"]
    assert text[3].split() == ["chat", "7.5", "cores", "20.0", "GiB"]
    assert len(text) == 4


def test_the_parts_of_memory_stay_in_a_narrow_panel() -> None:
    assert said(machine_lines(system(), 29, 4))[2] == "model 20  cache 8  system 4"
    busy = said(machine_lines(system(cpu=1.0, load=[14.1, 12.0, 9.9]), 29, 4))[0]
    assert busy.count("█") >= 8
    assert busy.endswith("100%  load 14.1")
    text = said(machine_lines(system(), 21, 2))
    assert text[0].endswith("25%")
    assert text[1].endswith("32.0/64.0")


@pytest.mark.parametrize(("used", "style"), [(50, None), (200, "warn"), (5000, "bad")])
def test_swap_shows_from_100_mib_and_is_red_from_4_gib(used: int, style: str | None) -> None:
    lines = machine_lines(system(swap={"total_mib": 8192, "used_mib": used}), 40, 8)
    assert styles(lines, "swap") == ({"faint"} if style else set())
    if style:
        (row,) = [text for text in lines if words(text).startswith("swap")]
        assert row[-1][1] == style


def test_swap_that_is_bad_stays_where_there_is_little_room() -> None:
    assert said(machine_lines(system(swap={"total_mib": 8192, "used_mib": 5000}), 30, 3))[2].startswith("swap")


@pytest.mark.parametrize(("available", "style"), [(30000, "plain"), (19000, "warn"), (9000, "bad")])
def test_memory_is_coloured_by_what_is_not_available(available: int, style: str) -> None:
    memory = MEMORY | {"available_mib": available}
    assert machine_lines(system(memory=memory), 40, 4)[1][-1][1] == style


def test_memory_without_its_parts_is_shown_all_the_same() -> None:
    text = said(machine_lines(system(memory={"total_mib": 65536, "available_mib": 32768}), 40, 4))
    assert text[1].endswith("32.0/64.0 GiB")


def test_what_serves() -> None:
    one = box()
    one.watch.drain()
    (row,) = said(service_lines(one.watch, 110, 4))
    assert " ".join(row.split()) == "● chat ok at rest 2 h 13 min http://127.0.0.1:8080 API http://127.0.0.1:8080/v1"
    assert words(state_of(one.watch.status)) == "● running  A Model"


def test_columns_stand_under_each_other_and_give_way_together() -> None:
    one = box(Said("status", status(serving("chat", restarts=2), serving("embedding", in_flight=12, pinned=True))))
    one.watch.drain()
    for cells in (66, 76, 96, 116):
        first, second = said(service_lines(one.watch, cells, 4))
        assert first.index("http") == second.index("http")
        assert max(len(first), len(second)) <= cells
    assert "2 restarts" in first
    assert "12 in flight" in second
    assert "pinned" in second


def test_a_host_where_nothing_serves_says_why() -> None:
    for changes, why in (({"stopped": True}, "somebody"), ({"default": "chat"}, "default is chat"), ({}, "m chooses")):
        one = box(Said("status", nothing(**changes)))
        one.watch.drain()
        (row,) = said(service_lines(one.watch, 80, 4))
        assert row.startswith("○ nothing serves")
        assert why in row


def test_a_job_shows_its_phase_with_seconds_and_the_queue() -> None:
    queue = [{"kind": "switch", "service": "tiny", "state": "queued"}, {"kind": "stop", "state": "queued"}]
    one = box(Said("status", status(state="starting", job=JOB, queue=queue)))
    one.watch.drain()
    row = said(service_lines(one.watch, 110, 4))[-1]
    assert row == "→ switch to code  load 28 s  34 % of the weights  then switch to tiny and 1 more"
    assert words(message(one.watch)) == "34 % of the weights"
    assert message(one.watch)[0][1] == "warn"
    assert rows(one.watch) == 2


def test_a_queue_without_a_job_is_shown() -> None:
    one = box(Said("status", status(queue=[{"kind": "reconcile", "state": "queued"}])))
    one.watch.drain()
    assert said(service_lines(one.watch, 80, 4))[-1] == "… waits  then reconcile"


def test_a_service_that_was_given_up_is_named_with_the_reason() -> None:
    one = box(Said("status", status(given_up={"code": {"reason": "it crashed 5 times"}})))
    one.watch.drain()
    assert said(service_lines(one.watch, 80, 4))[-1] == "✗ code was given up: it crashed 5 times"


def test_a_service_that_is_not_well_says_why_and_the_daemon_its_warnings() -> None:
    ill = serving("chat", health="hung", reason="no token for 130 s")
    one = box(Said("status", status(ill, serving("embed", reason="well"), warnings=["the keys cannot be read"])))
    one.watch.drain()
    assert said(service_lines(one.watch, 80, 6))[2:] == ["! chat: no token for 130 s", "! the keys cannot be read"]
    assert rows(one.watch) == 4


def test_what_a_service_holds_may_be_unknown() -> None:
    assert said(card_lines(gpus(card(services={"chat": None})), 60, 3))[2].endswith("chat -")


def test_more_services_than_lines_are_counted() -> None:
    one = box(Said("status", status(*(serving(f"s{number}") for number in range(9)), job=JOB)))
    one.watch.drain()
    text = said(service_lines(one.watch, 80, 4))
    assert len(text) == 4
    assert text[2] == "and 7 lines more: a larger terminal shows all"
    assert text[3].startswith("→ switch to code")


def test_the_last_failure_is_said_until_something_else_begins() -> None:
    one = box(
        Said("status", status(job=JOB)), Said("job", JOB | {"state": "failed", "error": {"message": "no weights"}})
    )
    one.watch.drain()
    assert message(one.watch) == (("switch to code failed: no weights", "bad"),)
    one.say(Said("job", JOB | {"id": "j8", "service": "tiny"}))
    one.watch.drain()
    assert message(one.watch)[0][1] == "warn"


@pytest.mark.parametrize("cells", [60, 80, 120])
def test_the_row_of_keys_fits_and_says_what_may_not_be_done(cells: int) -> None:
    one = box(Said("status", status(job=JOB)))
    one.watch.drain()
    for read_only in (False, True):
        row = key_line(cells, read_only=read_only, job=one.watch.job, first=[("Esc", "all hosts", False)])
        assert width(row) <= cells
        assert ("read only" in words(row)) is read_only
    assert " c cancel" in words(key_line(80, read_only=False, job=one.watch.job))
    assert "cancel" not in words(key_line(80, read_only=False, job=None))


def test_what_the_row_of_keys_has_no_room_for_is_left_to_the_help_word_by_word() -> None:
    assert " g cards" in words(key_line(80, read_only=False, job=None))
    short = words(key_line(60, read_only=False, job=None))
    assert "cards" not in short
    assert short.endswith("? help q leave")


def test_nothing_serves_until_the_one_that_comes_does() -> None:
    one = box(Said("status", nothing(job=JOB, stopped=True)))
    one.watch.drain()
    assert said(service_lines(one.watch, 80, 4))[0] == "○ nothing serves: until code does"


def test_what_a_lost_daemon_said_last_is_not_said_as_if_it_were_so_now() -> None:
    one = box(Said("status", status()), Lost("it does not run"))
    one.watch.drain()
    assert words(message(one.watch)) == ""


def test_contexts_as_people_say_them() -> None:
    assert [context(tokens) for tokens in (262144.0, 1000.0, None, 0.0)] == ["256K", "1000", "-", "-"]


def test_an_offer_has_its_digit_star_speed_and_context() -> None:
    chat, code, *_ = Offer.read_all(SERVICES)
    assert plain(offer_line(chat, 1, 4, 60)) == "1 * chat Chat Model ~120 t/s 256K"
    assert plain(offer_line(code, 10, 4, 60)) == "code Code Model ~33 t/s 128K"


def test_what_a_switch_makes_leave() -> None:
    chat, code, tiny, _ = Offer.read_all(SERVICES)
    assert said(effect(chat, {}, 60))[0] == "it serves already"
    assert said(effect(code, {"chat": 2}, 60)) == ["leaves: chat", "chat has 2 requests in flight"]
    assert said(effect(tiny, {}, 60)) == ["nothing leaves", ""]


def test_a_plan_says_what_leaves_stays_and_is_needed() -> None:
    text = said(plan_lines(Plan.read(PLAN), 60))
    assert text[:3] == ["what leaves chat", "what stays  tiny", "address     http://127.0.0.1:8090"]
    assert text[-2].endswith("20.0/24.0 GiB")
    assert text[-1].endswith("3.0/60.0 GiB")
    plan = PLAN | {"refused": "too large for rtx4090 " * 5, "remedy": "a smaller ctx_size", "memory": None}
    refused = said(plan_lines(Plan.read(plan), 60))
    assert "remedy      a smaller ctx_size" in refused
    assert "refused     too large" in "\n".join(refused)
    assert refused[-1] == "its memory is not predicted"


def test_an_event_says_when_what_how_and_how_long() -> None:
    newest, oldest = Event.read_all(HISTORY)
    assert plain(event_line(newest, 72, UTC)) == "2027-01-15 08:00:00 switch chat → code failed 14 s"
    assert plain(event_line(oldest, 72, UTC)) == "2027-01-15 07:59:10 switch chat succeeded"
    assert said(event_details(newest, 40)) == [
        "why         its weights are not there",
        "asked by    cli",
        "phases      drain 1.50 s  stop 0.25 s",
        "            load 12 s",
        "its log     second",
        "            third",
        "            fourth, which is much longe…",
    ]
    assert said(event_details(oldest, 40)) == ["nothing more is known of it"]


def test_odd_times_are_no_times() -> None:
    assert clock_time(None) == clock_time(9e14) == clock_time(-9e14) == "-" * 19
    assert clock_time(NOW, UTC) == "2027-01-15 08:00:00"


def test_outcomes_have_their_colours() -> None:
    assert [outcome_style(word) for word in ("ok", "refused", "cancelled")] == ["ok", "bad", "warn"]


def test_help_says_why_nothing_may_be_changed() -> None:
    text = "\n".join(said(help_lines(72, read_only="ask the group llamarig", fleet=True, version="1.0")))
    assert "Read only: ask the group llamarig" in text
    assert "Esc" in text
    assert "llamarigd 1.0" in text


def test_every_line_of_help_stands_alone_at_80_columns() -> None:
    assert len(help_lines(72, read_only="", fleet=True, version="")) == 12


def test_a_lost_host_says_nothing_of_a_connection() -> None:
    one = box(Lost("it does not run"))
    one.watch.drain()
    assert one.watch.lost == "it does not run"
