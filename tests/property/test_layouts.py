"""Any strategy, cards, blocks and settings over real shapes: a plan that keeps what it says, or a remedy that helps."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llamarig.errors import ConfigError, Problem
from llamarig.lab.ghosts import published_shape
from llamarig.planning.intent import plan_host
from tests.support import HOST, after, variables
from tests.unit.planning.layouts import overrides, shape, weights_by_engine

MODELS = {
    "dense": ("qwen3-32b", "q4_k_m"),
    "tied": ("qwen3-4b", "q4_k_m"),
    "windows": ("gpt-oss-20b", "mxfp4-f16"),
    "dense-windows": ("gemma-3-12b", "q4_k_m"),
    "mla": ("glm-4.7-flash", "q8_0"),
    "mtp": ("glm-4.5-air", "q4_k_m"),
    "hybrid": ("qwen3-coder-next", "q4_k_m"),
    "hybrid-mtp": ("qwen3.5-35b-a3b-mtp", "q4_k_m"),
    "moe": ("mixtral-8x7b", "q4_k_m"),
}
STRATEGIES = ["A", "B", "C", "D", "fit", "auto", "cpu"]
CARDS = ["NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 5070 Ti", "NVIDIA GeForce RTX 3060", "a card that nobody knows"]
SERVER: dict[str, list[Any]] = {
    "ctx_size": [0, 1, 512, 8192, 65536, 1 << 20, 10**12, "9000", -1],
    "parallel": [-1, 0, 1, 3, 64],
    "kv_unified": [True, False],
    "batch_size": [1, 512, 4096],
    "ubatch_size": [0, 1, 512, 2048, -1],
    "cache_type_k": ["q8_0", "q4_0", "f32"],
    "cache_type_v": ["q8_0", "iq4_nl"],
    "flash_attn": ["auto", "off", True, False, ["on"]],
    "swa_full": [True],
    "kv_offload": [False],
    "op_offload": [False],
    "spec_type": ["draft-mtp"],
    "cache_ram": [0, 4096, None],
    "ctx_checkpoints": [0, 10**6],
    "context_shift": [True],
    "lora": [["a", "b"]],
}


@cache
def profile_shape(model: str) -> dict[str, Any]:
    return published_shape(*MODELS[model]).to_dict()


@st.composite
def intents(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A model's name and a host's variables with one service of it."""
    model = draw(st.sampled_from(sorted(MODELS)))
    count = draw(st.integers(0, 8))
    cards = [
        {
            "name": f"card-{number}",
            "uuid": f"GPU-00000000-0000-0000-0000-{number:012}",
            "model": draw(st.sampled_from(CARDS)),
            "memory_mib": (memory := draw(st.sampled_from([1024, 4096, 12288, 16303, 24564, 81559]))),
            "compute_capability": "8.9",
            "reserve_mib": draw(st.sampled_from([0, 0, 512, memory - 1])),
        }
        for number in range(count)
    ]
    service: dict[str, Any] = {"strategy": draw(st.sampled_from(STRATEGIES))}
    names = [card["name"] for card in cards]
    if draw(st.booleans()) and names:
        service["gpus"] = draw(st.lists(st.sampled_from([*names, "none"]), max_size=3))
    if draw(st.integers(0, 3)) == 0:
        service["blocks"] = draw(st.dictionaries(st.sampled_from([*names, "none"]), st.integers(0, 50), max_size=4))
    keys = draw(st.lists(st.sampled_from(sorted(SERVER)), max_size=4, unique=True))
    service["server"] = {key: draw(st.sampled_from(SERVER[key])) for key in keys}
    hardware = {"memory_mib": draw(st.sampled_from([2048, 32768, 262144])), "cpu_threads": 8, "gpus": cards}
    data = variables(service=service, host_hardware=hardware)
    data["llm_profiles_test"]["small"] |= {"shape": profile_shape(model), "server": {}}
    return model, data


def outcome(data: dict[str, Any]) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Plan; return the plan, or why there is none."""
    try:
        return plan_host(HOST, data), []
    except ConfigError as error:
        return None, error.problems


@settings(max_examples=300)
@given(intents())
def test_a_plan_keeps_within_every_budget_and_lays_tensors_where_it_says(case: tuple[str, dict[str, Any]]) -> None:
    model, data = case
    plan, refused = outcome(data)
    if plan is None:
        assert refused
        assert all(problem.message and problem.remedy for problem in refused)
        return
    (spec,) = plan["specs"]
    argv = spec["argv"]
    assert spec["asked"] == data["llm_services"][0]["strategy"]
    assert spec["strategy"] != "auto"
    assert set(spec["gpus"]) <= {card["uuid"] for card in data["host_hardware"]["gpus"]}
    assert ("--override-tensor" in argv) == (spec["strategy"] in {"C", "D"})
    assert ("--tensor-split" in argv) == (spec["strategy"] in {"B", "C", "D"})
    if spec["strategy"] == "fit":
        assert len(after(argv, "--fit-target").split(",")) == len(spec["gpus"])
        assert spec["memory"] is None
        return
    parts = spec["memory"]["devices"]
    assert [part["uuid"] for part in parts] == spec["gpus"]
    for part in parts:
        taken = part["context"] + part["weights"] + part["cache"] + part["compute"]
        if taken > part["context"]:
            assert taken + part["kept"] <= part["memory"] + 2  # parts are rounded to MiB
    host = spec["memory"]["host"]
    assert host["weights"] + host["cache"] + host["compute"] + host["other"] <= host["limit"] + 2
    if spec["strategy"] == "cpu":
        return
    shaped = shape(*MODELS[model])
    loaded = "draft-mtp" in argv
    skipped = 0 if loaded else shaped.metadata.get("nextn_predict_layers", 0)
    assert isinstance(skipped, int)
    buffers = [f"CUDA{number}" for number in range(len(parts))]
    held = weights_by_engine(shaped, argv, buffers, skipped)
    for part, buffer in zip(parts, buffers, strict=True):
        assert abs(part["weights"] - held.get(buffer, 0) / (1 << 20)) <= 1
    assert abs(host["weights"] - held["CPU"] / (1 << 20)) <= 1
    for pattern in overrides(argv):
        assert any(re.search(pattern, tensor.name) for tensor in shaped.tensors)


def followed(data: dict[str, Any], remedy: str) -> dict[str, Any] | None:
    """Do what a remedy says; None where it is no single step."""
    result = copy.deepcopy(data)
    (service,) = result["llm_services"]
    if found := re.fullmatch(r"ctx_size (\d+)", remedy):
        service["server"]["ctx_size"] = int(found[1])
    elif remedy == "cache_type_k and cache_type_v q8_0":
        service["server"] |= {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}
    elif remedy.startswith("leave out blocks, and the planner finds: "):
        del service["blocks"]
    else:
        return None
    return result


@settings(max_examples=200)
@given(intents())
def test_what_a_refusal_offers_is_accepted(case: tuple[str, dict[str, Any]]) -> None:
    _, data = case
    for problem in outcome(data)[1]:
        for remedy in problem.remedy.split("; or "):
            better = followed(data, remedy)
            assert better is None or outcome(better)[0], f"{problem.message}: {remedy}"
