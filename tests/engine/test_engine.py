"""The planner is right: llama-fit-params, llama-server's own log, and the place of every tensor say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.lab.judge import Judge
from llamarig.planning.layout import HOST
from tests.engine import page
from tests.engine.cases import ESTIMATES, LOADED, Case
from tests.engine.truth import HOST_NAME, Row, estimated, loaded, place_of, untied

# Weights and caches have a formula, so they must agree; the engine rounds each down to MiB.
EXACT_MIB = 2


@pytest.mark.parametrize("case", ESTIMATES, ids=lambda case: case.name)
def test_the_engine_estimates_what_was_predicted(
    case: Case, judge: Judge, ghosts: Path, seen: dict[str, list[Row]]
) -> None:
    judge.plug(case.devices)
    rows = estimated(case, judge, ghosts)
    seen[case.name] = rows
    assert [row for row in rows if abs(row.off) > row.allowed] == []
    assert [row for row in rows if max(abs(row.weights_off), abs(row.cache_off)) > EXACT_MIB] == []


@pytest.mark.parametrize("case", LOADED, ids=lambda case: case.name)
def test_the_server_allocates_what_was_predicted_where_it_was_planned(
    case: Case, judge: Judge, ghosts: Path, seen: dict[str, list[Row]]
) -> None:
    judge.plug(case.devices)
    rows, said, placed, shape = loaded(case, judge, ghosts)
    seen[f"{case.name}, loaded"] = rows
    assert [row for row in rows if abs(row.off) > row.allowed] == []
    assert [row for row in rows if max(abs(row.weights_off), abs(row.cache_off)) > EXACT_MIB] == []
    layout = placed.layout
    assert layout is not None
    names = untied(shape)
    assert {name: said.place(name) for name in names} == {name: place_of(layout, placed, name, shape) for name in names}
    devices = [*(f"RPC{number}" for number in placed.devices), HOST_NAME]
    assert said.caches == {block: devices[layout.units[block]] for block in said.caches}
    assert layout.units[-1] == HOST or said.layers[len(layout.units) - 1] == devices[layout.units[-1]]


def test_the_page_shows_these_figures(seen: dict[str, list[Row]]) -> None:
    if set(seen) != {case.name for case in ESTIMATES} | {f"{case.name}, loaded" for case in LOADED}:
        pytest.skip("only some cases were tried")
    wrong = page.differences(page.PATH.read_text(encoding="utf-8"), seen)
    assert wrong == [], "write it anew: python -m tests.engine.page"
