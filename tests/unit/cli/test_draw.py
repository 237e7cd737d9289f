from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping

import click
import pytest

from llamarig.cli.draw import Terminal, bar_line, cells, head, panel_lines, wrapped
from llamarig.cli.picture import PARTS, Bar, Missing, Panel, card_bar, entry, gib, host_bar, hosts_named
from tests.unit.cli.specs import HOST, LARGE, SMALL, laid

PLAIN = Terminal(80, colour=False, blocks=False)
BARS = (card_bar(LARGE), card_bar(SMALL), host_bar(HOST))
PANEL = Panel(
    hosts=("gpu01",),
    cards=("rtx-4090: NVIDIA GeForce RTX 4090, 23.99 GiB",),
    entries=(entry(laid("chat", LARGE, SMALL), "default"),),
    together=("chat + small",),
    warnings=("chat: ctx_size gives a slot more tokens than the model was trained for, which is to be known",),
    incomplete=(Missing("has no sha256", ("glm: glm.gguf",), "take it from the hub"),),
)


def bar(total: int, **parts: int) -> Bar:
    return Bar("gpu0", total, parts)


@pytest.mark.parametrize("width", [10, 18, 60])
@pytest.mark.parametrize(
    "parts",
    [
        {"weights": 9000, "cache": 500, "compute": 1, "process": 400, "kept": 99},
        {"weights": 10_000},
        {"kept": 1},
        {"weights": 12_000, "cache": 3000},
        {},
    ],
)
def test_a_bar_is_as_wide_as_it_should_be_and_shows_everything_there_is(width: int, parts: Mapping[str, int]) -> None:
    drawn = dict(cells(bar(10_000, **parts), width))
    assert sum(drawn.values()) == width
    assert drawn.keys() >= {name for name, size in parts.items() if size}
    assert min(drawn.values()) >= 1


def test_cells_are_shared_out_by_size() -> None:
    assert cells(bar(100, weights=50, cache=20, kept=10), 20) == [
        ("weights", 10),
        ("cache", 4),
        ("kept", 2),
        ("free", 4),
    ]


def test_a_bar_that_holds_too_much_has_nothing_free() -> None:
    full = bar(100, weights=150, cache=50)
    assert full.free == -100
    assert cells(full, 20) == [("weights", 15), ("cache", 5)]
    assert bar_line(full, [full], PLAIN).endswith(gib(-100))


def test_a_line_has_the_cards_name_its_bar_and_the_numbers_in_gib() -> None:
    line = bar_line(BARS[0], BARS, PLAIN)
    name, drawn, *numbers = line.split()
    assert name == "rtx-4090"
    assert Counter(drawn) == {"#": 13, "=": 1, "+": 1, ":": 1, "/": 1, ".": 1}
    assert numbers == ["17.58", "2.00", "0.29", "0.75", "0.60", "2.77"]
    assert line.index(drawn) == bar_line(BARS[2], BARS, PLAIN).index(bar_line(BARS[2], BARS, PLAIN).split()[1])


def test_numbers_stand_under_their_names() -> None:
    over, line = head(BARS, PLAIN)[-1], bar_line(BARS[0], BARS, PLAIN)
    for name, number in zip((*PARTS, "free"), line.split()[2:], strict=True):
        end = over.index(name) + len(name)
        assert line[:end].endswith(number), name


def test_the_host_has_no_card_to_keep_anything_on() -> None:
    assert bar_line(BARS[2], BARS, PLAIN).split()[2:] == ["0.29", "-", "0.15", "1.06", "-", "57.09"]


@pytest.mark.parametrize("width", range(60, 141, 5))
@pytest.mark.parametrize("blocks", [True, False])
def test_nothing_is_wider_than_the_terminal(width: int, blocks: bool) -> None:
    terminal = Terminal(width, colour=True, blocks=blocks)
    lines = [click.unstyle(line) for line in panel_lines(PANEL, terminal)]
    assert max(len(line) for line in lines) <= width


def test_where_few_columns_fit_the_parts_without_a_column_are_named_over_the_bars() -> None:
    assert "process" not in head(BARS, Terminal(60, blocks=False))[-1]
    assert head(BARS, Terminal(60, blocks=False))[0].split(", ") == ["  : process", "/ kept"]


def test_a_wide_terminal_gets_longer_bars() -> None:
    def longest(width: int) -> int:
        return max(len(word) for word in bar_line(BARS[0], BARS, Terminal(width, blocks=False)).split())

    assert longest(80) < longest(100) < longest(120) == 58


def test_without_colours_there_is_no_escape() -> None:
    assert not any("\x1b" in line for line in panel_lines(PANEL, Terminal(80, colour=False)))
    assert any("\x1b" in line for line in panel_lines(PANEL, Terminal(80, colour=True)))


def test_colours_change_no_word() -> None:
    coloured = [click.unstyle(line) for line in panel_lines(PANEL, Terminal(80, colour=True))]
    assert coloured == panel_lines(PANEL, Terminal(80, colour=False))


def test_what_cannot_be_shown_is_drawn_in_ascii() -> None:
    assert "█" in "".join(panel_lines(PANEL, Terminal(80)))
    assert "".join(panel_lines(PANEL, PLAIN)).isascii()


def test_a_panel_says_everything_that_is_to_be_known() -> None:
    text = "\n".join(panel_lines(PANEL, PLAIN))
    assert "chat (default)  auto: D  experts of 19 of 48 blocks on GPUs\n" in text
    assert "Side by side:\n  chat + small\n" in text
    assert "Warnings:\n  chat: ctx_size gives a slot more tokens" in text
    assert text.endswith(
        "Cannot be deployed yet:\n  has no sha256:\n    glm: glm.gguf\n    remedy: take it from the hub"
    )


def test_a_service_without_a_prediction_says_so() -> None:
    engines = entry(laid("exp", asked="fit", strategy="fit", memory=None))
    lines = panel_lines(Panel(("gpu01",), entries=(engines,)), PLAIN)
    assert lines == ["exp  fit  experts of 19 of 48 blocks on GPUs", "  memory is not predicted"]


@pytest.mark.parametrize(
    ("environment", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
    ids=str,
)
def test_colours_are_for_terminals_of_people_who_want_them(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], colour: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert Terminal.here().colour is colour
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert Terminal.here().colour is False


@pytest.mark.parametrize(("columns", "width"), [("100", 100), ("20", 60), ("500", 140)])
def test_the_width_is_the_terminals_within_reason(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert Terminal.here().width == width


def test_a_first_line_without_room_leaves_its_text_to_the_next() -> None:
    assert wrapped("a few words", Terminal(60), "    ", taken=50) == ["", "    a few words"]


def test_a_path_is_not_broken() -> None:
    path = "/srv/llamarig/models/" + "x" * 100
    assert wrapped(f"at {path}", PLAIN, "  ") == ["  at", f"  {path}"]


@pytest.mark.parametrize(("mib", "text"), [(0, "-"), (1, "0.01"), (1024, "1.00"), (24_564, "23.99"), (-512, "-0.50")])
def test_sizes_are_said_in_gib(mib: int, text: str) -> None:
    assert gib(mib) == text


def test_of_very_many_hosts_the_first_are_named() -> None:
    assert hosts_named(["a", "b"]) == "a, b"
    assert hosts_named([f"h{number}" for number in range(200)]) == "h0, h1, h2, h3, h4, h5, h6 and 193 more"
