"""What cannot be laid out: refused with numbers, and with remedies that really help, which is tried here."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from llamarig.config.records import Strategy
from llamarig.config.shape import Shape
from llamarig.planning.devices import CONTEXT_MIB, DRIVER_MIB, MARGIN_MIB
from llamarig.planning.intent import plan_host
from llamarig.planning.placement import place
from llamarig.planning.request import DoesNotFitError
from tests.support import HOST, problems, variables
from tests.unit.planning.layouts import (
    RTX4090,
    RTX5070TI,
    asked,
    devices,
    refusal,
    shape,
)

MOE, LARGE_MOE = ("gpt-oss-20b", "mxfp4-f16"), ("gpt-oss-120b", "mxfp4-f16")
DENSE = ("qwen3-32b", "q4_k_m")
BOTH = [RTX4090, RTX5070TI]
KEPT = DRIVER_MIB + CONTEXT_MIB + MARGIN_MIB


def intent(model: tuple[str, str], *cards: Any, host_mib: int = 65536, **service: Any) -> dict[str, Any]:
    """A host's variables with a service of this model."""
    hardware = {
        "memory_mib": host_mib,
        "cpu_threads": 16,
        "gpus": [card.model_dump(exclude_none=True) for card in cards],
    }
    data = variables(host_hardware=hardware, service=service)
    data["llm_profiles_test"]["small"] |= {"shape": shape(*model).to_dict(), "server": {}}
    return data


def follow(data: dict[str, Any], remedy: str) -> dict[str, Any]:
    """Do to the service what a remedy says."""
    result = copy.deepcopy(data)
    (service,) = result["llm_services"]
    server = service.setdefault("server", {})
    if found := re.fullmatch(r"ctx_size (\d+)", remedy):
        server["ctx_size"] = int(found[1])
    elif remedy == "cache_type_k and cache_type_v q8_0":
        server |= {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}
    elif found := re.match(r"strategy (\w+)[,:] ", remedy):
        service["strategy"] = found[1]
    elif remedy.startswith("leave out blocks, and the planner finds: "):
        del service["blocks"]
    else:
        msg = f"nobody can follow {remedy!r}"
        raise AssertionError(msg)
    return result


# What is wrong, and how many remedies are offered.
TOO_LARGE: dict[str, tuple[dict[str, Any], int]] = {
    "A, the context": (intent(MOE, RTX5070TI, strategy="A", server={"ctx_size": 131072}), 3),
    "A, the weights": (intent(DENSE, RTX5070TI, strategy="A", server={"ctx_size": 8192}), 1),
    "B, blocks by hand": (
        intent(DENSE, *BOTH, strategy="B", blocks={"rtx-4090": 20, "rtx-5070-ti": 44}, server={"ctx_size": 32768}),
        2,
    ),
    "B, nothing fits": (intent(DENSE, RTX5070TI, host_mib=9000, strategy="B", server={"ctx_size": 131072}), 1),
    "C, the context": (intent(("qwen3-30b-a3b", "q8_0"), *BOTH, strategy="C", server={"ctx_size": 131072}), 2),
    "C, the weights": (intent(LARGE_MOE, *BOTH, strategy="C", server={"ctx_size": 8192}), 1),
    "D, blocks by hand": (
        intent(LARGE_MOE, *BOTH, strategy="D", blocks={"rtx-4090": 14, "rtx-5070-ti": 5}, server={"ctx_size": 8192}),
        1,
    ),
    "D, the context": (
        intent(("qwen3-30b-a3b", "q8_0"), RTX5070TI, strategy="D", server={"ctx_size": 262144}),
        2,
    ),
    "D, the cache by hand": (
        intent(
            ("qwen3-30b-a3b", "q8_0"),
            *BOTH,
            strategy="D",
            blocks={"rtx-4090": 31, "rtx-5070-ti": 12},
            server={"ctx_size": 65536},
        ),
        3,
    ),
    "auto, the context": (
        intent(("qwen3-4b", "q4_k_m"), RTX5070TI, host_mib=16384, strategy="auto", server={"ctx_size": 262144}),
        2,
    ),
    "cpu, the context": (
        intent(("qwen3-4b", "q4_k_m"), host_mib=10000, strategy="cpu", server={"ctx_size": 131072}),
        1,
    ),
}


@pytest.mark.parametrize(("data", "count"), TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_what_does_not_fit_is_refused_with_numbers_and_remedies_that_help(data: dict[str, Any], count: int) -> None:
    (problem,) = problems(data)
    assert problem.key == f"strategy {data['llm_services'][0]['strategy']}"
    assert re.search(r"\d+ (of|MiB)", problem.message)
    remedies = problem.remedy.split("; or ")
    assert len(remedies) >= count, remedies
    for remedy in remedies:
        assert len(plan_host(HOST, follow(data, remedy))["specs"]) == 1, remedy


def test_the_context_that_a_refusal_names_is_the_largest() -> None:
    data = intent(MOE, RTX5070TI, strategy="A", server={"ctx_size": 131072})
    (problem,) = problems(data)
    (context,) = (int(found) for found in re.findall(r"ctx_size (\d+)", problem.remedy))
    assert plan_host(HOST, follow(data, f"ctx_size {context}"))["specs"]
    assert problems(follow(data, f"ctx_size {context + 1024}"))


def test_a_refusal_says_what_a_card_needs_of_what_it_has_and_for_what() -> None:
    (problem,) = problems(intent(DENSE, RTX5070TI, strategy="A", server={"ctx_size": 8192}))
    found = re.fullmatch(
        r"does not fit: rtx-5070-ti needs (\d+) of (\d+) MiB \(weights (\d+), cache (\d+), compute (\d+)\)",
        problem.message,
    )
    assert found is not None
    need, budget, *parts = map(int, found.groups())
    assert budget == RTX5070TI.memory_mib - KEPT
    assert abs(need - sum(parts)) <= 2  # each is rounded
    assert need > budget


def test_the_host_has_a_budget_too() -> None:
    (problem,) = problems(intent(LARGE_MOE, *BOTH, host_mib=20000, strategy="D", server={"ctx_size": 8192}))
    assert re.search(
        r"the host needs \d+ of 18976 MiB \(weights \d+, cache 0, compute \d+, else \d+\)", problem.message
    )
    assert "ctx_size" not in problem.remedy


@pytest.mark.parametrize(
    ("strategy", "model", "blocks", "message", "remedy"),
    [
        ("B", DENSE, {"rtx-5090": 1}, "blocks names rtx-5090, which is no card of this service", "rtx-4090, rtx-5070"),
        ("B", DENSE, {"rtx-4090": 65}, "blocks names 65 blocks, and the model has 64", "at most 64"),
        ("D", ("glm-4.5-air", "q4_k_m"), {"rtx-4090": 47}, "47 blocks, and the model has 46", "at most 46"),
        ("C", MOE, {"rtx-4090": 12}, "blocks leaves out 12 of the model's 24", "name all 24; or strategy D"),
        ("C", MOE, {}, "blocks leaves out 24", "name all 24"),
        ("A", MOE, {"rtx-4090": 24}, "takes no blocks; B, C and D do", "remove blocks"),
        ("auto", MOE, {"rtx-4090": 24}, "takes no blocks", "remove blocks"),
        ("fit", MOE, {"rtx-4090": 24}, "takes no blocks", "remove blocks"),
        ("cpu", MOE, {"rtx-4090": 24}, "takes no blocks", "remove blocks"),
        ("C", DENSE, None, "the model has none: C is for MoE", "strategy B"),
        ("D", DENSE, None, "the model has none: D is for MoE", "strategy B"),
    ],
)
def test_blocks_that_a_strategy_cannot_lay_are_refused(
    strategy: str, model: tuple[str, str], blocks: dict[str, int] | None, message: str, remedy: str
) -> None:
    named: dict[str, Any] = {} if blocks is None else {"blocks": blocks}
    (problem,) = problems(intent(model, *BOTH, strategy=strategy, **named))
    assert (problem.host, problem.service, problem.key) == (HOST, "chat", f"strategy {strategy}")
    assert message in problem.message
    assert remedy in problem.remedy


def test_blocks_below_zero_are_no_number_of_blocks() -> None:
    (problem,) = problems(intent(MOE, *BOTH, strategy="D", blocks={"rtx-4090": -1}))
    assert problem.key == "llm_services[0].blocks.rtx-4090"


@pytest.mark.parametrize("strategy", ["B", "C", "D"])
def test_a_strategy_that_lays_blocks_needs_a_card_and_a_shape(strategy: str) -> None:
    (problem,) = problems(intent(MOE, strategy=strategy))
    assert "needs a card" in problem.message
    assert "strategy: cpu" in problem.remedy
    shapeless = intent(MOE, *BOTH, strategy=strategy)
    del shapeless["llm_profiles_test"]["small"]["shape"]
    (problem,) = problems(shapeless)
    assert "needs the model's shape" in problem.message
    assert "llamarig gguf FILE|URL --shape" in problem.remedy


def test_fit_needs_a_card() -> None:
    (problem,) = problems(intent(MOE, strategy="fit"))
    assert "needs a card" in problem.message


def unknown(model: Shape) -> Shape:
    return Shape("qwen9moe", model.metadata, model.vocabulary, model.tensors)


@pytest.mark.parametrize("strategy", [Strategy.B, Strategy.C, Strategy.D])
def test_an_architecture_that_nobody_reckons_is_refused_where_the_planner_would_have_to(strategy: Strategy) -> None:
    error = refusal(strategy, asked(unknown(shape(*MOE)), BOTH))
    assert str(error) == "the memory model does not know the architecture 'qwen9moe'"
    assert "strategy: fit" in error.remedy
    assert not isinstance(error, DoesNotFitError)


def test_weights_alone_are_reckoned_of_an_unknown_architecture() -> None:
    model = unknown(shape(*LARGE_MOE))
    assert "does not fit" in str(refusal(Strategy.A, asked(model, [RTX4090])))
    placed = place(Strategy.A, asked(model, devices(80000)))
    assert placed.memory is not None
    assert placed.memory.unknown == ("architecture 'qwen9moe': its cache and compute buffers",)


def test_files_alone_are_reckoned_where_nobody_knows_the_shape() -> None:
    data = intent(MOE, RTX5070TI, strategy="A")
    del data["llm_profiles_test"]["small"]["shape"]
    (spec,) = plan_host(HOST, data)["specs"]
    assert spec["memory"] is None
    data["llm_profiles_test"]["small"]["files"][0]["bytes"] = (RTX5070TI.memory_mib - KEPT + 1) << 20
    (problem,) = problems(data)
    assert "rtx-5070-ti needs more than" in problem.message


def test_a_card_without_room_for_anything_is_refused_and_not_divided_by() -> None:
    full = RTX4090.model_copy(update={"reserve_mib": RTX4090.memory_mib - 1})
    for strategy, model in (("A", MOE), ("B", DENSE), ("C", MOE), ("D", MOE), ("auto", MOE)):
        data = intent(model, full, host_mib=4000, strategy=strategy)
        (problem,) = problems(data)
        assert full.name in problem.message
        assert "MiB" in problem.message
