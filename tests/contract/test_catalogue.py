"""The catalogue in group_vars: every profile is whole, its options are the engine's, and nothing in it is made up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import yaml

from llamarig.config.catalogue import ModelFile, Profile
from llamarig.config.engine_options import recorded_options
from llamarig.config.records import ServerValue
from llamarig.control.docs_catalogue import read_catalogue
from llamarig.lab import catalogue_shapes
from llamarig.planning import flags
from tests.contract.tree import ROOT

MODELS = ROOT / "group_vars/all/models"
# Where llama.cpp cannot shift the context: states of recurrent blocks cannot be moved.
RECURRENT = {"qwen3next", "qwen35", "qwen35moe"}
BENCH_CONTEXT = 10240
SAMPLERS = {"temp", "top_p", "top_k", "min_p", "presence_penalty"}
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
# As people have typed them before there was this catalogue.
NAMES = [
    *("glm-flash-q4", "glm-flash-q8", "glm-flash-exp", "gpt-oss-120b"),
    *("qwen3-coder-ud-q5", "qwen3-coder-ud-q6", "qwen3-coder-q6k", "qwen3-next-ud-q5"),
    *("qwen35-35b-q6", "qwen35-35b-cld-q6", "qwen35-35b-cld-q8", "qwen35-35b-q4", "qwen35-35b-q8"),
    *("qwen35-122b-q4", "qwen35-27b-q6", "mistral4-119b-q3"),
    *("bench-glm-flash-q4", "bench-glm-flash-q8", "bench-gpt-oss-120b"),
    *("bench-qwen3-coder-ud-q5", "bench-qwen3-coder-ud-q6", "bench-qwen3-next-ud-q5"),
    *("bench-qwen35-35b-q6", "bench-qwen35-35b-cld-q6", "bench-qwen35-35b-cld-q8"),
    *("bench-qwen35-122b-q4", "bench-qwen35-27b-q6", "bench-mistral4-119b-q3"),
]


@cache
def profiles() -> Mapping[str, Profile]:
    return read_catalogue(ROOT)


def published() -> dict[str, Profile]:
    """Those of the outer world: the lab makes its own."""
    return {name: item for name, item in profiles().items() if not name.startswith("tiny-")}


def test_every_profile_is_there_under_its_old_name() -> None:
    assert set(NAMES) <= published().keys()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_of_a_profile_is_the_pinned_engines(name: str) -> None:
    options = recorded_options()
    for key, value in profiles()[name].server.items():
        canonical = flags.canonical(key, options)
        assert canonical == key, "the catalogue says each option by its long name"
        flags.check_value(key, value, options[canonical.replace("_", "-")])


@pytest.mark.parametrize("name", NAMES)
def test_a_person_can_choose_a_profile(name: str) -> None:
    profile = profiles()[name]
    assert profile.title
    assert profile.description
    assert profile.capabilities
    assert profile.clients
    assert profile.notes or profile.bench
    assert isinstance(profile.server["ctx_size"], int)


@pytest.mark.parametrize("name", NAMES)
def test_a_size_has_its_checksum_and_a_checksum_its_size(name: str) -> None:
    for item in files_of(profiles()[name]):
        assert (item.bytes is None) == (item.sha256 is None), item.name


@pytest.mark.parametrize("name", NAMES)
def test_a_model_in_parts_has_all_of_them_in_their_order(name: str) -> None:
    names = [item.name for item in profiles()[name].files]
    if len(names) == 1:
        assert not PART.search(names[0])
        return
    found = [PART.search(item) for item in names]
    assert all(found)
    assert [item and item[1] for item in found] == [f"{number:05}" for number in range(1, len(names) + 1)]
    assert {item and item[2] for item in found} == {f"{len(names):05}"}
    assert len({PART.sub("", item) for item in names}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_speed_can_be_looked_up(name: str) -> None:
    for speed in profiles()[name].speeds:
        assert re.match(r"github\.com/[\w-]+/[\w.-]+( at [0-9a-f]{7})?, \S", speed.source), speed.source
        assert "RTX" in speed.hardware
        assert re.match(r"strategy ([ABCD]|fit)\b|all experts on the CPU", speed.layout), speed.layout


@pytest.mark.parametrize("name", NAMES)
def test_every_model_has_a_shape(name: str) -> None:
    shape = profiles()[name].model_shape
    assert shape is not None
    context = shape.metadata["context_length"]
    assert isinstance(context, int)
    assert ctx_size(profiles()[name]) <= context


@pytest.mark.parametrize("name", NAMES)
def test_a_recurrent_model_never_shifts_its_context(name: str) -> None:
    profile = profiles()[name]
    assert profile.model_shape
    if profile.model_shape.architecture in RECURRENT:
        assert profile.server["context_shift"] is False


def test_bench_profiles_differ_from_what_they_are_based_on_as_benchmarks_need() -> None:
    benches = {name: item for name, item in profiles().items() if item.bench}
    assert {name for name in profiles() if name.startswith("bench-")} == set(benches)
    for name, bench in benches.items():
        assert bench.based_on == name.removeprefix("bench-")
        assert bench.server["ctx_size"] == BENCH_CONTEXT
        base = profiles()[str(bench.based_on)]
        assert (bench.files, bench.shape, bench.capabilities) == (base.files, base.shape, base.capabilities)
        assert sampling(bench.server) == {}, name
        assert [client.temperature for client in bench.clients.values()] == [0]


def test_the_server_starts_with_the_samplers_of_general_tasks() -> None:
    """A client that sends nothing gets what is recommended for everything."""
    for name, profile in published().items():
        if profile.bench:
            continue
        general = profile.clients["general"].model_dump()
        general["temp"] = general["temperature"]
        for key, value in sampling(profile.server).items():
            assert general[key] in (value, None), f"{name}: {key}"


def test_the_files_of_shapes_are_up_to_date() -> None:
    stale = [str(path) for path, text in catalogue_shapes.files(MODELS).items() if path.read_text("utf-8") != text]
    assert stale == [], "run: .venv/bin/python -m llamarig.lab.catalogue_shapes"


def test_every_shape_is_some_profiles() -> None:
    said: set[str] = set()
    named: set[str] = set()
    for path in MODELS.rglob("*.yml"):
        for variable, entries in load(path.read_text("utf-8")).items():
            if variable.startswith("llm_shapes_"):
                said |= entries.keys()
            else:
                named |= {str(entry.get("shape")) for entry in entries.values()}
    assert said
    assert said - named == set()


def test_nothing_in_the_catalogue_is_a_template_or_needs_merging() -> None:
    """Each host templates all of it; Ansible takes a merged key that is also said for a mistake."""
    for path in MODELS.rglob("*.yml"):
        text = path.read_text("utf-8")
        assert "{{" not in text, path
        assert "{%" not in text, path
        assert "<<:" not in text, path


def files_of(profile: Profile) -> list[ModelFile]:
    return [*profile.files, *([profile.mmproj] if profile.mmproj else [])]


def ctx_size(profile: Profile) -> int:
    size = profile.server["ctx_size"]
    assert isinstance(size, int)
    return size


def sampling(server: Mapping[str, ServerValue]) -> dict[str, ServerValue]:
    return {key: value for key, value in server.items() if key in SAMPLERS and value is not None}


def load(text: str) -> dict[str, Any]:
    content = yaml.safe_load(text)
    assert isinstance(content, dict)
    return content
