"""How many blocks fit where: what is found fits, holds every block, and fills the fastest device first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamarig.planning.fill import Costs, Counts, fits, needed, partial, tail, whole


def even(blocks: int, others: int, experts: int, head: int = 0, fixed: tuple[int, ...] = (0, 0)) -> Costs:
    """Blocks that all cost the same."""
    return Costs([others] * blocks, [experts] * blocks, head, fixed)


def test_what_a_device_needs_is_its_blocks_its_buffer_and_on_the_last_the_head() -> None:
    costs = Costs([1, 2, 3, 4], [10, 20, 30, 40], head=500, fixed=[1000, 2000, 4000])
    assert needed(costs, Counts((1, 1, 0), (1, 1, 0))) == [1 + 2 + 10 + 1000, 3 + 4 + 30 + 500 + 2000, 0]
    assert needed(costs, Counts((0, 0, 2), (0, 0, 0), host=2)) == [0, 0, 3 + 4 + 30 + 40 + 500 + 4000]
    assert needed(costs, Counts((0, 0, 0), (0, 0, 0), host=4)) == [1500, 0, 0]


@pytest.mark.parametrize(
    ("budgets", "order", "full"),
    [
        ([60, 60], [0, 1], (6, 4)),
        ([60, 60], [1, 0], (4, 6)),
        ([1000, 1000], [0, 1], (10, 0)),
        ([1000, 1000], [1, 0], (0, 10)),
        ([50, 50], [0, 1], (5, 5)),
        ([40, 0, 60], [0, 1, 2], (4, 0, 6)),
        ([30, 40, 30], [1, 2, 0], (3, 4, 3)),
        ([13] * 8, list(range(8)), None),
        ([20] * 8, list(range(8)), (2, 2, 2, 2, 2, 0, 0, 0)),
        ([100], [0], (10,)),
        ([99], [0], None),
        ([0], [0], None),
    ],
)
def test_whole_fills_devices_in_the_order_asked(
    budgets: list[int], order: list[int], full: tuple[int, ...] | None
) -> None:
    found = whole(even(10, 2, 8, fixed=(0,) * len(budgets)), budgets, order)
    assert (found.full if found else None) == full


@pytest.mark.parametrize(("head", "full"), [(0, (5, 5)), (10, (6, 4)), (11, None)])
def test_the_head_lies_on_the_last_device_and_takes_the_place_of_a_block(
    head: int, full: tuple[int, ...] | None
) -> None:
    found = whole(even(10, 2, 8, head), [60, 50], [1, 0])
    assert (found.full if found else None) == full


def test_a_buffer_counts_where_anything_lies() -> None:
    costs = even(10, 2, 8, fixed=(15, 25))
    assert whole(costs, [115, 0], [0, 1]) == Counts((10, 0), (0, 0))
    assert whole(costs, [114, 34], [0, 1]) is None
    assert whole(costs, [114, 35], [0, 1]) == Counts((9, 1), (0, 0))


@pytest.mark.parametrize(("budget", "host"), [(100, 0), (99, 1), (55, 5), (10, 9), (9, None), (0, None)])
def test_tail_leaves_the_fewest_first_blocks_on_the_host(budget: int, host: int | None) -> None:
    found = tail(even(10, 2, 8, fixed=(0,)), [budget], [0])
    assert (found.host if found else None) == host
    assert found is None or found.units == (10 - found.host,)


@pytest.mark.parametrize(
    ("budgets", "order", "full", "bare"),
    [
        ([1000], [0], (10,), (0,)),
        ([20], [0], (0,), (10,)),
        ([19], [0], None, None),
        ([36], [0], (2,), (8,)),
        ([50, 17], [0, 1], (5, 0), (0, 5)),
        ([17, 50], [1, 0], (0, 5), (5, 0)),
        ([50, 26], [0, 1], (5, 2), (0, 3)),
        ([10, 10], [0, 1], (0, 0), (5, 5)),
        ([10, 9], [0, 1], None, None),
        ([0, 100], [0, 1], (0, 10), (0, 0)),
        ([26] * 8, list(range(8)), (2, 2, 2, 2, 2, 0, 0, 0), (0,) * 8),
        ([14, 14, 14], [0, 1, 2], (1, 1, 0), (0, 0, 8)),
    ],
)
def test_partial_lays_all_blocks_and_as_many_experts_as_fit(
    budgets: list[int], order: list[int], full: tuple[int, ...] | None, bare: tuple[int, ...] | None
) -> None:
    costs = even(10, 2, 8, fixed=(0,) * len(budgets))
    found = partial(costs, budgets, order)
    if found is None:
        assert full is None
        return
    assert fits(costs, found, budgets)
    assert found.full == full
    assert sum(found.bare) == sum(bare or ())


def test_dense_blocks_and_blocks_that_are_not_loaded_take_no_room_for_experts() -> None:
    # Two dense blocks first, as in DeepSeek, and one at the end that predicts further tokens and costs nothing.
    costs = Costs([9, 9, *[1] * 5, 0], [0, 0, *[10] * 5, 0], head=3, fixed=[0])
    assert partial(costs, [26 + 20], [0]) == Counts((4,), (4,))
    assert partial(costs, [26 + 50], [0]) == Counts((8,), (0,))
    assert whole(costs, [26 + 50], [0]) == Counts((8,), (0,))
    assert whole(costs, [26 + 49], [0]) is None


sizes = st.integers(0, 60)
costs_of = st.integers(1, 8).flatmap(
    lambda blocks: st.tuples(
        st.lists(st.integers(0, 12), min_size=blocks, max_size=blocks),
        st.lists(st.just(0) | sizes, min_size=blocks, max_size=blocks),
        st.integers(0, 20),
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 260)), min_size=1, max_size=4),
    )
)
cases = costs_of.flatmap(lambda case: st.tuples(st.just(case), st.permutations(range(len(case[3])))))
Case = tuple[tuple[list[int], list[int], int, list[tuple[int, int]]], list[int]]


def read(case: Case) -> tuple[Costs, list[int], list[int]]:
    (others, experts, head, devices), order = case
    return Costs(others, experts, head, [fixed for fixed, _ in devices]), [budget for _, budget in devices], order


@settings(max_examples=300)
@given(cases)
def test_what_is_found_fits_and_holds_every_block(case: Case) -> None:
    costs, budgets, order = read(case)
    for search in (whole, tail, partial):
        found = search(costs, budgets, order)
        if found is None:
            continue
        assert fits(costs, found, budgets)
        assert sum(found.units) + found.host == len(costs.others)
        assert min((*found.full, *found.bare, found.host)) >= 0
        assert found.host == 0 or search is tail
        assert sum(found.bare) == 0 or search is partial


@settings(max_examples=300)
@given(cases)
def test_a_search_that_may_leave_something_out_finds_something_wherever_a_stricter_one_does(case: Case) -> None:
    costs, budgets, order = read(case)
    everything = whole(costs, budgets, order)
    if everything is None:
        return
    assert tail(costs, budgets, order) == everything
    assert partial(costs, budgets, order) is not None


@settings(max_examples=200)
@given(cases)
def test_on_one_device_as_many_experts_lie_as_fit(case: Case) -> None:
    costs, budgets, _ = read(case)
    costs, budgets, blocks = (
        Costs(costs.others, costs.experts, costs.head, costs.fixed[:1]),
        budgets[:1],
        len(costs.others),
    )
    possible = [n for n in range(blocks + 1) if fits(costs, Counts((n,), (blocks - n,)), budgets)]
    found = partial(costs, budgets, [0])
    assert (found.full[0] if found else None) == max(possible, default=None)
