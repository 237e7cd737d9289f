from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llamarig.daemon.desk import Desk
from llamarig.daemon.jobs import Jobs
from llamarig.daemon.request import Kind, Origin, Request
from llamarig.errors import BusyError, NotFoundError
from tests.unit.daemon.acting import SECONDS, Acting


@pytest.fixture
def acting() -> Acting:
    return Acting()


@pytest.fixture
def jobs(acting: Acting, tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(acting.perform, tmp_path)
    jobs.start()
    yield jobs
    jobs.close(0)
    for _ in jobs.all():
        acting.end()
    assert jobs.close(SECONDS)


@pytest.fixture
def desk(jobs: Jobs) -> Desk:
    return Desk(jobs, lambda: ["chat", "code"], lambda: ["gone"])


def test_words_become_a_request(desk: Desk, acting: Acting) -> None:
    job = desk.ask("switch", {"model": "code", "now": True}, "cli")
    assert acting.wait_for_start() == Request(Kind.SWITCH, "code", Origin.CLI, now=True)
    assert desk.job(job["id"])["state"] == "running"
    assert [item["id"] for item in desk.jobs()] == [job["id"]]
    assert desk.cancel(job["id"])


def test_only_what_serves_can_be_stopped_though_it_is_planned_no_more(desk: Desk, acting: Acting) -> None:
    desk.ask("stop", {"model": "gone"}, "api")
    assert acting.wait_for_start().service == "gone"
    with pytest.raises(NotFoundError, match="'gone'") as caught:
        desk.ask("switch", {"model": "gone"}, "api")
    assert caught.value.remedy == "choose one of: chat, code"


def test_a_switch_does_not_wait_unasked_and_the_others_do(desk: Desk, jobs: Jobs, acting: Acting) -> None:
    desk.ask("switch", {"model": "chat"}, "api")
    acting.wait_for_start()
    with pytest.raises(BusyError):
        desk.ask("switch", {"model": "code"}, "api")
    with pytest.raises(BusyError):
        desk.ask("stop", {"queue": False}, "api")
    desk.ask("switch", {"model": "code", "queue": True}, "api")
    desk.ask("stop", {}, "api")
    desk.ask("reconcile", {"adopt": True}, "playbook")
    assert [(job.kind, job.origin) for job in jobs.waiting()] == [
        ("switch", "api"),
        ("stop", "api"),
        ("reconcile", "playbook"),
    ]
    events = desk.listen(lambda: None, after=0).take()
    assert desk.told(jobs.waiting()[-1].id) == events[-1].id
