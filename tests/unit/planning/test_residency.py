"""Who may serve when: ports that are shared, services that stay or leave, and what of it makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from llamarig.config.policy import Policy, Residency
from llamarig.errors import Problem
from llamarig.planning.intent import plan_host
from tests.support import HOST, KEY, problems, variables

CHAT = variables()["llm_services"][0] | {"memory_mib": 1500}
CODE = CHAT | {"name": "code"}
LONG = CHAT | {"name": "long", "port": 8090}


def host(*services: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return variables(llm_services=list(services), **changes)


def the_problem(*services: dict[str, Any], **changes: Any) -> Problem:
    (problem,) = problems(host(*services, **changes))
    return problem


def test_services_share_a_port_and_the_plan_says_so() -> None:
    plan = plan_host(HOST, host(CHAT, CODE, LONG))
    assert plan["ports"] == [
        {"port": 8080, "address": "127.0.0.1:8080", "services": ["chat", "code"]},
        {"port": 8090, "address": "127.0.0.1:8090", "services": ["long"]},
    ]
    assert plan["notes"] == ["chat and code take turns on port 8080"]


def test_many_services_on_a_port_are_counted() -> None:
    many = [CHAT | {"name": f"number-{number}"} for number in range(9)]
    assert plan_host(HOST, host(*many))["notes"] == ["9 services take turns on port 8080"]


@pytest.mark.parametrize(
    ("bind", "address"),
    [
        ("127.0.0.1", "127.0.0.1:8080"),
        ("0.0.0.0", "0.0.0.0:8080"),  # noqa: S104  nothing is bound
        ("::1", "[::1]:8080 v6only"),
        ("::", "[::]:8080 v6only"),
        ("2001:db8::10", "[2001:db8::10]:8080 v6only"),
    ],
)
def test_an_address_is_the_doors(bind: str, address: str) -> None:
    (port,) = plan_host(HOST, host(CHAT | {"bind": bind, "api_key": KEY}))["ports"]
    assert port["address"] == address


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("bind", {"bind": "192.0.2.10"}, {"bind": "127.0.0.1"}),
        ("bind", {"bind": "::1"}, {"bind": "127.0.0.1"}),
        ("sources", {"bind": "192.0.2.10", "sources": ["192.0.2.0/24"]}, {"bind": "192.0.2.10"}),
    ],
)
def test_a_port_that_is_shared_has_one_address_and_one_set_of_senders(
    key: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    problem = the_problem(CHAT | one | {"api_key": KEY}, CODE | other | {"api_key": KEY})
    assert (problem.host, problem.service, problem.key) == (HOST, "code", key)
    assert problem.message.startswith(f"services 'chat' and 'code' share port 8080, with {key} ")
    assert f"say the same {key} for both" in problem.remedy


def test_the_order_of_sources_makes_no_difference() -> None:
    both = {"bind": "192.0.2.10", "api_key": KEY, "sources": ["192.0.2.0/24", "198.51.100.7"]}
    assert plan_host(HOST, host(CHAT | both, CODE | both | {"sources": both["sources"][::-1]}))["openings"]


def test_the_port_of_the_management_api_stays_its_own() -> None:
    found = problems(host(CHAT | {"port": 8081}, CODE | {"port": 8081}))
    assert [(problem.service, problem.key) for problem in found] == [("chat", "port"), ("code", "port")]


@pytest.mark.parametrize("port", [8090, "8090"])
def test_the_port_of_the_management_api_is_the_one_that_it_was_given(port: int | str) -> None:
    elsewhere = {"agent_api_port": port}
    assert plan_host(HOST, host(CHAT | {"port": 8081}, **elsewhere))["specs"][0]["port"] == 8081
    problem = the_problem(CHAT | {"port": 8090}, **elsewhere)
    assert (problem.key, problem.message) == ("port", "8090 belongs to the management API")


@pytest.mark.parametrize("port", [80, "many", 70000])
def test_a_port_that_the_management_api_cannot_have_is_refused_by_its_variable(port: int | str) -> None:
    assert the_problem(CHAT, agent_api_port=port).key == "agent_api_port"


def test_a_policy_is_as_usual_where_nothing_is_said() -> None:
    policy = Policy.from_dict(plan_host(HOST, host(CHAT, CODE))["policy"])
    assert policy == Policy(default_service="chat", services={"chat": Residency(), "code": Residency()})


def test_what_is_said_is_in_the_policy_in_seconds() -> None:
    plan = plan_host(
        HOST,
        host(
            CHAT | {"pinned": True},
            LONG | {"idle_minutes": 30},
            llm_minimum_minutes=10,
            llm_hung_seconds=60,
            llm_crash_limit=3,
            llm_crash_window_minutes=5,
        ),
    )
    assert Policy.from_dict(plan["policy"]) == Policy(
        default_service="chat",
        services={"chat": Residency(pinned=True), "long": Residency(idle_seconds=1800)},
        minimum_seconds=600,
        hung_seconds=60,
        crash_limit=3,
        crash_window_seconds=300,
    )


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("llm_minimum_minutes", -1, "greater than or equal to 0, not -1"),
        ("llm_minimum_minutes", "10", "valid integer, not '10'"),
        ("llm_hung_seconds", 7, "greater than or equal to 10, not 7"),
        ("llm_crash_limit", 0, "greater than or equal to 1, not 0"),
        ("llm_crash_window_minutes", -5, "greater than 0, not -5"),
    ],
)
def test_a_variable_of_the_policy_is_reported_by_its_own_name(variable: str, value: object, said: str) -> None:
    problem = the_problem(CHAT, **{variable: value})
    assert (problem.host, problem.key) == (HOST, variable)
    assert said in problem.message


def test_a_variable_of_the_policy_that_is_misspelt_is_refused() -> None:
    problem = the_problem(CHAT, llm_minimum_minuts=5)
    assert (problem.key, problem.remedy) == ("llm_minimum_minuts", "did you mean llm_minimum_minutes?")


@pytest.mark.parametrize(
    ("changes", "said", "remedy"),
    [
        ({"pinned": True}, "5, but the service is pinned as well", "keep one of pinned and idle_minutes"),
        ({}, "5, but every service stays for llm_minimum_minutes, 6", "at least 6"),
    ],
)
def test_an_idle_time_that_contradicts_another_word_is_refused(changes: dict[str, Any], said: str, remedy: str) -> None:
    problem = the_problem(CHAT, LONG | {"idle_minutes": 5} | changes, llm_minimum_minutes=6)
    assert (problem.host, problem.service, problem.key) == (HOST, "long", "idle_minutes")
    assert said in problem.message
    assert remedy in problem.remedy


def test_the_default_service_is_not_the_one_that_leaves() -> None:
    problem = the_problem(CHAT, LONG | {"idle_minutes": 5}, llm_default_service="long")
    assert (problem.service, problem.key) == ("long", "idle_minutes")
    assert "the default service is the one that returns" in problem.message


def test_two_pinned_services_on_one_port_are_refused() -> None:
    problem = the_problem(CHAT | {"pinned": True}, CODE | {"pinned": True})
    assert (problem.host, problem.service, problem.key) == (HOST, "code", "pinned")
    assert "true for chat and code, which take turns on port 8080" in problem.message
    assert "a port of its own" in problem.remedy


def test_pinned_services_that_have_no_room_for_each_other_are_refused() -> None:
    problem = the_problem(
        CHAT | {"pinned": True, "memory_mib": 2000}, LONG | {"pinned": True, "memory_mib": 2000}, CODE
    )
    assert (problem.host, problem.service, problem.key) == (HOST, "long", "pinned")
    assert "chat and long, which do not fit together: host has 3.50 GiB for services, and they take 3.91" in (
        problem.message
    )
    assert "pin fewer of them" in problem.remedy


def test_pinned_services_that_fit_together_are_accepted() -> None:
    assert plan_host(HOST, host(CHAT | {"pinned": True}, LONG | {"pinned": True}))["notes"] == []


def test_a_pinned_default_is_accepted_and_the_plan_says_whom_it_keeps_out() -> None:
    plan = plan_host(HOST, host(CHAT | {"pinned": True}, CODE, LONG))
    assert plan["notes"] == [
        "chat and code take turns on port 8080",
        "chat is pinned on port 8080: code can serve only after it was stopped",
    ]
