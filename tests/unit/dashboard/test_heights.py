from __future__ import annotations

import pytest

from llamarig.dashboard.heights import fits, heights


@pytest.mark.parametrize("rows", [20, 24, 30, 40, 60, 100])
@pytest.mark.parametrize("cards", [0, 1, 2, 8])
@pytest.mark.parametrize("services", [0, 1, 3, 12])
def test_the_panels_fill_the_terminal_and_each_has_room(rows: int, cards: int, services: int) -> None:
    shares = heights(rows, cards, services)
    assert shares.logs + shares.middle + shares.services + 1 == rows
    assert shares.logs >= round(rows * 0.55)
    assert shares.middle >= 4
    assert shares.services >= 3


def test_cards_that_could_not_use_the_room_leave_it_to_the_log() -> None:
    assert heights(100, 1, 1).logs > 55
    assert heights(24, 2, 1).logs == 13


def test_the_smallest_terminal() -> None:
    assert fits(60, 20)
    assert not fits(59, 20)
    assert not fits(60, 19)
