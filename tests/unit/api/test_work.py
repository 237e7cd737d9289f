from __future__ import annotations

import threading
from typing import Any

import pytest

from llamarig.daemon.job import JobState
from llamarig.daemon.jobs import WAITING
from llamarig.daemon.request import Kind, Origin, Outcome, Reporter, Request
from llamarig.errors import CancelledError, LlamarigError, NotFoundError, SwitchError
from tests.unit.api.world import JSON, Said, World
from tests.unit.daemon.acting import SECONDS


class Asking(threading.Thread):
    """A client that waits for its answer."""

    def __init__(self, api: World, path: str, body: Any) -> None:
        super().__init__(daemon=True)
        self.api, self.path, self.body = api, path, body
        self.said: Said | None = None
        self.start()

    def run(self) -> None:
        self.said = self.api.ask("POST", self.path, self.body)

    def answer(self) -> Said:
        self.join(SECONDS)
        assert self.said is not None
        return self.said


def submitted(api: World, path: str = "/switch?wait=false", body: Any = None) -> str:
    said = api.ask("POST", path, body or {"model": "code"})
    assert said.status == 202
    name: str = said.data["job"]["id"]
    return name


def test_a_switch_answers_when_it_is_over(api: World) -> None:
    asking = Asking(api, "/switch", {"model": "code"})
    assert api.acting.wait_for_start() == Request(Kind.SWITCH, "code", Origin.API)
    assert asking.is_alive()
    api.board.model = "code"
    api.acting.end()
    said = asking.answer()
    assert said.status == 200
    assert {key: said.data[key] for key in ("success", "model", "model_name", "state")} == {
        "success": True,
        "model": "code",
        "model_name": "Chat",
        "state": "running",
    }
    assert said.data["job"]["state"] == "succeeded"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SwitchError("code did not load", "llamarig logs code", "chat", ["bad magic"]), 502),
        (CancelledError("it was cancelled", "", "chat", []), 409),
        (NotFoundError("there is no code any more"), 404),
        (LlamarigError("the bus is gone", "systemctl status dbus"), 502),
        (ZeroDivisionError("division by zero"), 502),
    ],
)
def test_a_failed_switch_is_never_a_200(api: World, error: BaseException, status: int) -> None:
    asking = Asking(api, "/switch", {"model": "code"})
    api.acting.end(error)
    said = asking.answer()
    assert said.status == status
    assert said.data["success"] is False
    assert said.data["model"] == "chat", "what serves now"
    assert said.data["error"] == said.data["job"]["error"]["message"]
    assert said.data["log_lines"] == said.data["job"]["error"]["log_lines"]


def test_without_waiting_it_is_a_job(api: World) -> None:
    said = api.ask("POST", "/switch?wait=false", {"model": "code", "now": True})
    assert said.status == 202
    job = said.data["job"]
    assert said.headers["location"] == f"/jobs/{job['id']}"
    assert api.acting.wait_for_start() == Request(Kind.SWITCH, "code", now=True)
    running = api.ask("GET", said.headers["location"]).data["job"]
    assert (running["id"], running["state"]) == (job["id"], "running")
    api.acting.end()
    api.jobs.wait(job["id"], SECONDS)
    assert api.ask("GET", "/jobs").data["jobs"] == [api.ask("GET", f"/jobs/{job['id']}").data["job"]]


@pytest.mark.parametrize(
    ("path", "body", "request_"),
    [
        ("/stop", {"model": "chat"}, Request(Kind.STOP, "chat")),
        ("/stop", {"model": "gone"}, Request(Kind.STOP, "gone")),
        ("/stop", {}, Request(Kind.STOP)),
        ("/reconcile", {"adopt": True}, Request(Kind.RECONCILE, adopt=True)),
        ("/reconcile", {}, Request(Kind.RECONCILE)),
    ],
)
def test_what_else_can_be_asked_for(api: World, path: str, body: Any, request_: Request) -> None:
    submitted_ = api.ask("POST", f"{path}?wait=false", body)
    assert submitted_.status == 202
    assert api.acting.wait_for_start() == request_


@pytest.mark.parametrize(
    ("said", "origin"),
    [("cli", Origin.CLI), ("playbook", Origin.PLAYBOOK), ("health", Origin.API), ("", Origin.API)],
)
def test_clients_say_who_asks_and_cannot_say_that_it_is_the_daemon(api: World, said: str, origin: Origin) -> None:
    api.ask("POST", "/stop?wait=false", {}, headers={**JSON, "X-Llamarig-Origin": said})
    assert api.acting.wait_for_start().origin is origin


def test_one_who_does_not_want_to_wait_in_the_queue_is_told_what_runs(api: World) -> None:
    first = submitted(api)
    api.acting.wait_for_start()
    said = api.ask("POST", "/switch", {"model": "chat"})
    assert said.status == 409
    assert said.data["state"] == "starting"
    assert said.data["job"]["id"] == first
    assert "under way" in said.data["error"]
    assert said.data["remedy"]


def test_one_who_may_wait_in_the_queue_does(api: World) -> None:
    submitted(api)
    api.acting.wait_for_start()
    asking = Asking(api, "/switch", {"model": "chat", "queue": True})
    while not api.jobs.waiting():
        assert asking.is_alive()
    status = api.ask("GET", "/status").data
    assert [job["service"] for job in status["queue"]] == ["chat"]
    api.acting.end()
    api.acting.end()
    assert asking.answer().status == 200


def test_a_stop_waits_for_its_turn_unless_it_does_not_want_to(api: World) -> None:
    submitted(api)
    api.acting.wait_for_start()
    assert api.ask("POST", "/stop?wait=false", {}).status == 202
    assert api.ask("POST", "/stop?wait=false", {"queue": False}).status == 409


def test_a_full_queue_refuses(api: World) -> None:
    submitted(api)
    api.acting.wait_for_start()
    for number in range(WAITING):
        submitted(api, body={"model": ("chat", "code")[number % 2], "queue": True})
    said = api.ask("POST", "/switch?wait=false", {"model": "chat", "queue": True})
    assert said.status == 409
    assert said.data["job"]


def test_a_service_that_is_not_there_is_not_found(api: World) -> None:
    for path in ("/switch", "/stop"):
        said = api.ask("POST", path, {"model": "nothing"})
        assert said.status == 404
        assert "chat" in said.data["remedy"]
    assert api.ask("POST", "/switch", {"model": "gone"}).status == 404
    assert api.jobs.all() == []


def test_a_job_that_runs_is_cancelled_and_one_that_is_over_is_not(api: World) -> None:
    def obey(reporter: Reporter) -> Outcome:
        assert reporter.cancelled()
        raise CancelledError("it was cancelled", "", "chat", [])

    name = submitted(api)
    api.acting.wait_for_start()
    assert api.ask("DELETE", f"/jobs/{name}").status == 202
    api.acting.end(obey)
    assert api.jobs.wait(name, SECONDS).state is JobState.CANCELLED
    said = api.ask("DELETE", f"/jobs/{name}")
    assert said.status == 409
    assert said.data["job"]["state"] == "cancelled"
    assert api.ask("DELETE", "/jobs/nothing").status == 404


def test_a_job_is_followed_until_it_is_over(api: World) -> None:
    def serve(reporter: Reporter) -> Outcome:
        reporter.phase("load")
        reporter.say("code is loading")
        return Outcome(("code",), message="code serves")

    name = submitted(api)
    api.acting.wait_for_start()
    with api.events(f"/jobs/{name}/events") as events:
        first = events.next()
        assert first is not None
        assert first[2]["state"] == "running"
        api.acting.end(serve)
        rest = events.all()
    assert {kind for _, kind, _ in rest} == {"job"}
    assert [(job["phase"], job["text"]) for _, _, job in rest] == [
        ("load", ""),
        ("load", "code is loading"),
        ("load", "code serves"),
    ]
    assert rest[-1][2]["state"] == "succeeded"
    numbers = [number for number, _, _ in [first, *rest]]
    assert numbers == sorted(set(map(int, filter(None, numbers))))


def test_one_who_comes_back_is_told_what_was_missed(api: World) -> None:
    def serve(reporter: Reporter) -> Outcome:
        for number in range(5):
            reporter.say(f"step {number}")
        return Outcome(("code",), message="code serves")

    name = submitted(api)
    api.acting.end(serve)
    api.jobs.wait(name, SECONDS)
    with api.events(f"/jobs/{name}/events", after=0) as events:
        whole = events.all()
    texts = [job["text"] for _, _, job in whole]
    assert texts[-6:] == [*(f"step {number}" for number in range(5)), "code serves"]
    with api.events(f"/jobs/{name}/events", after=whole[-3][0]) as events:
        assert events.all() == whole[-2:]
    # A browser comes back until it is told by a 204 that there is nothing more.
    with api.events(f"/jobs/{name}/events", after=whole[-1][0]) as events:
        assert events.status == 204
    with api.events(f"/jobs/{name}/events") as events:
        assert events.all() == whole[-1:]


def test_the_job_of_a_daemon_before_is_told_once(api: World) -> None:
    name = submitted(api)
    api.acting.end()
    api.jobs.wait(name, SECONDS)
    before = api.jobs.told(name)
    api.jobs._told.clear()
    with api.events(f"/jobs/{name}/events", after=before - 10**9) as events:
        told = events.all()
    assert [job["state"] for _, _, job in told][-1] == "succeeded"


def test_following_a_job_that_is_not_there_is_not_found(api: World) -> None:
    assert api.ask("GET", "/jobs/nothing/events").status == 404


def test_whoever_leaves_leaves_the_job_alone(api: World) -> None:
    connection = api.connect()
    connection.request("POST", "/switch", '{"model": "code"}', JSON)
    api.acting.wait_for_start()
    connection.close()
    api.acting.end()
    (job,) = api.jobs.all()
    assert api.jobs.wait(job.id, SECONDS).state is JobState.SUCCEEDED


def test_one_who_waits_when_the_daemon_ends_is_told_so(api: World) -> None:
    asking = Asking(api, "/switch", {"model": "code"})
    api.acting.wait_for_start()
    api.server.stop(SECONDS)
    said = asking.answer()
    assert said.status == 503
    assert said.headers["retry-after"]
    assert said.data["job"]["state"] == "running"
