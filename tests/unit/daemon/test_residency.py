from __future__ import annotations

import pytest

from llamarig.config.policy import Policy, Residency
from llamarig.daemon import residency
from llamarig.daemon.request import Kind, Origin, Request
from llamarig.daemon.residency import Idle
from llamarig.daemon.state import GivenUp, Serving, State
from llamarig.runtime.door import Traffic

KNOWN = ["alpha", "beta", "gamma"]
STAY = {"beta": Residency(idle_seconds=600), "gamma": Residency(pinned=True, idle_seconds=600)}
POLICY = Policy(default_service="alpha", services=STAY, minimum_seconds=60)


def state(*names: str, since: float = 0.0, given_up: tuple[str, ...] = (), stopped: bool = False) -> State:
    active = tuple(Serving(name, "0" * 64, since) for name in names)
    return State(active, stopped=stopped, given_up={name: GivenUp(1.0, "it fell") for name in given_up})


def asked(present: State, seconds: float = 700.0, now: float = 10_000.0, policy: Policy = POLICY) -> Request | None:
    return residency.idle_request(policy, present, dict.fromkeys(present.names, seconds), now, KNOWN)


# ---- since when it is idle ----


def test_a_service_is_idle_since_the_last_request_that_the_door_remembers() -> None:
    assert Idle.first(Traffic(0, 9, 400), age=1000.0, time=5000.0).seconds(5000.0) == 400.0


def test_a_request_to_the_service_before_it_on_the_port_does_not_count() -> None:
    assert Idle.first(Traffic(0, 9, 400), age=30.0, time=5000.0).seconds(5000.0) == 30.0


@pytest.mark.parametrize("traffic", [None, Traffic(2, 9, 400), Traffic(0, 0, None)])
def test_where_nobody_knows_it_counts_from_now(traffic: Traffic | None) -> None:
    assert Idle.first(traffic, age=9000.0, time=5000.0).seconds(5001.0) == 1.0


def test_a_clock_that_was_set_back_makes_nobody_idle() -> None:
    assert Idle.first(Traffic(0, 9, 400), age=-9000.0, time=5000.0).seconds(5000.0) == 0.0


def test_a_request_that_lasts_for_an_hour_ends_now() -> None:
    idle = Idle(1000.0, 7)
    for time in range(1000, 4600, 5):
        idle = idle.seen(Traffic(1, 8, 3600), float(time))
    assert idle.seen(Traffic(0, 8, 3600), 4600.0).seconds(4600.0) == 5.0


def test_a_request_between_two_looks_is_seen_by_the_count() -> None:
    assert Idle(1000.0, 7).seen(Traffic(0, 8, 2), 1500.0).since == 1500.0
    assert Idle(1000.0, 7).seen(Traffic(0, 7, 500), 1500.0).since == 1000.0


def test_an_engine_at_work_is_not_idle_though_the_door_says_nothing() -> None:
    assert Idle(1000.0, 7).seen(None, 1500.0, busy=True) == Idle(1500.0, 7)
    assert Idle(1000.0, 7).seen(None, 1500.0) == Idle(1000.0, 7)


# ---- who leaves ----


def test_an_idle_service_leaves_for_the_default_one() -> None:
    assert asked(state("beta")) == Request(Kind.SWITCH, "alpha", Origin.IDLE, "beta had no request for 700 s")
    assert asked(state("beta"), seconds=599.0) is None


def test_an_idle_service_beside_the_default_one_is_stopped() -> None:
    assert asked(state("beta", "alpha")) == Request(Kind.STOP, "beta", Origin.IDLE, "beta had no request for 700 s")


def test_an_idle_service_of_a_host_without_a_default_is_stopped() -> None:
    found = asked(state("beta"), policy=Policy(services=STAY))
    assert found is not None
    assert found.kind is Kind.STOP


def test_a_default_service_that_this_host_runs_no_more_is_none() -> None:
    request = residency.idle_request(POLICY, state("beta"), {"beta": 700.0}, 9999.0, ["beta"])
    assert request is not None
    assert request.kind is Kind.STOP


def test_an_idle_service_stays_where_the_default_one_was_given_up() -> None:
    assert asked(state("beta", given_up=("alpha",))) is None


@pytest.mark.parametrize("name", ["alpha", "gamma", "unknown"])
def test_neither_the_default_nor_a_pinned_service_ever_leaves_nor_one_without_a_limit(name: str) -> None:
    everywhere = Policy(default_service="alpha", services={**STAY, "alpha": Residency(idle_seconds=1)})
    assert asked(state(name), seconds=1e9, policy=everywhere) is None


def test_a_service_serves_for_its_minimum_first() -> None:
    assert asked(state("beta", since=9950.0), policy=POLICY) is None
    assert asked(state("beta", since=9940.0), policy=POLICY) is not None
    assert asked(state("beta", since=99_999.0), policy=POLICY) is not None  # the clock was set back


@pytest.mark.parametrize(
    ("since", "seconds"),
    [([], 0.0), ([940.0], 0.0), ([970.0], 30.0), ([970.0, 990.0, 100.0], 50.0), ([1000.0], 60.0), ([2000.0], 0.0)],
)
def test_a_switch_waits_until_the_youngest_has_served_its_minimum(since: list[float], seconds: float) -> None:
    leaving = [Serving(f"s{number}", "0" * 64, moment) for number, moment in enumerate(since)]
    assert residency.remaining(leaving, POLICY, 1000.0) == seconds


# ---- who returns ----


@pytest.mark.parametrize(
    ("given_up", "before", "names"),
    [
        ((), [], ["alpha", "alpha"]),
        ((), ["beta", "gamma"], ["alpha", "beta", "alpha", "beta"]),
        # What made the default fail may be over.
        (("alpha",), ["alpha", "beta"], ["beta", "alpha", "beta"]),
        (("alpha", "beta"), ["beta", "alpha"], ["alpha", "alpha"]),
        ((), ["removed"], ["alpha", "alpha"]),
    ],
)
def test_the_default_service_returns_else_the_one_before_it(
    given_up: tuple[str, ...], before: list[str], names: list[str]
) -> None:
    present = state(given_up=given_up)
    assert [residency.comeback(POLICY, present, KNOWN, before, number) for number in range(len(names))] == names


def test_a_host_without_services_has_none_to_return() -> None:
    assert residency.comeback(Policy(), state(), [], [], 0) is None
    assert residency.comeback(POLICY, state(), [], ["beta"], 0) is None


def test_attempts_come_later_and_later_and_every_ten_minutes_in_the_end() -> None:
    pauses = [residency.comeback_pause(attempts, given_up=False) for attempts in range(8)]
    assert pauses == [0, 60, 120, 240, 480, 600, 600, 600]
    assert residency.comeback_pause(0, given_up=True) == 30
    assert residency.comeback_pause(10_000, given_up=True) == 600


def test_who_served_is_in_the_history() -> None:
    events = [
        {"kind": "switch", "service": "beta", "outcome": "ok"},
        {"kind": "switch", "service": "alpha", "outcome": "ok"},
        {"kind": "switch", "service": "gamma", "outcome": "failed"},
        {"kind": "health", "service": "gamma", "outcome": "ok"},
        {"kind": "switch", "service": "beta", "outcome": "ok"},
        {"kind": "stop", "service": "beta", "outcome": "ok"},
        {"outcome": "ok"},
    ]
    assert residency.served_before(events) == ["beta", "alpha"]
