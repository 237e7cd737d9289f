"""What a profile may say, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llamarig.config.catalogue import Capability, Profile, read_shape

SHAPE: dict[str, Any] = {
    "source": "published",
    "architecture": "llama",
    "vocabulary": 64,
    "metadata": {"block_count": 2},
    "tensors": {"token_embd.weight": "q8_0 32x64", "blk.{0-1}.ffn_up.weight": "f32 32x64"},
}
SPEED: dict[str, Any] = {"tokens_per_second": 61.5, "hardware": "RTX 5060", "layout": "strategy A", "source": "here"}


def profile(**fields: Any) -> Profile:
    return Profile.model_validate({"files": [{"name": "a.gguf"}], **fields})


def refusal(**fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        profile(**fields)
    return str(caught.value)


def test_a_profile_needs_only_a_file() -> None:
    said = profile()
    assert (said.server, said.clients, said.speeds, said.notes, said.bench, said.retired) == (
        {},
        {},
        [],
        [],
        False,
        None,
    )
    assert said.model_shape is None


def test_a_profile_without_files_is_based_on_another() -> None:
    assert Profile.model_validate({"based_on": "other"}).files == []
    with pytest.raises(ValidationError, match="has no files"):
        Profile.model_validate({"description": "nothing"})


def test_an_empty_list_of_files_is_no_way_to_say_none() -> None:
    assert "at least 1 item" in refusal(files=[])


def test_zero_and_false_are_values() -> None:
    said = profile(
        server={"min_p": 0, "context_shift": False},
        clients={"general": {"min_p": 0, "top_k": 0, "temperature": 0, "template": {"enable_thinking": False}}},
    )
    assert said.server == {"min_p": 0, "context_shift": False}
    general = said.clients["general"]
    assert (general.min_p, general.top_k, general.temperature) == (0, 0, 0)
    assert general.template == {"enable_thinking": False}


def test_what_nobody_recommends_is_not_zero() -> None:
    general = profile(clients={"general": {"temperature": 1.0}}).clients["general"]
    assert (general.min_p, general.top_k, general.presence_penalty, general.max_tokens) == (None, None, None, None)


def test_capabilities_are_a_closed_set() -> None:
    assert profile(capabilities=["thinking", "tools"]).capabilities == [Capability.THINKING, Capability.TOOLS]
    assert "'thinking', 'tools', 'vision' or 'fim'" in refusal(capabilities=["telepathy"])


@pytest.mark.parametrize("missing", ["tokens_per_second", "hardware", "layout", "source"])
def test_a_speed_without_its_circumstances_is_refused(missing: str) -> None:
    assert profile(speeds=[SPEED]).speeds[0].tokens_per_second == SPEED["tokens_per_second"]
    said = {key: value for key, value in SPEED.items() if key != missing}
    assert f"speeds.0.{missing}" in refusal(speeds=[said])


@pytest.mark.parametrize(
    "wrong", [{"tokens_per_second": 0}, {"source": ""}, {"hardware": ""}, {"date": "February"}, {"context": 0}]
)
def test_a_speed_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    assert f"speeds.0.{next(iter(wrong))}" in refusal(speeds=[SPEED | wrong])


@pytest.mark.parametrize(
    "wrong", [{"temperature": -0.1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"min_p": 2}, {"repeat_penalty": 0}]
)
def test_a_sampler_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    assert f"clients.general.{next(iter(wrong))}" in refusal(clients={"general": wrong})


def test_a_task_is_a_word() -> None:
    assert "clients" in refusal(clients={"General chat": {}})


def test_a_file_is_named_once_also_as_a_projector() -> None:
    assert "names the file a.gguf twice" in refusal(mmproj={"name": "a.gguf"})
    assert "names the file a.gguf twice" in refusal(files=[{"name": "a.gguf"}, {"name": "a.gguf"}])


def test_a_revision_is_a_whole_commit() -> None:
    assert profile(repository="owner/name-GGUF", revision="0" * 40).revision == "0" * 40
    assert "revision" in refusal(revision="main")
    assert "repository" in refusal(repository="https://hub.example.com/owner/name")


def test_a_shape_is_read_and_stays_as_it_was_written() -> None:
    said = profile(shape=SHAPE)
    assert said.shape == SHAPE
    assert said.model_shape is not None
    assert [tensor.name for tensor in said.model_shape.tensors] == [
        "token_embd.weight",
        "blk.0.ffn_up.weight",
        "blk.1.ffn_up.weight",
    ]


def test_the_name_of_a_shape_is_no_shape_yet() -> None:
    assert profile(shape="small.q8_0").model_shape is None


def test_equal_shapes_are_one_object() -> None:
    assert read_shape(dict(SHAPE)) is read_shape(dict(SHAPE))
    assert profile(shape=SHAPE).model_shape is profile(shape=dict(SHAPE)).model_shape


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (SHAPE | {"tensors": {"a": "q9_9 32x32"}}, "unknown type 'q9_9'"),
        (SHAPE | {"tensors": {"a": "q8_0 31x32"}}, "do not fill blocks of 32"),
        ({"architecture": "llama"}, "it lacks metadata, tensors, vocabulary"),
        (SHAPE | {"vocabulary": True}, "vocabulary is a number of tokens"),
        (7, "must be a shape, or the name of one"),
        (["a"], "must be a shape, or the name of one"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_with_its_reason(wrong: Any, said: str) -> None:
    assert said in refusal(shape=wrong)


def test_a_copy_with_another_shape_does_not_remember_the_old_one() -> None:
    first = profile(shape=SHAPE)
    assert first.model_shape is not None
    assert first.having(shape=None).model_shape is None
    other = first.having(shape=SHAPE | {"vocabulary": 128}).model_shape
    assert other is not None
    assert (other.vocabulary, first.model_shape.vocabulary) == (128, 64)


def test_a_profile_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        profile().description = "other"
