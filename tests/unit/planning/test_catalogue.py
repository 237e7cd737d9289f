"""Profiles that are based on others, and shapes that are named."""

from __future__ import annotations

from typing import Any

import pytest

from llamarig.config.catalogue import Profile
from llamarig.errors import Problem
from llamarig.planning.catalogue import expand, join_shapes
from tests.support import problems, variables
from tests.unit.config.test_catalogue import SHAPE

FILE = {"name": "a.gguf", "bytes": 1 << 20, "sha256": "a" * 64}
BASE: dict[str, Any] = {
    "title": "Small",
    "description": "a small one",
    "files": [FILE],
    "mmproj": {"name": "mmproj.gguf"},
    "shape": "small.q8_0",
    "repository": "owner/small-GGUF",
    "revision": "0" * 40,
    "licence": "Apache-2.0",
    "capabilities": ["tools"],
    "server": {"ctx_size": 4096, "temp": 0.7, "context_shift": False},
    "clients": {"general": {"temperature": 0.7}},
    "speeds": [{"tokens_per_second": 9, "hardware": "here", "layout": "strategy A", "source": "here"}],
    "notes": ["It is small."],
}


def whole(**said: Any) -> Profile:
    """The profile 'mine' after the one it is based on, with all that is known of shapes."""
    found, wrong = both(said)
    assert wrong == []
    return found["mine"]


def both(said: dict[str, Any], shapes: dict[str, Any] | None = None) -> tuple[dict[str, Profile], list[Problem]]:
    profiles = {"base": Profile.model_validate(BASE), "mine": Profile.model_validate({"based_on": "base", **said})}
    return expand("rig01", profiles, {"small.q8_0": SHAPE} if shapes is None else shapes, ["mine"])


def test_what_a_profile_does_not_say_it_has_of_its_base() -> None:
    mine = whole()
    base = Profile.model_validate(BASE)
    for field in ("title", "description", "files", "mmproj", "repository", "revision", "licence", "capabilities"):
        assert getattr(mine, field) == getattr(base, field), field
    assert (mine.clients, mine.shape) == (base.clients, SHAPE)


def test_what_was_measured_stays_with_what_was_measured() -> None:
    mine = whole()
    assert (mine.speeds, mine.notes) == ([], [])


def test_server_options_are_laid_over_each_other_and_null_takes_one_away() -> None:
    assert whole(server={"ctx_size": 10240, "temp": None}).server == {
        "ctx_size": 10240,
        "temp": None,
        "context_shift": False,
    }


def test_what_a_profile_says_itself_replaces_its_bases() -> None:
    mine = whole(clients={"bench": {"temperature": 0}}, capabilities=[], mmproj=None, description="mine")
    assert list(mine.clients) == ["bench"]
    assert (mine.capabilities, mine.mmproj, mine.description, mine.title) == ([], None, "mine", "Small")


def test_other_files_bring_their_own_shape_and_revision_or_none() -> None:
    mine = whole(files=[{"name": "b.gguf"}])
    assert (mine.shape, mine.repository, mine.revision) == (None, None, None)
    assert mine.licence == "Apache-2.0"


def test_a_profile_of_a_retired_one_is_retired() -> None:
    profiles = {
        "base": Profile.model_validate(BASE | {"retired": "Others are better.", "shape": None}),
        "mine": Profile.model_validate({"based_on": "base"}),
    }
    assert expand("rig01", profiles, {}, ["mine"])[0]["mine"].retired == "Others are better."


@pytest.mark.parametrize(
    ("based_on", "message", "remedy"),
    [
        ("bsae", "there is no profile 'bsae'", "did you mean base?"),
        ("nowhere-near", "there is no profile 'nowhere-near'", "group_vars/all/models/"),
        ("mine", "is itself", "one level only"),
        ("other", "'other' is based on 'base'", "one level only"),
    ],
)
def test_a_base_that_cannot_be_is_a_problem(based_on: str, message: str, remedy: str) -> None:
    profiles = {
        "base": Profile.model_validate(BASE | {"shape": None}),
        "other": Profile.model_validate({"based_on": "base"}),
        "mine": Profile.model_validate({"based_on": based_on}),
    }
    (problem,) = expand("rig01", profiles, {}, ["mine"])[1]
    assert (problem.host, problem.key, problem.message) == ("rig01", "profile mine.based_on", message)
    assert remedy in problem.remedy


def test_what_is_wrong_with_a_profile_that_nobody_uses_is_no_problem() -> None:
    profiles = {"mine": Profile.model_validate({"based_on": "nothing"})}
    assert expand("rig01", profiles, {}, []) == (profiles, [])


@pytest.mark.parametrize(
    ("shapes", "key", "message", "remedy"),
    [
        ({"small.q8": SHAPE}, "profile mine.shape", "there is no shape 'small.q8_0'", "did you mean small.q8?"),
        ({}, "profile mine.shape", "there is no shape 'small.q8_0'", "--shape writes it"),
        ({"small.q8_0": SHAPE | {"tensors": {"a": "q8_0"}}}, "shape small.q8_0", "no type and size", "write it anew"),
        ({"small.q8_0": "q8_0"}, "shape small.q8_0", "a shape is a mapping", "write it anew"),
    ],
)
def test_a_named_shape_that_cannot_be_is_a_problem(shapes: dict[str, Any], key: str, message: str, remedy: str) -> None:
    found, (problem,) = both({}, shapes)
    assert (problem.host, problem.key) == ("rig01", key)
    assert message in problem.message
    assert remedy in problem.remedy
    assert found["mine"].model_shape is None


def test_a_shape_of_a_larger_model_than_the_files_is_a_problem() -> None:
    header = SHAPE | {"source": "header", "tensors": {"token_embd.weight": "f32 1024x257"}}
    _, (problem,) = both({}, {"small.q8_0": header})
    assert "its tensors are 1052672 bytes, and the profile's files 1048576" in problem.message
    assert both({}, {"small.q8_0": header | {"source": "published"}})[1] == []
    assert both({"files": [{"name": "b.gguf"}], "shape": header})[1] == []


def test_parts_with_shapes_are_joined_and_a_name_stands_once() -> None:
    wrong: list[Problem] = []
    parts = {"llm_shapes_a": {"x": SHAPE, "y": SHAPE}, "llm_shapes_b": {"y": SHAPE}, "llm_shapes_c": None, "other": 1}
    assert sorted(join_shapes("rig01", parts, wrong)) == ["x", "y"]
    assert [(item.key, item.message) for item in wrong] == [
        ("shape y", "is defined twice, in llm_shapes_a and llm_shapes_b")
    ]
    wrong.clear()
    assert join_shapes("rig01", {"llm_shapes_a": ["x"]}, wrong) == {}
    assert [item.key for item in wrong] == ["llm_shapes_a"]


def test_a_host_is_planned_with_profiles_that_are_based_on_others() -> None:
    wrong = variables(
        llm_profiles_more={
            "larger": {"based_on": "small", "shape": "of-nobody", "server": {"ctx_size": 8192}},
            "broken": {"based_on": "nothing", "unheard": "of"},
        },
        llm_shapes_more={"small.q8_0": SHAPE},
        service={"profile": "larger"},
    )
    assert [(item.key, item.message) for item in problems(wrong)] == [
        ("profile larger.shape", "there is no shape 'of-nobody'")
    ]


def test_a_broken_base_is_said_once_and_in_its_own_name() -> None:
    data = variables(llm_profiles_more={"larger": {"based_on": "small"}}, service={"profile": "larger"})
    data["llm_profiles_test"]["small"]["flies"] = []
    assert [item.key for item in problems(data)] == ["profile small.flies"]
