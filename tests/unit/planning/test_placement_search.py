"""The search leaves nothing out: what it refuses fits in no way, what it finds is the most, and can be written down."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamarig.config.records import Strategy
from llamarig.planning import fill
from llamarig.planning.fill import Costs, Counts
from llamarig.planning.intent import plan_host
from llamarig.planning.layout import HOST, Layout, Settings
from llamarig.planning.memory import block_count, predict
from llamarig.planning.placement import place
from llamarig.planning.request import PlacementError
from tests.support import HOST as NAME
from tests.support import after, problems
from tests.unit.planning.layouts import RTX4090, RTX5070TI, asked, blocks_with_experts, devices, gpu, refusal, shape
from tests.unit.planning.test_lessons import intent as service_on_one_card
from tests.unit.planning.test_lessons import warned
from tests.unit.planning.test_placement_refusals import intent

BOTH = [RTX4090, RTX5070TI]
MOE, LARGE_MOE = ("gpt-oss-20b", "mxfp4-f16"), ("gpt-oss-120b", "mxfp4-f16")


def shares(total: int, devices_: int) -> Iterator[tuple[int, ...]]:
    """Every way to share out so many blocks."""
    if devices_ == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in shares(total - first, devices_ - 1):
            yield (first, *rest)


def ways(blocks: int, count: int) -> Iterator[Counts]:
    for units in shares(blocks, count):
        for full in itertools.product(*(range(n + 1) for n in units)):
            yield Counts(full, tuple(n - have for n, have in zip(units, full, strict=True)))


@st.composite
def small_cases(draw: st.DrawFn) -> tuple[Costs, list[int], list[int]]:
    """Few blocks, alike or not, on up to three devices that hold about as much as there is."""
    blocks, count = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    alike = draw(st.booleans())
    one = st.integers(0, 12)
    others = [draw(one)] * blocks if alike else draw(st.lists(one, min_size=blocks, max_size=blocks))
    large = st.integers(0, 60)
    experts = [draw(large)] * blocks if alike else draw(st.lists(large, min_size=blocks, max_size=blocks))
    dense = draw(st.integers(0, 2))
    experts = [0] * min(dense, blocks) + experts[dense:]
    costs = Costs(others, experts, draw(st.integers(0, 20)), draw(st.lists(one, min_size=count, max_size=count)))
    most = sum(others) + sum(experts) + costs.head + 12
    budgets = draw(st.lists(st.integers(0, most), min_size=count, max_size=count))
    return costs, budgets, draw(st.permutations(range(count)))


@settings(max_examples=400)
@given(small_cases())
def test_whole_finds_a_way_wherever_there_is_one_and_fills_the_first_of_the_order(
    case: tuple[Costs, list[int], list[int]],
) -> None:
    costs, budgets, order = case
    none = (0,) * len(budgets)
    possible = [
        full for full in shares(len(costs.others), len(budgets)) if fill.fits(costs, Counts(full, none), budgets)
    ]
    best = max(([full[number] for number in order] for full in possible), default=None)
    found = fill.whole(costs, budgets, order)
    assert ([found.full[number] for number in order] if found else None) == best


@settings(max_examples=400)
@given(small_cases())
def test_tail_leaves_no_more_blocks_on_the_host_than_it_must(case: tuple[Costs, list[int], list[int]]) -> None:
    costs, budgets, order = case
    blocks, none = len(costs.others), (0,) * len(budgets)
    least = next(
        (
            host
            for host in range(blocks)
            if any(fill.fits(costs, Counts(full, none, host), budgets) for full in shares(blocks - host, len(budgets)))
        ),
        None,
    )
    found = fill.tail(costs, budgets, order)
    assert (found.host if found else None) == least


@settings(max_examples=300)
@given(small_cases())
def test_partial_holds_as_many_experts_as_any_way_does(case: tuple[Costs, list[int], list[int]]) -> None:
    costs, budgets, order = case
    possible = [way.full for way in ways(len(costs.others), len(budgets)) if fill.fits(costs, way, budgets)]
    best = max(([sum(full), *(full[number] for number in order)] for full in possible), default=None)
    found = fill.partial(costs, budgets, order)
    assert ([sum(found.full), *(found.full[number] for number in order)] if found else None) == best


# Compute buffers depend on the layout, and here the first one that is looked at needs less than the one that is found.
@pytest.mark.parametrize(
    ("strategy", "model", "sizes", "changes"),
    [
        (Strategy.B, LARGE_MOE, (37037,), {"context": 32768}),
        (Strategy.B, ("mixtral-8x7b", "q4_k_m"), (4987,), {"context": 4096}),
        (Strategy.D, ("glm-4.7-flash", "q8_0"), (20128, 6038), {"context": 32768, "ubatch": 2048}),
        (Strategy.D, LARGE_MOE, (6858, 4988, 33491), {"context": 32768, "ubatch": 2048}),
        (Strategy.D, ("qwen3-30b-a3b", "q8_0"), (9278, 4789, 4094), {"context": 32768, "ubatch": 2048}),
    ],
)
def test_a_layout_with_one_block_less_is_found_where_buffers_turn_out_larger(
    strategy: Strategy, model: tuple[str, str], sizes: tuple[int, ...], changes: dict[str, int]
) -> None:
    placed = place(strategy, asked(shape(*model), devices(*sizes), **changes))
    assert placed.memory is not None
    assert all(part.total <= size << 20 for part, size in zip(placed.memory.devices, sizes, strict=True))


@settings(max_examples=100)
@given(
    st.sampled_from([MOE, ("glm-4.7-flash", "q8_0"), ("mixtral-8x7b", "q4_k_m"), ("qwen3-coder-next", "q4_k_m")]),
    st.lists(st.integers(1500, 24564), min_size=1, max_size=3),
    st.sampled_from([512, 2048]),
)
def test_what_d_refuses_does_not_fit_even_without_experts(
    model: tuple[str, str], sizes: list[int], ubatch: int
) -> None:
    request = asked(shape(*model), devices(*sizes), ubatch=ubatch)
    try:
        place(Strategy.D, request)
    except PlacementError:
        none = {device.name: 0 for device in request.devices}
        refusal(Strategy.D, asked(shape(*model), devices(*sizes), ubatch=ubatch, blocks=none))


@pytest.mark.parametrize("reserve", range(0, 6400, 400))
@pytest.mark.parametrize("model", [LARGE_MOE, ("qwen3-coder-next", "ud-q6_k_xl"), ("glm-4.5-air", "q4_k_m")])
def test_what_the_planner_finds_can_be_written_as_blocks(model: tuple[str, str], reserve: int) -> None:
    cards = [RTX4090, RTX5070TI.model_copy(update={"reserve_mib": reserve})]
    found = place(Strategy.D, asked(shape(*model), cards))
    held = blocks_with_experts(found)
    blocks = {RTX4090.name: held[0], RTX5070TI.name: held[1]}
    assert place(Strategy.D, asked(shape(*model), cards, blocks=blocks)).argv == found.argv


def test_blocks_of_a_dense_layout_do_not_count_what_is_not_loaded() -> None:
    placed = place(Strategy.B, asked(shape("glm-4.5-air", "q4_k_m"), devices(49152), blocks={"a": 10}))
    assert after(placed.argv, "--gpu-layers") == str(10 + 1 + 1)  # the output, and the layer that predicts
    assert placed.reason == "blocks 10 on a; 36 of 46 on the CPU"


def test_a_refusal_offers_the_strategy_that_finds_something_on_the_same_cards() -> None:
    (problem,) = problems(intent(LARGE_MOE, *BOTH, strategy="C", server={"ctx_size": 8192}))
    assert problem.remedy.startswith("strategy auto, which finds D: experts of ")
    (problem,) = problems(intent(("qwen3-32b", "q4_k_m"), gpu("small", 2000), strategy="A", gpus=["small"]))
    found = re.search(r"strategy auto, which finds (\w+)", problem.remedy)
    assert found is not None


@pytest.mark.parametrize(
    ("gpus", "message", "remedy"),
    [
        (["rtx-4090", "rtx-4090"], "names rtx-4090 twice", "once"),
        ([], "gpus is empty", "rtx-4090, rtx-5070-ti"),
    ],
)
def test_cards_that_say_nothing_or_too_much_are_refused(gpus: list[str], message: str, remedy: str) -> None:
    for strategy in ("A", "C", "auto", "fit"):
        (problem,) = problems(intent(MOE, *BOTH, strategy=strategy, gpus=gpus))
        assert message in problem.message
        assert remedy in problem.remedy
    assert plan_host(NAME, intent(MOE, *BOTH, strategy="cpu", gpus=[]))["specs"]


def test_cards_stand_in_the_order_in_which_cuda_counts_them() -> None:
    first = RTX4090.model_copy(update={"pci_address": "0000:01:00.0"})
    second = RTX5070TI.model_copy(update={"pci_address": "0000:02:00.0"})
    assert plan_host(NAME, intent(MOE, first, second, strategy="auto"))["specs"]
    (problem,) = problems(intent(MOE, second, first, strategy="auto"))
    assert problem.key == "host_hardware"
    assert "order of the PCI bus" in problem.message


def test_fit_is_refused_where_cards_and_host_together_are_too_small() -> None:
    data = intent(LARGE_MOE, gpu("small", 8192), host_mib=16384, strategy="fit")
    data["llm_profiles_test"]["small"]["files"][0]["bytes"] = 60 << 30
    (problem,) = problems(data)
    assert "the cards and the host together need" in problem.message or "needs more than" in problem.message
    data["llm_profiles_test"]["small"]["files"][0]["bytes"] = 10 << 30
    assert plan_host(NAME, data)["specs"]


def test_a_card_that_cannot_hold_a_servers_context_is_refused_and_not_chosen() -> None:
    tiny = gpu("tiny", 1024)
    assert "tiny needs 1380 of 1024 MiB before a model is loaded" in str(
        refusal(Strategy.A, asked(shape(*MOE), [tiny]))
    )
    placed = place(Strategy.AUTO, asked(shape(*MOE), [tiny, RTX4090]))
    assert (placed.strategy, placed.devices) == (Strategy.A, (1,))
    assert placed.considered == ["tiny has no room for a server"]


@pytest.mark.parametrize("key", ["cache_type_k", "cache_type_v"])
def test_a_type_that_no_cache_can_have_is_refused(key: str) -> None:
    values: dict[str, Any] = {"cache_type_k": "q8_0", "cache_type_v": "q8_0", key: "q6_k"}
    (problem,) = problems(service_on_one_card(**values))
    assert problem.key == f"server.{key}"
    assert "one of: f32, f16" in problem.remedy


def test_mla_keeps_one_cache_so_that_its_types_cannot_differ() -> None:
    (problem,) = problems(service_on_one_card(("glm-4.7-flash", "q4_k_m"), cache_type_k="q8_0"))
    assert (problem.key, problem.remedy) == ("server.cache_type_v", "cache_type_v: q8_0")
    both = service_on_one_card(("glm-4.7-flash", "q4_k_m"), cache_type_k="q8_0", cache_type_v="q8_0")
    assert plan_host(NAME, both)["specs"]


def test_a_prompt_cache_without_a_limit_is_spoken_of() -> None:
    assert warned(service_on_one_card(cache_ram=0)) == []
    (warning,) = warned(service_on_one_card(cache_ram=-1))
    assert "without a limit" in warning


def test_a_card_that_nothing_lies_on_is_spoken_of() -> None:
    (warning,) = warned(service_on_one_card(MOE, strategy="C", cards=BOTH))
    assert warning == "2 cards are seen and 1 used: gpus names those that a service needs"


def test_what_auto_chose_is_held_to_the_same_lessons() -> None:
    data = service_on_one_card(None, strategy="auto", ubatch_size=1024)
    assert any("server.ubatch_size takes memory that --fit needs" in warning for warning in warned(data))


def test_tied_embeddings_lie_twice_on_the_host_where_the_engine_asks_for_the_output_first() -> None:
    model = shape("gemma-4-26b-a4b", "q4_k_m")
    takes = predict(model, Layout(0, (HOST,) * (block_count(model) + 1)), Settings(32768))
    assert takes.host.weights >> 20 == 16580  # llama-fit-params of llama.cpp 0.7.0
