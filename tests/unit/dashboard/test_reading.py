from __future__ import annotations

from typing import Any

import pytest

from llamarig.dashboard.answers import Event, Job, Offer, Plan, Status
from llamarig.dashboard.machine import Gpus, Machine
from llamarig.dashboard.reading import number, share, text
from tests.unit.dashboard.fakes import GPUS, HISTORY, JOB, PLAN, SERVICES, SYSTEM, serving, status

NO_NUMBERS: list[Any] = [None, True, "7", [], {}, float("nan"), float("inf"), 10**400, -(10**30)]


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number_is_none(value: Any) -> None:
    assert number(value) is None


def test_texts_are_one_line_and_numbers_are_written() -> None:
    values: list[Any] = ["a\nb\x1b[1m", 7, 7.5, None, True, []]
    assert [text(value) for value in values] == ["a b", "7", "7.5", "", "", ""]


def test_a_share_is_between_none_and_all() -> None:
    assert [share(*pair) for pair in ((None, 1.0), (1.0, None), (1.0, 0.0), (2.0, 1.0), (-1.0, 1.0), (1.0, 2.0))] == [
        *(None, None, None),
        *(1.0, 0.0, 0.5),
    ]


def test_status_as_the_daemon_says_it() -> None:
    read = Status.read(
        status(serving("chat", in_flight=2, pinned=True), job=JOB, given_up={"x": {"reason": "crashed"}})
    )
    assert (read.model, read.name, read.state, read.version) == ("chat", "A Model", "running", "9.8")
    assert read.in_flight == {"chat": 2}
    assert read.active[0].pinned
    assert read.given_up == (("x", "crashed"),)
    assert read.job is not None
    assert (read.job.title, read.job.phase, read.job.over) == ("switch to code", "load", False)


def test_a_job_that_failed_says_why() -> None:
    job = Job.read({"kind": "stop", "state": "failed", "error": {"message": "no", "remedy": "do"}})
    assert job is not None
    assert (job.title, job.over, job.error, job.remedy) == ("stop", True, "no", "do")
    assert Job.read(None) is None


def test_cards_and_system_as_the_daemon_says_them() -> None:
    first, second = Gpus.read(GPUS).cards
    assert (first.name, first.index, first.share, first.services) == ("RTX 4090", 0, 0.5, (("chat", 11264.0),))
    assert (second.name, second.index) == ("RTX 5070 Ti", 1)
    machine = Machine.read(SYSTEM)
    assert (machine.load, machine.services) == ((1.5, 1.0, 0.5), (("chat", 7.5, 20480.0),))


def test_services_plan_and_history_as_the_daemon_says_them() -> None:
    assert [offer.service for offer in Offer.read_all(SERVICES)] == ["chat", "code", "tiny", "bench-chat"]
    plan = Plan.read(PLAN)
    assert [(held.label, held.needed, held.total) for held in plan.memory] == [
        ("rtx4090", 20480.0, 24576.0),
        ("host", 3072.0, 61440.0),
    ]
    newest, oldest = Event.read_all(HISTORY)
    assert (newest.service, newest.seconds, oldest.service) == ("code", 13.75, "chat")
