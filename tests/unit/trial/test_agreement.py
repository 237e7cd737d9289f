from __future__ import annotations

import math

import pytest

from llamarig.runtime.completions import Token
from llamarig.trial.agreement import MOST_NATS, Agreement, Place, compare, divergence, is_stuck

HALF, QUARTER, TENTH = math.log(0.5), math.log(0.25), math.log(0.1)


def place(nats: float, *, same: bool = True) -> Place:
    return Place(same, nats, 1.0, nats)


def test_the_same_list_is_no_distance_apart() -> None:
    likely = {1: HALF, 2: QUARTER, 3: TENTH}
    assert divergence(likely, likely) == 0
    assert compare(Token(1, likely), Token(1, likely)) == Place(same=True, nats=0, shared=1, difference=0)


def test_the_distance_of_whole_distributions_is_the_divergence() -> None:
    """Worked out by hand: 0.5 ln(0.5/0.25) + 0.5 ln(0.5/0.75)."""
    first, second = {1: HALF, 2: HALF}, {1: QUARTER, 2: math.log(0.75)}
    assert divergence(first, second) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


def test_a_token_that_one_list_lacks_counts_as_the_last_of_that_list() -> None:
    first, second = {1: math.log(0.9), 2: math.log(0.05)}, {3: math.log(0.9), 4: math.log(0.05)}
    assert divergence(first, second) > 1
    assert divergence(first, {}) > 10


def test_the_distance_is_never_less_than_nothing() -> None:
    assert divergence({1: TENTH}, {1: TENTH, 2: math.log(0.05)}) >= 0


def test_a_place_tells_how_much_of_the_likeliest_both_share_and_how_far_they_are_apart() -> None:
    old = {number: math.log(0.1) - number / 100 for number in range(10)}
    new = {
        **{number: value - 0.5 for number, value in list(old.items())[:5]},
        **{n: math.log(0.01) for n in range(90, 95)},
    }
    found = compare(Token(0, old), Token(90, new))
    assert (found.same, found.shared) == (False, 0.5)
    assert found.difference == pytest.approx(0.5)


def test_one_place_in_four_may_be_far_apart_as_in_a_near_tie_of_two_experts() -> None:
    some = [place(0.001)] * 25 + [place(6.9, same=False)] * 7
    assert Agreement([some]).holds
    assert not Agreement([[*some[2:], *[place(6.9)] * 2]]).holds


def test_an_answer_that_is_wrong_is_not_outweighed_by_those_that_are_right() -> None:
    right, wrong = [place(0.0)] * 32, [place(0.0)] * 20 + [place(2.0)] * 12
    assert not Agreement([right, right, wrong]).holds
    assert Agreement([right, right, wrong]).quartile == 2.0


def test_the_places_right_after_the_prompts_count_for_themselves() -> None:
    """A model that repeats what it said agrees with everybody after a few tokens, whatever it was asked."""
    right, late = [place(0.0)] * 32, [place(9.0), *[place(0.0)] * 31]
    assert Agreement([right, right, late]).holds
    assert not Agreement([right, late, late]).holds


@pytest.mark.parametrize(("nats", "holds"), [(MOST_NATS, True), (MOST_NATS + 0.001, False)])
def test_the_threshold_is_where_it_is_said(nats: float, holds: bool) -> None:
    assert Agreement([[place(0), *[place(nats)] * 8]]).holds is holds


def test_what_was_measured_is_told_in_figures_and_words() -> None:
    agreement = Agreement([[place(0.002)] * 3 + [place(0.5, same=False)]])
    figures = agreement.figures()
    assert (figures["places"], figures["same"], figures["kl_largest"], figures["kl_allowed"]) == (4, 3, 0.5, MOST_NATS)
    assert str(agreement).startswith("3 of 4 tokens as the old engine; KL 0.5 at three places of four, 0.002 after")


def test_one_token_over_and_over_is_stuck_but_not_in_a_short_answer() -> None:
    assert is_stuck([Token(5, {})] * 32)
    assert not is_stuck([Token(5, {})] * 8)
    assert not is_stuck([*[Token(5, {})] * 31, Token(6, {})])
