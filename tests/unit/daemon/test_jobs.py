from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamarig.config import paths
from llamarig.daemon.job import Job, JobState, LaterError
from llamarig.daemon.job_file import WRITTEN
from llamarig.daemon.jobs import KEPT, WAITING, BusyJobError, Jobs
from llamarig.daemon.request import Kind, Origin, Outcome, Reporter, Request
from llamarig.errors import BusyError, CancelledError, ExitCode, LlamarigError, NotFoundError, SwitchError
from llamarig.runtime.engine import Answer
from tests.support import below
from tests.unit.daemon.acting import SECONDS, Acting

FIELDS = {
    "id", "kind", "service", "origin", "reason", "state", "phase", "phases", "text", "submitted", "started",
    "finished", "outcome", "error",
}  # fmt: skip


class Ticks:
    """A clock that goes on by one second whenever it is read."""

    def __init__(self, start: float = 1000.0) -> None:
        self.seconds = start

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


def switch(service: str, **changes: Any) -> Request:
    return Request(Kind.SWITCH, service, **changes)


@pytest.fixture
def acting() -> Acting:
    return Acting()


@pytest.fixture
def jobs(acting: Acting, tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(acting.perform, tmp_path, now=Ticks(), clock=Ticks())
    jobs.start()
    yield jobs
    for _ in range(WAITING + 1):
        acting.end()
    assert jobs.close(SECONDS)


def written(root: Path) -> list[dict[str, Any]]:
    data = json.loads(below(root, f"{paths.DAEMON_STATE}/jobs.json").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = data["jobs"]
    return found


def run(jobs: Jobs, acting: Acting, how: Any = None, request: Request | None = None) -> Job:
    job = jobs.submit(request or switch("chat"))
    acting.wait_for_start()
    acting.end(how)
    return jobs.wait(job.id, SECONDS)


def test_a_job_runs_and_says_how_it_ended(jobs: Jobs, acting: Acting) -> None:
    def serve(reporter: Reporter) -> Outcome:
        for phase in ("validate", "drain", "load"):
            reporter.phase(phase)
        reporter.say("chat is loading")
        return Outcome(("chat",), ("code",), changed=True, message="chat serves", answer=Answer("Hi", [1], 0.1, 9.0))

    job = jobs.submit(switch("chat", origin=Origin.CLI, reason="because"))
    assert (job.state, job.started, job.finished) == (JobState.QUEUED, None, None)
    assert acting.wait_for_start() == switch("chat", origin=Origin.CLI, reason="because")
    running = jobs.get(job.id)
    assert running.state is JobState.RUNNING
    assert jobs.current() == running
    acting.end(serve)
    data = jobs.wait(job.id, SECONDS).to_dict()
    assert data.keys() == FIELDS
    assert data["submitted"] < data["started"] < data["finished"]
    assert data["phases"] == {"validate": 1.0, "drain": 1.0, "load": 1.0}
    assert {key: data[key] for key in ("kind", "service", "origin", "reason", "state", "phase", "text", "error")} == {
        "kind": "switch",
        "service": "chat",
        "origin": "cli",
        "reason": "because",
        "state": "succeeded",
        "phase": "load",
        "text": "chat serves",
        "error": None,
    }
    assert data["outcome"]["active"] == ["chat"]
    assert data["outcome"]["answer"] == "Hi"
    assert jobs.current() is None
    assert json.loads(json.dumps(data)) == data


def test_phases_that_come_again_on_the_way_back_are_summed(jobs: Jobs, acting: Acting) -> None:
    def fail(reporter: Reporter) -> Outcome:
        for phase in ("start", "load", "start", "load"):
            reporter.phase(phase)
        raise SwitchError("no", "", "chat", [])

    assert run(jobs, acting, fail).phases == {"start": 2.0, "load": 2.0}


def test_the_phases_of_the_outcome_are_the_ones_of_the_history(jobs: Jobs, acting: Acting) -> None:
    job = run(jobs, acting, lambda _: Outcome(("chat",), phases={"load": 0.25}))
    assert job.phases == {"load": 0.25}


@pytest.mark.parametrize(
    ("error", "state", "expected"),
    [
        (
            SwitchError("chat did not load", "llamarig logs chat", "code", ["bad magic"]),
            JobState.FAILED,
            {
                "message": "chat did not load",
                "remedy": "llamarig logs chat",
                "serving": "code",
                "log_lines": ["bad magic"],
                "exit_code": ExitCode.FAILED,
            },
        ),
        (
            CancelledError("cancelled", "", "code", []),
            JobState.CANCELLED,
            {"message": "cancelled", "remedy": "", "serving": "code", "log_lines": [], "exit_code": 130},
        ),
        (
            NotFoundError("no such service", "choose another"),
            JobState.FAILED,
            {
                "message": "no such service",
                "remedy": "choose another",
                "serving": None,
                "log_lines": [],
                "exit_code": 3,
            },
        ),
    ],
)
def test_an_error_is_carried_whole(
    jobs: Jobs, acting: Acting, error: LlamarigError, state: JobState, expected: dict[str, Any]
) -> None:
    job = run(jobs, acting, error)
    assert job.state is state
    assert job.to_dict()["error"] == expected
    assert job.text == expected["message"]
    assert job.outcome is None


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), SystemExit(3), MemoryError()])
def test_what_nobody_foresaw_fails_the_job_and_not_the_daemon(
    jobs: Jobs, acting: Acting, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        job = run(jobs, acting, error)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["message"].startswith(type(error).__name__)
    assert any(record.exc_info for record in caplog.records), "the traceback is in the log"
    assert run(jobs, acting).state is JobState.SUCCEEDED


def test_jobs_run_one_after_the_other_in_their_order(jobs: Jobs, acting: Acting) -> None:
    names = [jobs.submit(switch(f"s{number}")).id for number in range(4)]
    assert [job.id for job in jobs.waiting()][-3:] == names[1:]
    for _ in names:
        acting.end()
    jobs.wait(names[-1], SECONDS)
    assert [request.service for request in acting.began] == ["s0", "s1", "s2", "s3"]
    assert acting.together == 1
    assert [job.id for job in jobs.all()] == names


def test_one_who_does_not_want_to_wait_is_told_what_runs(jobs: Jobs, acting: Acting) -> None:
    first = jobs.submit(switch("chat"))
    acting.wait_for_start()
    with pytest.raises(BusyJobError, match="a switch to 'chat' is under way") as caught:
        jobs.submit(switch("code"), queue=False)
    assert caught.value.job.id == first.id
    assert caught.value.exit_code is ExitCode.BUSY
    acting.end()
    jobs.wait(first.id, SECONDS)
    assert jobs.submit(switch("code"), queue=False).state is JobState.QUEUED


def test_the_same_again_joins_what_waits_and_does_not_join_what_runs(jobs: Jobs, acting: Acting) -> None:
    first = jobs.submit(switch("chat"))
    acting.wait_for_start()
    second = jobs.submit(switch("chat"))
    assert second.id != first.id
    assert jobs.submit(switch("chat", origin=Origin.CLI, reason="why not")).id == second.id
    assert jobs.submit(switch("chat", now=True)).id != second.id
    assert len(jobs.waiting()) == 2


def test_the_same_again_after_something_else_does_not_join(jobs: Jobs, acting: Acting) -> None:
    """Otherwise the last word would not be the last."""
    jobs.submit(switch("first"))
    acting.wait_for_start()
    chat, code = jobs.submit(switch("chat")), jobs.submit(switch("code"))
    again = jobs.submit(switch("chat"))
    assert len({chat.id, code.id, again.id}) == 3


def test_the_queue_has_an_end(jobs: Jobs, acting: Acting) -> None:
    jobs.submit(switch("first"))
    acting.wait_for_start()
    for number in range(WAITING):
        jobs.submit(switch(f"s{number}"))
    with pytest.raises(BusyError, match="wait already"):
        jobs.submit(switch("more"))
    assert jobs.submit(switch(f"s{WAITING - 1}")).service == f"s{WAITING - 1}", "what is joined takes no place"


def test_one_that_waits_is_cancelled_at_once(jobs: Jobs, acting: Acting) -> None:
    first = jobs.submit(switch("chat"))
    acting.wait_for_start()
    second, third = jobs.submit(switch("code")), jobs.submit(switch("vision"))
    assert jobs.cancel(second.id)
    cancelled = jobs.get(second.id)
    assert (cancelled.state, cancelled.started) == (JobState.CANCELLED, None)
    assert cancelled.error is not None
    assert not jobs.cancel(second.id)
    acting.end()
    acting.end()
    jobs.wait(third.id, SECONDS)
    assert [request.service for request in acting.began] == ["chat", "vision"]
    assert jobs.get(first.id).state is JobState.SUCCEEDED


def test_one_that_runs_is_asked_to_go_back_and_the_next_is_not(jobs: Jobs, acting: Acting) -> None:
    asked: list[bool] = []

    def look(reporter: Reporter) -> Outcome:
        asked.append(reporter.cancelled())
        if asked[-1]:
            raise CancelledError("cancelled", "", "code", [])
        return Outcome(("chat",))

    first = jobs.submit(switch("chat"))
    acting.wait_for_start()
    second = jobs.submit(switch("code"))
    assert jobs.cancel(first.id)
    assert jobs.get(first.id).state is JobState.RUNNING
    acting.end(look)
    assert jobs.wait(first.id, SECONDS).state is JobState.CANCELLED
    acting.end(look)
    assert jobs.wait(second.id, SECONDS).state is JobState.SUCCEEDED
    assert asked == [True, False]


def test_a_job_that_nobody_knows_is_not_found(jobs: Jobs) -> None:
    for ask in (jobs.get, jobs.cancel, jobs.wait):
        with pytest.raises(NotFoundError):
            ask("nothing")


def test_waiting_ends_by_itself(jobs: Jobs, acting: Acting) -> None:
    job = jobs.submit(switch("chat"))
    acting.wait_for_start()
    assert jobs.wait(job.id, 0).state is JobState.RUNNING


def test_only_the_last_jobs_are_kept(acting: Acting, tmp_path: Path) -> None:
    jobs = Jobs(acting.perform, tmp_path)
    for number in range(KEPT + 5):
        job = jobs.submit(switch(f"s{number}"))
        jobs.cancel(job.id)
    assert len(jobs.all()) == KEPT
    assert jobs.all()[0].service == "s5"
    assert len(written(tmp_path)) == WRITTEN


def test_jobs_outlive_the_daemon_and_what_it_had_not_ended_is_over(acting: Acting, tmp_path: Path) -> None:
    before = Jobs(acting.perform, tmp_path)
    before.start()
    done = run(before, acting)
    running = before.submit(switch("code"))
    acting.wait_for_start()
    waiting = before.submit(switch("vision"))

    after = Jobs(Acting().perform, tmp_path)
    assert after.get(done.id) == done
    for name in (running.id, waiting.id):
        job = after.get(name)
        assert job.state is JobState.FAILED
        assert job.finished is not None
        assert "the daemon ended" in job.text
    assert after.current() is None
    assert after.waiting() == []
    assert after.feed.last >= before.feed.last, "ids rise from one daemon to the next"

    acting.end()
    before.close(SECONDS)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"jobs": [{}]}', b'{"jobs": 3}', b"\xff", b'{"jobs": [7]}', b"ODD"]
)
def test_a_file_that_cannot_be_read_is_forgotten(
    content: bytes, acting: Acting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = below(tmp_path, f"{paths.DAEMON_STATE}/jobs.json")
    path.parent.mkdir(parents=True)
    odd = {**Job.of(switch("chat"), "0", 1.0).to_dict(), "phases": None}
    path.write_bytes(json.dumps({"jobs": [odd]}).encode() if content == b"ODD" else content)
    assert Jobs(acting.perform, tmp_path).all() == []
    assert "cannot be read" in caplog.text


def test_a_full_disk_stops_no_job(
    jobs: Jobs, acting: Acting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llamarig.daemon.job_file.replace_file", full)
    assert run(jobs, acting).state is JobState.SUCCEEDED
    assert "No space left" in caplog.text


def test_listeners_see_every_step_of_a_job(jobs: Jobs, acting: Acting) -> None:
    def serve(reporter: Reporter) -> Outcome:
        reporter.phase("load")
        reporter.say("chat is loading")
        return Outcome(("chat",), message="chat serves")

    listener = jobs.subscribe()
    job = run(jobs, acting, serve)
    steps = [(event.data["state"], event.data["phase"], event.data["text"]) for event in listener.take()]
    assert steps == [
        ("queued", "", ""),
        ("running", "", ""),
        ("running", "load", ""),
        ("running", "load", "chat is loading"),
        ("succeeded", "load", "chat serves"),
    ]
    assert {event.data["id"] for event in jobs.subscribe(after=0).take()} == {job.id}


def test_a_daemon_that_ends_takes_no_more_and_begins_no_more(acting: Acting, tmp_path: Path) -> None:
    jobs = Jobs(acting.perform, tmp_path)
    jobs.start()
    assert jobs.is_alive
    first = jobs.submit(switch("chat"))
    acting.wait_for_start()
    second = jobs.submit(switch("code"))
    assert not jobs.close(0)
    with pytest.raises(BusyError, match="ending"):
        jobs.submit(switch("vision"))
    acting.end()
    assert jobs.close(SECONDS)
    assert jobs.get(first.id).state is JobState.SUCCEEDED
    assert jobs.get(second.id).state is JobState.QUEUED
    assert not jobs.is_alive


# ---- what may not be done yet ----


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(acting: Acting, tmp_path: Path, clock: Clock) -> Iterator[Jobs]:
    """Jobs whose intervals a test decides."""
    jobs = Jobs(acting.perform, tmp_path, now=Ticks(), clock=clock)
    jobs.start()
    yield jobs
    for _ in range(WAITING + 1):
        acting.end()
    assert jobs.close(SECONDS)


def stand_aside(jobs: Jobs, acting: Acting, request: Request, *services: str) -> Job:
    """Ask for something that may not be done for an hour yet."""
    listener = jobs.subscribe()
    job = jobs.submit(request)
    acting.wait_for_start()
    acting.end(LaterError(f"{' and '.join(services)} serves for its minimum first", 3600, services))
    while (event := listener.get(SECONDS)) is not None and event.data["phase"] != "wait":
        pass
    listener.close()
    return jobs.get(job.id)


def test_one_that_may_not_be_done_yet_keeps_nobody_from_anything(timed: Jobs, acting: Acting) -> None:
    aside = stand_aside(timed, acting, switch("code"), "chat")
    assert (aside.state, aside.phase, aside.started) == (JobState.QUEUED, "wait", None)
    assert aside.text == "chat serves for its minimum first"
    assert (timed.current(), timed.waiting(), timed.aside()) == (None, [], [aside])
    other = timed.submit(switch("vision"), queue=False)
    assert acting.wait_for_start().service == "vision"
    acting.end()
    assert timed.wait(other.id, SECONDS).state is JobState.SUCCEEDED


def test_it_is_tried_again_when_its_time_has_come_and_that_it_waited_is_a_phase(
    timed: Jobs, acting: Acting, clock: Clock
) -> None:
    aside = stand_aside(timed, acting, switch("code"), "chat")
    clock.seconds += 3600
    later = timed.submit(switch("vision"))
    assert acting.wait_for_start().service == "code", "it comes before what was asked for later"
    acting.end(lambda _: Outcome(("code",), ("chat",), changed=True, phases={"load": 0.5}))
    acting.end()
    done = timed.wait(aside.id, SECONDS)
    assert (done.state, done.phases) == (JobState.SUCCEEDED, {"wait": 3600.0, "load": 0.5})
    assert timed.wait(later.id, SECONDS).state is JobState.SUCCEEDED
    assert timed.aside() == []


def test_nobody_has_to_ask_for_something_else_that_its_time_comes(
    acting: Acting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamarig.daemon.jobs._SOON_SECONDS", 0.01)
    jobs = Jobs(acting.perform, tmp_path)
    jobs.start()
    job = jobs.submit(switch("code"))
    acting.end(LaterError("not yet", 0.0, ["chat"]))
    acting.end(LaterError("not yet", 0.0, ["chat"]))
    acting.end()
    assert jobs.wait(job.id, SECONDS).state is JobState.SUCCEEDED
    assert len(acting.began) == 3
    assert jobs.close(SECONDS)


def test_it_is_tried_again_when_something_else_is_over(timed: Jobs, acting: Acting) -> None:
    """What it waits for may be gone: given up, or stopped."""
    aside = stand_aside(timed, acting, switch("code"), "chat")
    timed.submit(Request(Kind.STOP, "chat", origin=Origin.HEALTH))
    acting.end(lambda _: Outcome((), ("chat",), changed=True))
    assert acting.wait_for_start().kind is Kind.STOP
    assert acting.wait_for_start().service == "code"
    acting.end()
    assert timed.wait(aside.id, SECONDS).state is JobState.SUCCEEDED


@pytest.mark.parametrize("later", [switch("vision", now=True), Request(Kind.STOP), Request(Kind.STOP, "chat")])
def test_a_later_word_of_people_about_what_it_waits_for_is_the_last(
    timed: Jobs, acting: Acting, later: Request
) -> None:
    aside = stand_aside(timed, acting, switch("code"), "chat")
    done = timed.submit(later)
    acting.end(lambda _: Outcome((), ("chat",), changed=True))
    cancelled = timed.wait(aside.id, SECONDS)
    assert timed.wait(done.id, SECONDS).state is JobState.SUCCEEDED
    assert cancelled.state is JobState.CANCELLED
    assert cancelled.text == f"{done.said} came before it, and chat has left"


@pytest.mark.parametrize("later", [switch("code", now=True), switch("beside")])
def test_a_later_word_about_something_else_overrules_nothing(timed: Jobs, acting: Acting, later: Request) -> None:
    aside = stand_aside(timed, acting, switch("code"), "chat")
    timed.submit(later)
    left = ("chat",) if later.service == "code" else ("other",)
    acting.end(lambda _: Outcome(("x",), left, changed=True))
    acting.end()
    assert timed.wait(aside.id, SECONDS).state is JobState.SUCCEEDED


def test_the_same_again_joins_one_that_stands_aside(timed: Jobs, acting: Acting) -> None:
    aside = stand_aside(timed, acting, switch("code"), "chat")
    assert timed.submit(switch("code", origin=Origin.CLI), queue=False).id == aside.id


def test_the_same_again_after_something_else_does_not_join_one_that_stands_aside(timed: Jobs, acting: Acting) -> None:
    """It would be overruled by what was asked for before it."""
    aside = stand_aside(timed, acting, switch("code"), "chat")
    timed.submit(switch("vision", now=True))
    acting.wait_for_start()
    again = timed.submit(switch("code"))
    acting.end(lambda _: Outcome(("vision",), ("chat",), changed=True))
    assert timed.wait(aside.id, SECONDS).state is JobState.CANCELLED
    acting.end()
    assert timed.wait(again.id, SECONDS).state is JobState.SUCCEEDED


def test_one_that_stands_aside_is_not_overruled_by_what_was_asked_for_before_it(
    timed: Jobs, acting: Acting, clock: Clock
) -> None:
    first = stand_aside(timed, acting, switch("code"), "chat")
    second = stand_aside(timed, acting, switch("vision"), "chat")
    clock.seconds += 3600
    timed.submit(Request(Kind.RECONCILE))
    acting.end(lambda _: Outcome(("code",), ("chat",), changed=True))
    acting.end(lambda _: Outcome(("vision",), ("code",), changed=True))
    acting.end()
    assert timed.wait(first.id, SECONDS).state is JobState.SUCCEEDED
    assert timed.wait(second.id, SECONDS).state is JobState.SUCCEEDED


def test_what_health_asks_for_is_taken_however_many_stand_aside(timed: Jobs, acting: Acting) -> None:
    for number in range(WAITING):
        stand_aside(timed, acting, switch(f"s{number}"), "chat")
    with pytest.raises(BusyError, match="wait already"):
        timed.submit(switch("more"))
    mending = timed.submit(Request(Kind.RECONCILE, "chat", origin=Origin.HEALTH))
    assert acting.wait_for_start().origin is Origin.HEALTH
    acting.end()
    assert timed.wait(mending.id, SECONDS).state is JobState.SUCCEEDED


def test_one_that_would_stand_aside_for_ever_ends_no_thread(acting: Acting, tmp_path: Path) -> None:
    jobs = Jobs(acting.perform, tmp_path)
    jobs.start()
    listener = jobs.subscribe()
    job = jobs.submit(switch("code"))
    acting.end(LaterError("not yet", 1e15, ["chat"]))
    while (event := listener.get(SECONDS)) is not None and event.data["phase"] != "wait":
        pass
    listener.close()
    other = jobs.submit(switch("chat"))
    acting.end()
    acting.end()
    assert jobs.wait(other.id, SECONDS).state is JobState.SUCCEEDED
    assert jobs.wait(job.id, SECONDS).state is JobState.SUCCEEDED
    assert jobs.close(SECONDS)


def test_one_that_stands_aside_is_cancelled_at_once(timed: Jobs, acting: Acting) -> None:
    aside = stand_aside(timed, acting, switch("code"), "chat")
    assert timed.cancel(aside.id)
    assert timed.get(aside.id).state is JobState.CANCELLED
    assert timed.aside() == []
    assert not timed.cancel(aside.id)


def test_one_that_was_cancelled_as_it_stood_aside_does_not_wait(timed: Jobs, acting: Acting) -> None:
    job = timed.submit(switch("code"))
    acting.wait_for_start()
    assert timed.cancel(job.id)
    acting.end(LaterError("not yet", 3600, ["chat"]))
    assert timed.wait(job.id, SECONDS).state is JobState.CANCELLED


def test_those_that_stand_aside_count_against_the_end_of_the_queue(timed: Jobs, acting: Acting) -> None:
    stand_aside(timed, acting, switch("code"), "chat")
    timed.submit(switch("first"))
    acting.wait_for_start()
    for number in range(WAITING - 1):
        timed.submit(switch(f"s{number}"))
    with pytest.raises(BusyError, match="wait already"):
        timed.submit(switch("more"))
