from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from llamarig.dashboard.text import (
    apart,
    bar,
    clean,
    column,
    counted,
    cut,
    fit,
    gib,
    lasting,
    level,
    line,
    percent,
    width,
    words,
    wrapped,
)

ANY = st.text(max_size=30)


@given(st.lists(st.tuples(ANY.map(clean), st.just("plain")), max_size=5), st.integers(0, 40))
def test_a_line_is_fitted_exactly(pieces: list[tuple[str, str]], cells: int) -> None:
    assert width(cut(tuple(pieces), cells)) <= cells
    assert width(fit(tuple(pieces), cells)) == cells
    assert cell_len(column("".join(text for text, _ in pieces), cells)) == cells


@given(ANY.map(clean), ANY.map(clean), st.integers(0, 40))
def test_two_lines_share_a_width(left: str, right: str, cells: int) -> None:
    assert width(apart(line(left), line(right), cells)) == cells


@given(ANY.map(clean), st.integers(1, 20))
def test_wrapped_lines_fit_and_keep_every_word(text: str, cells: int) -> None:
    lines = wrapped(text, cells)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(cell_len(part) <= max(cells, 2) for part in lines)


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=3), st.integers(0, 30))
def test_a_bar_fills_its_cells(shares: list[float], cells: int) -> None:
    assert width(bar([(share, "ok") for share in shares], cells)) == cells


def test_a_little_shows_in_a_bar() -> None:
    assert words(bar([(0.001, "ok")], 10)) == "█░░░░░░░░░"
    assert words(bar([(0.0, "ok")], 10)) == "░" * 10
    assert words(bar([(0.25, "model"), (0.25, "cache"), (0.25, "system")], 8)) == "██▒▒▓▓░░"


@given(ANY)
def test_cleaned_text_moves_no_cursor_and_can_be_encoded(text: str) -> None:
    assert clean(text).encode() is not None
    assert all(letter.isprintable() or letter.isspace() for letter in clean(text) if ord(letter) < 0xA0)
    assert "\n" not in clean(text)


def test_text_that_is_cut_says_so() -> None:
    assert words(cut(line("abcdef"), 4)) == "abc…"
    assert words(cut(line("日本語"), 4)) == "日 …"
    assert words(cut(line("abc"), 0)) == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (-5, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3600 * 3 + 60, "3 h 1 min"),
        (86400 * 2 + 3600, "2 d 1 h"),
    ],
)
def test_how_long(seconds: float | None, said: str) -> None:
    assert lasting(seconds) == said


def test_numbers_as_people_say_them() -> None:
    assert (gib(24564), gib(None)) == ("24.0", "-")
    assert (percent(0.974), percent(None)) == ("97%", "-")
    assert (counted(1, "card"), counted(2, "card")) == ("1 card", "2 cards")


def test_levels() -> None:
    assert [level(share, 0.7, 0.9) for share in (None, 0.69, 0.7, 0.9)] == ["faint", "ok", "warn", "bad"]
