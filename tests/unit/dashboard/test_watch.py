from __future__ import annotations

from llamarig.dashboard.answers import Job
from llamarig.dashboard.feed import LogBegun, Logged, Lost, Said, Unsaid, Up
from llamarig.dashboard.watch import Watch
from tests.unit.dashboard.fakes import GPUS, JOB, NOW, Box, Clock, Scripted, box, nothing, serving, status


def reached(one: Box) -> bool:
    """Take in what came, and say whether the host is reached."""
    one.watch.drain()
    return one.watch.reached


def job(one: Box) -> Job | None:
    """Take in what came, and return the job that runs."""
    one.watch.drain()
    return one.watch.job


def test_a_host_is_reached_once_it_answered() -> None:
    one = Box(Scripted())
    assert not reached(one)
    assert one.watch.lost == ""
    one.say(Said("status", status()), Up("look only"))
    assert reached(one)
    assert one.watch.read_only == "look only"


def test_what_was_seen_last_stays_with_its_age_when_the_daemon_is_lost() -> None:
    one = box()
    one.watch.drain()
    one.clock.now += 12
    one.say(Lost("it does not run"))
    one.watch.drain()
    assert one.watch.lost == "it does not run"
    assert one.watch.status is not None
    assert (one.watch.stale("status"), one.watch.stale("gpus"), one.watch.away) == ("12 s old", "12 s old", "12 s")
    one.say(Said("status", status()), Up(""))
    one.watch.drain()
    assert (one.watch.lost, one.watch.stale("status")) == ("", "")


def test_a_daemon_that_is_asked_and_says_nothing_counts_as_lost() -> None:
    one = box()
    one.watch.drain()
    one.watch.show("gpus", seconds=2.0)
    one.clock.now += 9
    assert one.watch.lost == ""
    one.clock.now += 2
    assert "says nothing" in one.watch.lost
    one.say(Said("gpus", GPUS))
    one.watch.drain()
    assert one.watch.lost == ""


def test_a_daemon_that_nobody_asks_may_be_silent() -> None:
    one = box()
    one.watch.drain()
    one.watch.show()
    one.clock.now += 1000
    assert one.watch.lost == ""
    one.watch.show("gpus", seconds=2.0)
    assert one.watch.lost == ""


def test_one_kind_that_fails_is_old_and_the_others_are_not() -> None:
    one = box()
    one.watch.drain()
    one.clock.now += 4
    one.say(Unsaid("gpus", "NVML does not answer"), Said("system", {}))
    one.watch.drain()
    assert (one.watch.stale("gpus"), one.watch.stale("system")) == ("4 s old", "")
    assert one.watch.failure("gpus") == "NVML does not answer"


def test_the_host_s_own_clock_is_used_and_stands_still_while_it_is_lost() -> None:
    one = box()
    one.watch.drain()
    one.clock.now += 5
    assert one.watch.now == NOW + 5
    one.say(Lost("gone"))
    one.watch.drain()
    assert one.watch.now == NOW
    assert Watch("x", Scripted(), Clock(), lambda: 77.0).now == 77.0


def test_the_log_of_what_serves_is_followed_and_of_what_comes_once_it_starts() -> None:
    one = box()
    one.watch.follow_log()
    one.watch.drain()
    assert one.feed.followed == ["chat"]
    one.say(Said("job", JOB | {"phase": "drain"}))
    one.watch.drain()
    assert one.feed.followed == ["chat"]
    one.say(Said("job", JOB | {"phase": "start"}))
    one.watch.drain()
    assert one.feed.followed == ["chat", "code"]
    one.say(Said("job", JOB | {"state": "failed"}))
    one.watch.drain()
    assert one.feed.followed == ["chat", "code", "chat"]


def test_no_log_is_followed_while_nobody_looks() -> None:
    one = box()
    one.watch.drain()
    assert one.feed.followed == []
    one.watch.follow_log()
    one.watch.leave_log()
    one.watch.drain()
    assert one.feed.followed == ["chat", ""]


def test_the_log_of_the_next_active_service() -> None:
    one = Box(Scripted(Said("status", status(serving("chat"), serving("embed"))), Up("")))
    one.watch.follow_log()
    one.watch.drain()
    one.watch.next_log()
    one.watch.next_log()
    assert one.feed.followed == ["chat", "embed", "chat"]


def test_the_log_stays_where_nothing_serves_any_more() -> None:
    one = box()
    one.watch.follow_log()
    one.watch.drain()
    one.say(Said("status", nothing()))
    one.watch.drain()
    assert one.feed.followed == ["chat"]
    assert len(one.watch.log) == 100


def test_lines_of_a_service_that_is_followed_no_more_are_dropped() -> None:
    one = box(LogBegun("code"), Logged("chat", "late"), Logged("code", "first"))
    one.watch.drain()
    assert len(one.watch.log) == 102  # with the line between


def test_a_job_that_is_over_is_remembered_and_a_queued_one_is_none() -> None:
    one = box()
    one.watch.drain()
    one.say(Said("job", JOB | {"state": "queued"}))
    assert job(one) is None
    one.say(Said("job", JOB))
    assert job(one) is not None
    assert one.watch.job_seconds == 28.0
    one.say(Said("job", JOB | {"id": "another", "state": "succeeded"}))
    assert job(one) is not None
    one.say(Said("status", status()))
    assert job(one) is None
    assert one.watch.job_seconds is None
