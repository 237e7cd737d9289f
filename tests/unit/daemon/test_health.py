from __future__ import annotations

import itertools

import pytest

from llamarig.config.policy import Policy
from llamarig.daemon.health import Action, Limits, bounds, pause
from llamarig.daemon.sights import Health, Lost, Proof, Sight
from llamarig.runtime.systemd import UnitState
from tests.support import make_spec
from tests.unit.daemon.looking import IDLE, LIMITS, UP, Watch, reads, restarted, serving, waiting, writes

HALF_HOUR = 360  # looks of five seconds
NEW = (202, 900.0)


# ---- what is left alone ----


def test_a_service_that_rests_is_well_and_never_asked_for_a_token() -> None:
    watch = serving()
    for _ in range(HALF_HOUR):
        assert watch.see().health is Health.OK
    assert watch.actions == []


@pytest.mark.parametrize("gap", [1, 5, 11])
def test_a_server_that_gives_a_token_now_and_then_is_never_hung(gap: int) -> None:
    watch = serving()
    for look in range(HALF_HOUR):
        assert watch.see(slots=writes(1 + look // gap), works=False).health is Health.OK
    assert watch.actions == []


def test_a_prompt_that_takes_half_an_hour_is_work() -> None:
    watch = serving()
    for look in range(HALF_HOUR):
        assert watch.see(slots=reads(512 * (look // 10)), works=True).health is Health.OK


def test_a_batch_that_takes_nine_times_as_long_as_a_server_may_hang_is_work_while_it_computes() -> None:
    watch = serving()
    for _ in range(int(9 * LIMITS.hung_seconds / 5)):
        assert watch.see(slots=reads(0), works=True).health is Health.OK
    assert watch.see(slots=writes(1)).health is Health.OK
    assert watch.record.stalled == 0


def test_an_older_engine_that_answers_nothing_in_the_middle_of_a_batch_is_at_work() -> None:
    watch = serving()
    for _ in range(int(9 * LIMITS.hung_seconds / 5)):
        assert watch.see(slots=None, works=True).health is Health.OK


def test_slow_tokens_are_no_late_tokens_once_they_were_seen_to_be_slow() -> None:
    watch = serving()
    for token in range(1, 6):
        for _ in range(4):  # twenty seconds for each
            watch.see(slots=writes(token), works=True)
    for _ in range(20):
        assert watch.see(slots=writes(5), works=True).health is Health.OK


def test_a_new_request_is_a_sign_of_life_even_where_its_figures_are_smaller() -> None:
    watch = serving()
    watch.see(slots=writes(900))
    for _ in range(HALF_HOUR):
        watch.see(slots=writes(900), works=True)
        assert watch.see(slots=reads(10), works=True).health is Health.OK


def test_time_in_which_nobody_looked_does_not_count() -> None:
    watch = serving()
    watch.see(slots=writes(5))
    assert watch.see(3600, slots=writes(5)).health is Health.OK
    assert watch.see(slots=writes(6)).health is Health.OK


def test_a_server_that_does_not_tell_its_slots_is_not_judged_by_them() -> None:
    watch = serving()
    for _ in range(HALF_HOUR):
        assert watch.see(slots=()).health is Health.OK


# ---- hung ----


def test_a_deadlock_is_found_though_health_says_ok() -> None:
    watch = serving()
    assert watch.see_until(Health.HUNG, LIMITS.hung_seconds + 5, slots=None) >= LIMITS.hung_seconds
    assert "its main loop has not answered for" in watch.verdicts[-1].reason
    assert "while /health says ok; its process does nothing" in watch.verdicts[-1].reason
    assert watch.actions == [Action.RESTART]


def test_a_stopped_process_is_found() -> None:
    watch = serving()
    watch.see_until(Health.HUNG, LIMITS.hung_seconds + 5, health="down", slots=None)
    assert watch.verdicts[-1].reason.startswith("it has answered nothing for 6")


def test_requests_without_tokens_are_found_where_the_process_does_nothing() -> None:
    watch = serving()
    watch.see(slots=writes(7, slots=2))
    watch.see_until(Health.HUNG, LIMITS.hung_seconds + 5, slots=writes(7, slots=2))
    assert watch.verdicts[-1].reason.startswith("no token for 60 s with 2 of its slots at work")


def test_a_token_that_is_far_later_than_any_before_is_found_though_the_process_computes() -> None:
    watch = serving()
    for look in range(5):
        watch.see(slots=writes(100 * (look + 1)), works=True)
    watch.see_until(Health.HUNG, LIMITS.hung_seconds + 5, slots=writes(500), works=True)
    assert "its process computes" in watch.verdicts[-1].reason


@pytest.mark.parametrize("slots", [None, reads(0)])
def test_one_that_turns_in_circles_is_found_after_ten_times_as_long(slots: None) -> None:
    watch = serving()
    watch.see(slots=slots, works=True)
    took = watch.see_until(Health.HUNG, 10 * LIMITS.hung_seconds + 10, slots=slots, works=True)
    assert took > 9 * LIMITS.hung_seconds


def test_where_nobody_knows_whether_it_computes_it_may() -> None:
    watch = serving()
    for _ in range(int(5 * LIMITS.hung_seconds / 5)):
        assert watch.see(slots=None, works=None).health is Health.OK


def test_a_mending_that_changes_nothing_is_asked_for_again_later_and_later_and_then_it_is_given_up() -> None:
    watch = serving()
    watch.see_until(Health.CRASH_LOOPING, 600, slots=None)
    assert watch.actions == [Action.RESTART, Action.RESTART, Action.GIVE_UP]
    times = [place for place, verdict in enumerate(watch.verdicts) if verdict.action is not Action.NONE]
    assert [later - sooner for sooner, later in itertools.pairwise(times)] == [1, 2]
    assert watch.verdicts[-1].reason.startswith("it fell 3 times; the last time: its main loop has not answered")


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 0), (1, 5), (2, 10), (4, 40), (5, 60), (5000, 60)])
def test_pauses_between_mendings_grow_to_a_minute(attempts: int, seconds: float) -> None:
    assert pause(attempts) == seconds


# ---- it ends ----


def test_an_engine_that_ends_is_named_and_systemd_starts_it() -> None:
    watch = serving()
    verdict = watch.see(unit=waiting(134), words="GGML_ASSERT(x) failed")
    assert verdict.health is Health.FAILING
    assert verdict.health.word == "failing"
    assert verdict.reason == (
        "its engine aborted: an assertion, or a device that is gone (status 134, exit-code); its last words:"
        " GGML_ASSERT(x) failed; systemd starts it anew"
    )
    assert watch.actions == []


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        (waiting(1), "its engine ended with an error (status 1, exit-code)"),
        (waiting(137), "its engine was killed (status 137, exit-code)"),
        (waiting(139), "its engine crashed: a segmentation fault (status 139, exit-code)"),
        (waiting(143), "somebody ended its engine (status 143, exit-code)"),
        (waiting(77, "signal"), "its engine ended (status 77, signal)"),
        (waiting(0, "oom-kill"), "out of memory: the kernel killed its engine"),
        (waiting(0, "success"), "its engine ended"),
    ],
)
def test_how_it_ended_is_said(unit: UnitState, said: str) -> None:
    assert serving().see(unit=unit).reason == f"{said}; systemd starts it anew"


def test_a_kill_for_want_of_memory_is_told_from_any_other() -> None:
    watch = serving()
    watch.see(oom_kills=7)
    assert "out of memory" in watch.see(unit=waiting(137), oom_kills=8).reason
    watch.see(unit=restarted(1), process=NEW, oom_kills=8, proof=Proof(Health.OK))
    assert watch.see(unit=waiting(137, restarts=1), oom_kills=8).reason.startswith("its engine was killed")


def test_ends_between_two_looks_are_counted_too() -> None:
    watch = serving()
    assert watch.see(unit=restarted(2), process=NEW, health="loading", slots=None).health is Health.LOADING
    assert len(watch.record.falls) == 2


def test_a_service_that_fell_too_often_is_given_up_with_the_reason() -> None:
    watch = serving()
    for count in range(3):
        watch.see(unit=waiting(137, restarts=count), oom_kills=count + 1)
        watch.see(unit=restarted(count + 1), process=(count, 1.0), proof=Proof(Health.OK), oom_kills=count + 1)
    assert watch.actions == [Action.GIVE_UP, Action.GIVE_UP]  # the second one only because nobody did the first
    first = next(verdict for verdict in watch.verdicts if verdict.action is Action.GIVE_UP)
    assert first.health is Health.CRASH_LOOPING
    assert first.reason == "it fell 3 times; the last time: out of memory: the kernel killed its engine"


def test_falls_are_forgotten_when_it_has_served_for_the_window() -> None:
    watch = serving()
    for count in range(8):
        watch.see(unit=waiting(1, restarts=count))
        watch.see(unit=restarted(count + 1), process=(count, 1.0), proof=Proof(Health.OK))
        for _ in range(int(LIMITS.crash_window_seconds / 2 / 5) + 2):
            watch.see(unit=restarted(count + 1), process=(count, 1.0))
    assert watch.actions == []
    assert len(watch.record.falls) == 1


def test_hours_of_loading_forgive_nothing() -> None:
    watch = serving()
    for count in range(2):
        watch.see(unit=waiting(1, restarts=count))
        for _ in range(19):
            watch.see(unit=restarted(count + 1), process=(count, 1.0), health="loading", slots=None)
    watch.see(unit=waiting(1, restarts=2))
    assert watch.actions == [Action.GIVE_UP]


def test_a_start_by_hand_is_no_fall() -> None:
    watch = serving()
    watch.see(unit=restarted(2), process=(1, 1.0), proof=Proof(Health.OK))
    watch.see(unit=UP, process=(2, 2.0), proof=Proof(Health.OK))
    assert len(watch.record.falls) == 2


@pytest.mark.parametrize("then", [None, 77.0])
def test_docker_that_goes_away_is_no_fault_of_the_service(then: float | None) -> None:
    watch = serving()
    verdict = watch.see(unit=waiting(1), docker=then)
    assert "Docker was restarted" in verdict.reason
    assert watch.record.falls == ()


def test_while_docker_is_away_nothing_can_be_done_and_afterwards_the_service_returns() -> None:
    watch = serving()
    dead = UnitState("inactive", "dead")
    assert watch.see(unit=dead, docker=None).health is Health.DOWN
    assert watch.see(unit=dead, docker=None).reason == "Docker is not up: systemctl status docker"
    verdict = watch.see(unit=dead, docker=99.0)
    assert (verdict.health.word, verdict.action) == ("down", Action.RESTART)
    assert watch.record.falls == ()


def test_a_unit_that_was_stopped_by_hand_is_started_anew() -> None:
    watch = serving()
    assert watch.see(unit=UnitState("deactivating", "stop-sigterm")).action is Action.NONE
    verdict = watch.see(unit=UnitState("inactive", "dead"))
    assert (verdict.health, verdict.reason) == (Health.DOWN, "its unit is inactive: its engine ended")
    assert watch.actions == [Action.RESTART]
    assert len(watch.record.falls) == 1


def test_a_unit_that_never_starts_is_given_up() -> None:
    watch = serving()
    watch.see_until(Health.CRASH_LOOPING, 60, step=2, unit=UnitState("failed", "failed", "exit-code", 0, 1))
    assert watch.actions == [Action.RESTART] * 2 + [Action.GIVE_UP]


def test_what_a_request_changed_is_looked_at_anew_and_how_often_it_fell_is_remembered() -> None:
    watch = serving()
    watch.see(unit=waiting(1))
    watch.record = watch.record.anew()
    assert watch.see(unit=UP, process=(9, 9.0)).health is Health.OK
    assert len(watch.record.falls) == 1


# ---- it comes up ----


def test_a_service_that_loads_is_waited_for_and_no_longer_than_it_may() -> None:
    watch = Watch()
    watch.see(health="down", slots=None)
    took = watch.see_until(Health.FAILING, LIMITS.load_seconds + 10, health="loading", slots=None)
    assert took > LIMITS.load_seconds
    assert watch.verdicts[0].health is Health.LOADING
    assert watch.verdicts[-1].reason == "it was not ready after 105 s"
    assert watch.actions == [Action.RESTART]


def test_a_gate_that_is_shut_would_keep_it_for_ever() -> None:
    watch = Watch()
    verdict = watch.see(health="down", slots=None, gate=False)
    assert (verdict.health, verdict.action) == (Health.FAILING, Action.RESTART)


# ---- it is proven ----


def test_one_that_systemd_started_anew_is_proven_once() -> None:
    watch = serving()
    watch.see(unit=waiting())
    assert watch.see(unit=restarted(), process=NEW, health="loading", slots=None).action is Action.NONE
    verdict = watch.see(unit=restarted(), process=NEW)
    assert (verdict.health, verdict.action) == (Health.LOADING, Action.PROVE)
    assert watch.see(unit=restarted(), process=NEW, proof=Proof(Health.OK)).health is Health.OK
    for _ in range(HALF_HOUR):
        assert watch.see(unit=restarted(), process=NEW).action is Action.NONE


@pytest.mark.parametrize("process", [None, (101, 50.0)])
def test_a_look_that_did_not_find_the_process_is_no_new_start(process: tuple[int, float] | None) -> None:
    watch = serving()
    for _ in range(10):
        assert watch.see(process=None).health is Health.OK
        assert watch.see(process=process).health is Health.OK


def test_another_process_is_a_new_start_though_systemd_does_not_say_so() -> None:
    watch = serving()
    assert watch.see(process=NEW).action is Action.PROVE


def test_one_that_was_started_after_it_was_proven_last_is_proven_by_a_daemon_that_knows_nothing() -> None:
    assert Watch().see(proven_since=False).action is Action.PROVE
    assert Watch().see(proven_since=True).action is Action.NONE


@pytest.mark.parametrize("health", [Health.GARBAGE, Health.CPU_FALLBACK, Health.FAILING])
def test_a_proof_that_fails_has_it_started_anew_and_given_up_in_the_end(health: Health) -> None:
    watch = serving()
    watch.see(unit=waiting())
    verdict = watch.see(unit=restarted(), process=NEW, proof=Proof(health, "so and so"))
    assert (verdict.health, verdict.reason, verdict.action) == (health, "so and so", Action.RESTART)
    assert verdict.health.word == "failing"
    watch.record = watch.record.anew()
    watch.see(unit=UP, process=(3, 3.0), proven_since=False, proof=Proof(health, "so and so"))
    assert watch.actions == [Action.RESTART, Action.GIVE_UP]
    assert watch.verdicts[-1].reason == "it fell 3 times; the last time: so and so"


def test_a_proof_that_waits_behind_others_who_get_tokens_is_one() -> None:
    watch = serving()
    watch.see(unit=waiting())
    watch.see(unit=restarted(), process=NEW, slots=writes(1))
    late = Proof(None, "no completion within 120 s")
    assert watch.see(unit=restarted(), process=NEW, slots=writes(9), proof=late).health is Health.OK


def test_a_proof_that_waits_behind_a_long_prompt_is_asked_for_again() -> None:
    watch = serving()
    watch.see(unit=waiting())
    watch.see(unit=restarted(), process=NEW, slots=reads(0), works=True)
    late = Proof(None, "no completion within 120 s")
    verdict = watch.see(unit=restarted(), process=NEW, slots=reads(0), works=True, proof=late)
    assert (verdict.health, verdict.action) == (Health.LOADING, Action.PROVE)


def test_a_server_that_rests_and_gives_no_completion_does_not_serve() -> None:
    watch = serving()
    watch.see(unit=waiting())
    watch.see(unit=restarted(), process=NEW)
    verdict = watch.see(unit=restarted(), process=NEW, proof=Proof(None, "no completion within 120 s"))
    assert (verdict.health, verdict.action) == (Health.FAILING, Action.RESTART)


# ---- cards, and the door ----

GONE = ("rtx4090 (GPU-1)",)


def test_a_card_that_two_readings_miss_is_lost() -> None:
    watch = serving()
    assert watch.see(lost=Lost(1.0)).health is Health.OK
    assert watch.see(lost=Lost(2.0, GONE)).health is Health.OK
    assert watch.see(lost=Lost(2.0, GONE)).health is Health.OK
    verdict = watch.see(lost=Lost(3.0, GONE))
    assert (verdict.health, verdict.reason) == (Health.GPU_LOST, "lost: rtx4090 (GPU-1)")
    assert verdict.action is Action.GIVE_UP


def test_a_reading_in_between_that_finds_it_clears_it() -> None:
    watch = serving()
    for time in range(0, 20, 2):
        assert watch.see(lost=Lost(time, GONE)).health is Health.OK
        assert watch.see(lost=Lost(time + 1)).health is Health.OK


def test_a_server_that_goes_on_without_the_card_is_left_alone_until_it_does_not() -> None:
    watch = serving()
    for look in range(20):
        verdict = watch.see(lost=Lost(look, GONE), slots=writes(look))
    assert verdict.reason == "lost: rtx4090 (GPU-1); its engine goes on as yet"
    assert watch.actions == []
    watch.see(unit=waiting(134), lost=Lost(20, GONE))
    assert watch.actions == [Action.GIVE_UP]


def test_of_an_engine_that_is_down_one_reading_is_enough() -> None:
    watch = serving()
    watch.see(unit=waiting(134))
    assert watch.see(unit=waiting(134), lost=Lost(1.0, GONE)).health is Health.GPU_LOST


def test_a_door_that_stays_closed_is_mended() -> None:
    watch = serving()
    assert watch.see(door=False).health is Health.OK
    verdict = watch.see(door=False)
    assert (verdict.health, verdict.action) == (Health.FAILING, Action.MEND)
    assert watch.record.falls == ()


def test_a_door_that_does_not_answer_is_said_and_left_to_systemd() -> None:
    watch = serving()
    watch.see(door=None)
    verdict = watch.see(door=None)
    assert (verdict.action, "systemctl status llamarig-door" in verdict.reason) == (Action.NONE, True)
    assert watch.see().health is Health.OK


# ---- what is stated ----


def test_the_bounds_follow_from_the_settings() -> None:
    said = {bound.fault: bound.seconds for bound in bounds(LIMITS)}
    assert said["the engine is stuck and its process does nothing"] == 74.0
    assert said["the engine takes in a prompt, or does not answer, and computes without end"] == 614.0
    assert said["the engine does not become ready"] == 114.0
    assert max(said.values()) == 614.0
    longer = Limits(hung_seconds=300, crash_limit=3, crash_window_seconds=600, load_seconds=100)
    assert {bound.fault: bound.seconds for bound in bounds(longer)}[
        "the engine is stuck and its process does nothing"
    ] == 314


def test_settings_that_would_leave_no_time_to_look_are_not_taken_at_their_word() -> None:
    policy = Policy(hung_seconds=0, crash_limit=0, crash_window_seconds=0)
    assert Limits.of(policy, make_spec()) == Limits(
        hung_seconds=10, crash_limit=1, crash_window_seconds=1, load_seconds=60
    )


def test_a_sight_tells_who_works_and_who_puts_out_tokens() -> None:
    assert not Sight(time=0, unit=UP, slots=IDLE).is_busy
    assert not Sight(time=0, unit=UP, slots=None).decodes
    assert Sight(time=0, unit=UP, slots=(*writes(3), *IDLE)).decodes
    assert not Sight(time=0, unit=UP, slots=(*writes(3), *reads(7))).decodes
