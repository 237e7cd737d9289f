from __future__ import annotations

import json
from typing import Any

import pytest

from llamarig.config.policy import Policy, Residency

POLICY = Policy(
    default_service="chat",
    services={"chat": Residency(pinned=True), "code": Residency(idle_seconds=600)},
    minimum_seconds=60,
    hung_seconds=90,
    crash_limit=3,
    crash_window_seconds=300,
)


def test_a_policy_survives_json() -> None:
    assert Policy.from_dict(json.loads(json.dumps(POLICY.to_dict()))) == POLICY


def test_what_is_missing_is_as_usual_and_what_is_newer_is_ignored() -> None:
    assert Policy.from_dict({}) == Policy()
    assert Policy.from_dict({"colour": "blue", "services": {"chat": {"colour": "blue"}}}) == Policy(
        services={"chat": Residency()}
    )


def test_a_service_that_the_policy_does_not_know_stays_as_any_other() -> None:
    assert POLICY.of("chat").pinned
    assert POLICY.of("gone") == Residency()


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"services": []},
        {"services": {"chat": None}},
        {"services": {"chat": {"pinned": "yes"}}},
        {"services": {"chat": {"idle_seconds": "600"}}},
        {"default_service": 1},
        {"minimum_seconds": -1},
        {"hung_seconds": None},
        {"crash_limit": True},
        {"crash_window_seconds": 1.5},
    ],
)
def test_what_is_no_policy_is_refused_as_a_value(data: Any) -> None:
    with pytest.raises(ValueError, match=r"policy|residency|pinned"):
        Policy.from_dict(data)
