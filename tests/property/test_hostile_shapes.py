"""Whatever stands in a shape that somebody wrote or a header held, planning ends with a plan or with a remedy."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.test_layouts import MODELS, STRATEGIES, outcome, profile_shape
from tests.support import variables
from tests.unit.planning.layouts import RTX4090, RTX5070TI

VALUES: list[Any] = [0, 1, -1, 7, 10**6, 1 << 40, 1 << 63, True, False, "x", "", 1.5, -0.5, [], [0], [1, 2], [True] * 4]
KEYS = ["nextn_predict_layers", "attention.sliding_window", "attention.shared_kv_layers", "full_attention_interval"]
ARCHITECTURES = ["llama", "qwen3moe", "deepseek2", "gpt-oss", "qwen3next", "mamba", "gemma4", "t5", "unknown9", ""]
SIZES = ["256", "256x256", "4096x1", "256x256x256x256", "32x1x1"]


@st.composite
def mutations(draw: st.DrawFn) -> dict[str, Any]:
    """A real shape with up to three things in it that cannot be, or are not as they should be."""
    shape = copy.deepcopy(profile_shape(draw(st.sampled_from(sorted(MODELS)))))
    metadata, tensors = shape["metadata"], shape["tensors"]
    for _ in range(draw(st.integers(1, 3))):
        what = draw(st.sampled_from(["value", "value", "missing", "tensor", "size", "name", "architecture", "words"]))
        key = draw(st.sampled_from([*metadata, *KEYS]))
        name = draw(st.sampled_from(sorted(tensors)))
        if what == "value":
            metadata[key] = draw(st.sampled_from(VALUES))
        elif what == "missing":
            metadata.pop(key, None)
        elif what == "architecture":
            shape["architecture"] = draw(st.sampled_from(ARCHITECTURES))
        elif what == "words":
            shape["vocabulary"] = draw(st.sampled_from([0, 1, 10**9]))
        elif len(tensors) > 1:
            written = tensors.pop(name)
            if what == "size":
                tensors[name] = f"{written.split()[0]} {draw(st.sampled_from(SIZES))}"
            elif what == "name":
                front = draw(st.sampled_from(["x.", "foo.blk.1.", "blk.{4000}.", "blk.{0-70}."]))
                tensors[front + name.split(".", 2)[-1]] = written
    return shape


@settings(max_examples=400)
@given(mutations(), st.sampled_from(STRATEGIES), st.sampled_from([None, {"rtx-4090": 3}, {"rtx-4090": 0}]))
def test_a_shape_that_cannot_be_is_a_problem_and_not_a_traceback(
    shape: dict[str, Any], strategy: str, blocks: dict[str, int] | None
) -> None:
    service: dict[str, Any] = {"strategy": strategy, **({"blocks": blocks} if blocks else {})}
    cards = [card.model_dump(exclude_none=True) for card in (RTX4090, RTX5070TI)]
    data = variables(service=service, host_hardware={"memory_mib": 65536, "cpu_threads": 8, "gpus": cards})
    data["llm_profiles_test"]["small"] |= {"shape": shape, "server": {}}
    plan, refused = outcome(data)
    assert plan is not None or refused
    assert all(problem.message and problem.remedy for problem in refused)
