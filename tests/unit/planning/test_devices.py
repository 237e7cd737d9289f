"""Cards as a server sees them: what of each a model may take, and which is the fastest."""

from __future__ import annotations

import pytest

from llamarig.planning.devices import (
    CONTEXT_MIB,
    DRIVER_MIB,
    MARGIN_MIB,
    MIB,
    Device,
    bandwidth,
    cuda_devices,
    fastest_first,
)
from tests.unit.planning.layouts import RTX4090, RTX5070TI, device, gpu

KEPT = DRIVER_MIB + CONTEXT_MIB + MARGIN_MIB


def test_a_model_may_take_what_driver_context_margin_and_site_leave() -> None:
    plain, display = cuda_devices([RTX4090, RTX5070TI.model_copy(update={"reserve_mib": 3500})])
    assert plain.budget == (24564 - KEPT) * MIB
    assert display.budget == (16303 - KEPT - 3500) * MIB
    assert (plain.reserve, display.reserve) == (0, 3500 * MIB)


def test_a_card_that_is_too_small_for_anything_has_a_budget_of_nothing() -> None:
    (tiny,) = cuda_devices([gpu("tiny", 512)])
    assert tiny.budget == 0


def test_cards_are_counted_from_nought_in_the_order_they_are_given() -> None:
    assert [each.buffer for each in cuda_devices([RTX5070TI, RTX4090])] == ["CUDA0", "CUDA1"]
    assert [each.name for each in cuda_devices([RTX5070TI, RTX4090])] == ["rtx-5070-ti", "rtx-4090"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("NVIDIA GeForce RTX 4090", 1008),
        ("NVIDIA GeForce RTX 5070 Ti", 896),
        ("NVIDIA GeForce RTX 5070", 672),
        ("NVIDIA GeForce RTX 4080 SUPER", 736),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 672),
        ("NVIDIA GeForce RTX 4070 Ti", 504),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 1792),
        ("NVIDIA RTX 6000 Ada Generation", 960),
        ("NVIDIA L40S", 864),
        ("NVIDIA L4", 300),
        ("Tesla T4", 320),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 0),
        ("NVIDIA GeForce GTX 1080", 0),
        ("", 0),
    ],
)
def test_bandwidth_is_found_by_the_longest_name_that_matches_whole_words(model: str, expected: int) -> None:
    assert bandwidth(model) == expected


@pytest.mark.parametrize(
    ("devices", "order"),
    [
        ([device("a", 16000, 896), device("b", 24000, 1008)], [1, 0]),
        ([device("a", 16000, 1008), device("b", 24000, 896)], [0, 1]),
        ([device("a", 16000, 896), device("b", 24000, 896)], [1, 0]),
        ([device("a", 16000, 896), device("b", 16000, 896)], [0, 1]),
        ([device("a", 16000, 1792), device("b", 24000, 0)], [1, 0]),  # one cannot be ranked: the larger first
        ([device("a", 16000)], [0]),
        ([], []),
    ],
)
def test_the_fastest_comes_first_of_equal_ones_the_larger_then_the_first(
    devices: list[Device], order: list[int]
) -> None:
    assert fastest_first(devices) == order
