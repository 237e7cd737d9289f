"""Whatever JSON an inventory holds, planning ends with a plan or with problems, never with a traceback."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llamarig.errors import ConfigError
from llamarig.planning.intent import plan_host
from tests.support import HOST, KEY, variables

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["chat", "small", "cpu", "0.0.0.0", "::1", "fe80::1%eth0", "a\0b", KEY, "/x", "../x"])  # noqa: S104
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
FULL = variables(
    service={"server": {"alias": "x"}, "api_key": KEY, "bind": "10.0.0.5", "memory_mib": 2000, "drain_seconds": 5},
    llm_default_service="chat",
    llm_server_defaults={"threads": 2},
)
Path = tuple[str | int, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every place of a value that something else could stand in."""
    children: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def with_value(path: Path, value: Any) -> dict[str, Any]:
    data: dict[str, Any] = copy.deepcopy(FULL)
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return data


def plans_or_refuses(data: dict[str, Any]) -> None:
    try:
        plan = plan_host(HOST, data)
    except ConfigError as error:
        problems = error.problems
    else:
        assert len(plan["specs"]) == len(data.get("llm_services", []))
        return
    assert problems
    assert all(problem.host == HOST and problem.remedy for problem in problems)


PLACES = [path for path in places(FULL) if path != ("fleet_layer_loaded",)]


@settings(max_examples=200)
@given(path=st.sampled_from(PLACES), value=json_values)
def test_one_wrong_value_anywhere_is_a_problem_and_not_a_traceback(path: Path, value: Any) -> None:
    plans_or_refuses(with_value(path, value))


@settings(max_examples=100)
@given(data=st.fixed_dictionaries({}, optional=dict.fromkeys(FULL, json_values)))
def test_an_inventory_of_anything_is_a_problem_and_not_a_traceback(data: dict[str, Any]) -> None:
    plans_or_refuses(data | {"fleet_layer_loaded": True})


@settings(max_examples=100)
@given(key=st.text(max_size=12), value=json_values)
def test_any_key_of_a_service_and_any_option_is_a_problem_or_planned(key: str, value: Any) -> None:
    plans_or_refuses(with_value(("llm_services", 0, key), value))
    plans_or_refuses(with_value(("llm_services", 0, "server", key), value))
