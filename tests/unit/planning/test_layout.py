"""Which block lies on which device: by the engine's own arithmetic, and by patterns that match what they should."""

from __future__ import annotations

import re
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamarig.planning.layout import HOST, assign_units, blocks_pattern

# What llama.cpp 0.7.0 said ("layer N assigned to device") of models of so many blocks, with --gpu-layers and
# --tensor-split, on RPC devices. Runs of units, the output last: 5xCPU 3x0 1x1.
RECORDED: list[tuple[int, int, tuple[float, ...], str]] = [
    (1, 2, (1, 1), "1x0 1x1"),
    (4, 3, (0, 2, 1), "2xCPU 2x1 1x2"),
    (4, 5, (0, 5), "5x1"),
    (8, 0, (3, 2), "9xCPU"),
    (8, 1, (3, 2), "8xCPU 1x0"),
    (8, 4, (3, 2), "5xCPU 3x0 1x1"),
    (8, 9, (5, 4), "5x0 4x1"),
    (8, 99, (3, 2), "6x0 3x1"),
    (13, 6, (7, 3), "8xCPU 5x0 1x1"),
    (13, 14, (1, 0, 3, 0, 10), "1x0 3x2 10x4"),
    (13, 14, (1, 1), "7x0 7x1"),
    (32, 20, (0.1, 0.2, 0.7), "13xCPU 2x0 4x1 14x2"),
    (32, 33, (0.3, 0.3, 0.3), "11x0 11x1 11x2"),
    (32, 33, (24064, 15819), "20x0 13x1"),
    (32, 33, (8, 9, 16), "8x0 9x1 16x2"),
    (47, 30, (14, 33), "18xCPU 9x0 21x1"),
    (47, 47, (1,) * 8, "1xCPU 6x0 6x1 6x2 6x3 6x4 6x5 6x6 5x7"),
    (47, 48, (14, 33), "15x0 33x1"),
    (47, 48, (35, 13), "35x0 13x1"),
    (48, 30, (0.333, 0.667), "19xCPU 10x0 20x1"),
    (48, 49, (0, 0, 49), "49x2"),
    (48, 49, (1, 3), "13x0 36x1"),
    (48, 49, (37, 12), "37x0 12x1"),
    (48, 49, (7, 6, 6, 6, 6, 6, 6, 6), "7x0 6x1 6x2 6x3 6x4 6x5 6x6 6x7"),
]


@pytest.mark.parametrize(("blocks", "gpu_layers", "split", "runs"), RECORDED)
def test_units_lie_where_the_engine_laid_them(
    blocks: int, gpu_layers: int, split: tuple[float, ...], runs: str
) -> None:
    units = assign_units(blocks, gpu_layers, split)
    assert len(units) == blocks + 1
    assert " ".join(f"{len(list(g))}x{'CPU' if d == HOST else d}" for d, g in groupby(units)) == runs


@settings(max_examples=300)
@given(host=st.integers(0, 90), counts=st.lists(st.integers(0, 200), min_size=1, max_size=8).filter(any))
def test_counts_of_units_as_proportions_lay_exactly_these_counts(host: int, counts: list[int]) -> None:
    on_devices = sum(counts)
    units = assign_units(host + on_devices - 1, on_devices, counts)
    assert [units.count(device) for device in range(len(counts))] == counts
    assert units.count(HOST) == host
    assert list(units) == sorted(units)  # HOST is below all devices


def test_without_devices_everything_lies_on_the_host() -> None:
    assert assign_units(3, 99, ()) == (HOST,) * 4


@settings(max_examples=300)
@given(
    blocks=st.sets(st.integers(0, 1999), min_size=1, max_size=300)
    | st.builds(lambda first, count: set(range(first, first + count)), st.integers(0, 1900), st.integers(1, 100))
)
def test_a_pattern_of_blocks_matches_these_and_no_others(blocks: set[int]) -> None:
    pattern = re.compile(rf"blk\.{blocks_pattern(blocks)}\.ffn")
    assert {number for number in range(2001) if pattern.search(f"blk.{number}.ffn_up_exps.weight")} == blocks


@settings(max_examples=100)
@given(st.sets(st.integers(0, 1999), min_size=1, max_size=300))
def test_a_pattern_of_blocks_holds_nothing_that_the_engines_option_splits_at(blocks: set[int]) -> None:
    assert re.fullmatch(r"\([0-9\[\]|-]+\)", blocks_pattern(blocks))


@pytest.mark.parametrize(
    ("blocks", "pattern"),
    [
        ([0], "(0)"),
        (range(8), "([0-7])"),
        (range(8, 13), "([8-9]|1[0-2])"),
        ([3, 5, 7], "([357])"),
        (range(99, 102), "(99|10[0-1])"),
        ([12, 11, 10], "(1[0-2])"),
    ],
)
def test_a_pattern_reads_as_a_person_would_write_it(blocks: list[int], pattern: str) -> None:
    assert blocks_pattern(blocks) == pattern
