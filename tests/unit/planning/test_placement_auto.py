"""What ``auto`` chooses: the fastest layout that fits, and why it is no faster one."""

from __future__ import annotations

import pytest

from llamarig.config.records import Gpu, Strategy
from llamarig.config.shape import Shape
from llamarig.planning.layout import HOST
from llamarig.planning.placement import place
from llamarig.planning.request import Placement, Request
from tests.support import after
from tests.unit.planning.layouts import (
    RTX4090,
    RTX5070TI,
    asked,
    blocks_with_experts,
    devices,
    gpu,
    refusal,
    shape,
)

MOE = ("gpt-oss-20b", "mxfp4-f16")  # 12.8 GiB
LARGE_MOE = ("gpt-oss-120b", "mxfp4-f16")  # 60.9 GiB
DENSE = ("qwen3-32b", "q4_k_m")  # 18.4 GiB
LARGE_DENSE = ("llama-3.3-70b", "q4_k_m")  # 39.6 GiB
BOTH = [RTX4090, RTX5070TI]


def chosen(request: Request) -> Placement:
    return place(Strategy.AUTO, request)


def test_one_card_is_enough_the_fastest_that_fits_whatever_the_order_of_the_bus() -> None:
    for cards in (BOTH, BOTH[::-1]):
        placed = chosen(asked(shape(*MOE), cards))
        assert (placed.strategy, placed.devices) == (Strategy.A, (cards.index(RTX4090),))
        assert placed.considered == []


def test_a_slower_card_is_enough_where_the_fastest_is_too_small() -> None:
    cards = devices(12000, 24564, bandwidths=(1792, 448))
    placed = chosen(asked(shape(*MOE), cards))
    assert (placed.strategy, placed.devices) == (Strategy.A, (1,))
    (why,) = placed.considered
    assert why.startswith("A on a: does not fit: a needs ")
    assert " of 12000 MiB" in why


def test_a_server_counts_the_cards_that_it_sees_and_no_others() -> None:
    large = chosen(asked(shape("qwen3-30b-a3b"), devices(3000, 16000, 20000, bandwidths=(100, 1792, 1792))))
    assert (large.strategy, large.devices) == (Strategy.C, (1, 2))
    assert "CUDA0" in after(large.argv, "--override-tensor")
    assert "CUDA1" in after(large.argv, "--override-tensor")
    assert "CUDA2" not in after(large.argv, "--override-tensor")


@pytest.mark.parametrize(("count", "needed"), [(2, 2), (4, 2), (8, 2)])
def test_all_experts_lie_on_the_fewest_cards_that_hold_them(count: int, needed: int) -> None:
    placed = chosen(asked(shape("qwen3-30b-a3b"), devices(*(18000,) * count)))
    assert placed.strategy is Strategy.C
    assert placed.devices == tuple(range(needed))
    assert HOST not in blocks_with_experts(placed)
    assert len(placed.considered) == count  # A on each of them


def test_eight_cards_hold_what_four_cannot() -> None:
    placed = chosen(asked(shape(*LARGE_MOE), devices(*(9000,) * 8)))
    assert placed.strategy is Strategy.C
    assert len(placed.devices) == 8
    assert [why.split(":")[0] for why in placed.considered] == [
        *(f"A on {name}" for name in "abcdefgh"),
        *("C on " + ", ".join("abcdefgh"[:count]) for count in range(2, 8)),
    ]


def test_experts_that_do_not_fit_lie_on_the_cpu_and_the_fastest_card_holds_most() -> None:
    placed = chosen(asked(shape(*LARGE_MOE), BOTH))
    assert (placed.strategy, placed.devices) == (Strategy.D, (0, 1))
    held = blocks_with_experts(placed)
    assert held[0] > held[1] > 0
    assert held[0] + held[1] + held[HOST] == 36
    assert [why.split(":")[0] for why in placed.considered] == [
        "A on rtx-4090",
        "A on rtx-5070-ti",
        "C on rtx-4090, rtx-5070-ti",
    ]
    assert all("MiB" in why for why in placed.considered)


def test_the_fastest_card_is_filled_first_wherever_it_stands_on_the_bus() -> None:
    held = [blocks_with_experts(chosen(asked(shape(*LARGE_MOE), cards))) for cards in (BOTH, BOTH[::-1])]
    assert held[0][0] == held[1][1]
    assert abs(held[0][1] - held[1][0]) <= 1  # the output lies on the last of the bus


def test_one_small_card_holds_some_experts() -> None:
    placed = chosen(asked(shape(*LARGE_MOE), [RTX5070TI]))
    assert placed.strategy is Strategy.D
    assert 0 < blocks_with_experts(placed)[0] < 36


def test_a_dense_model_on_one_card() -> None:
    assert chosen(asked(shape(*DENSE), BOTH)).strategy is Strategy.A


def test_a_dense_model_over_two_cards() -> None:
    placed = chosen(asked(shape(*LARGE_DENSE), devices(24564, 24564)))
    assert (placed.strategy, placed.devices) == (Strategy.B, (0, 1))
    assert placed.layout is not None
    assert HOST not in placed.layout.units


def test_a_dense_model_takes_a_third_card_before_it_leaves_blocks_on_the_host() -> None:
    placed = chosen(asked(shape(*LARGE_DENSE), devices(16303, 16303, 16303)))
    assert (placed.strategy, placed.devices) == (Strategy.B, (0, 1, 2))
    assert placed.layout is not None
    assert HOST not in placed.layout.units
    assert placed.considered[-1].startswith("B on a, b: does not fit: ")


def test_a_dense_model_that_all_cards_cannot_hold_leaves_its_first_blocks_on_the_host() -> None:
    placed = chosen(asked(shape(*LARGE_DENSE), BOTH))
    assert (placed.strategy, placed.devices) == (Strategy.B, (0, 1))
    assert placed.layout is not None
    assert placed.layout.units[0] == HOST
    assert placed.layout.units[-1] != HOST
    assert int(after(placed.argv, "--gpu-layers")) == 81 - placed.layout.units.count(HOST)


@pytest.mark.parametrize(("model", "strategy"), [(LARGE_DENSE, Strategy.B), (LARGE_MOE, Strategy.D)])
def test_a_longer_context_leaves_room_for_fewer_blocks(model: tuple[str, str], strategy: Strategy) -> None:
    on_devices = []
    for context in (8192, 65536):
        placed = chosen(asked(shape(*model), BOTH, context=context))
        assert placed.strategy is strategy
        on_devices.append(sum(count for where, count in blocks_with_experts(placed).items() if where != HOST))
    assert on_devices[0] > on_devices[1]


def test_without_a_card_everything_lies_on_the_cpu() -> None:
    placed = chosen(asked(shape(*MOE), []))
    assert (placed.strategy, placed.devices) == (Strategy.CPU, ())
    assert placed.considered == ["the host declares no card"]


def unknown(model: Shape) -> Shape:
    return Shape("qwen9moe", model.metadata, model.vocabulary, model.tensors)


@pytest.mark.parametrize(
    ("model", "why"),
    [(None, "its shape is not known"), (unknown(shape(*MOE)), "the memory model does not know 'qwen9moe'")],
)
def test_a_model_that_cannot_be_reckoned_is_left_to_the_engine(model: Shape | None, why: str) -> None:
    placed = chosen(asked(model, BOTH))
    assert placed.strategy is Strategy.FIT
    assert placed.considered == [f"A to D need a memory model, and {why}"]
    assert placed.memory is None


def test_what_fits_nowhere_is_refused_with_everything_that_was_tried() -> None:
    error = refusal(Strategy.AUTO, asked(shape(*LARGE_MOE), [gpu("tiny", 1500)], host=1 << 30))
    lines = str(error).splitlines()
    assert lines[0] == "finds no layout that fits:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["A on tiny", "D on tiny", "B on tiny", "cpu"]
    assert all("MiB" in line for line in lines[1:])


def test_the_hosts_memory_is_a_budget_of_its_own() -> None:
    request = asked(shape(*LARGE_MOE), BOTH, host=20 << 30)
    assert "the host needs" in str(refusal(Strategy.AUTO, request))
    assert chosen(asked(shape(*LARGE_MOE), BOTH, host=40 << 30)).strategy is Strategy.D


def test_two_cards_of_which_one_cannot_hold_anything() -> None:
    cards: list[Gpu] = [RTX4090, gpu("full", 4096, "NVIDIA GeForce RTX 5090", reserve_mib=4000)]
    placed = chosen(asked(shape(*MOE), cards))
    assert (placed.strategy, placed.devices) == (Strategy.A, (0,))
