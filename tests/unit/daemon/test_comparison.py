from __future__ import annotations

import pytest

from llamarig.daemon.comparison import Line, Verdict, compare, differs, remedy, shortfalls
from llamarig.runtime.breakdown import Breakdown
from llamarig.runtime.fit_params import Answer
from tests.support import make_spec
from tests.unit.daemon.judged import PLANNED, UUIDS, Figures, parts, planned, record

SPEC = planned()
FIRST, SECOND, HOST = PLANNED


def more(figures: Figures, mib: float) -> Figures:
    return figures[0], figures[1], figures[2] + mib


def lines(engine: Breakdown | None = None, measured: Breakdown | None = None) -> list[Line]:
    return compare(SPEC, record(SPEC, engine, measured))


@pytest.mark.parametrize(
    ("figure", "reference", "apart"),
    [
        (164, 100, False),
        (165, 100, True),
        (36, 100, False),
        (10300, 10000, False),
        (10301, 10000, True),
        (0, 60, False),
    ],
)
def test_three_per_cent_or_64_mib_is_the_same(figure: float, reference: float, apart: bool) -> None:
    assert differs(figure, reference) is apart


def test_figures_that_agree_are_well() -> None:
    found = lines(parts(*PLANNED), parts(*PLANNED))
    assert [line.where for line in found] == ["rtx4090", "rtx5070ti", "host"]
    assert [line.verdict for line in found] == [Verdict.OK] * 3
    assert [line.text for line in found] == [""] * 3
    first = found[0]
    assert (first.predicted, first.engine, first.measured, first.said) == (19200, 19200, 19200, None)
    assert [line.budget for line in found] == [23552, 15291, 58912]


def test_one_figure_alone_says_nothing() -> None:
    assert [line.verdict for line in lines()] == [Verdict.UNKNOWN] * 3


def test_a_prediction_that_was_wrong_is_told_with_its_figures() -> None:
    found = lines(parts(FIRST, more(SECOND, 500), HOST), parts(FIRST, more(SECOND, 400), HOST))
    assert [line.verdict for line in found] == [Verdict.OK, Verdict.DIFFERS, Verdict.OK]
    assert found[1].text == (
        "rtx5070ti: 10300 MiB measured, 9900 predicted (+400); 10400 MiB estimated by the engine, 9900 predicted (+500)"
    )


def test_without_a_prediction_the_measured_is_held_against_the_engines_word() -> None:
    spec = make_spec(gpus=UUIDS)
    known = record(spec, parts(*PLANNED), parts(more(FIRST, 900), SECOND, HOST))
    found = compare(spec, known, {UUIDS[0]: "rtx4090"})
    assert [line.where for line in found] == ["rtx4090", UUIDS[1], "host"]
    assert [line.verdict for line in found] == [Verdict.DIFFERS, Verdict.OK, Verdict.OK]
    assert found[0].text == "rtx4090: 20100 MiB measured, 19200 estimated (+900)"
    assert [line.budget for line in found] == [None, None, 1024]


def test_what_the_tool_itself_said_is_told_where_it_was_corrected() -> None:
    said, better = parts(FIRST, more(SECOND, 300), HOST), parts(*PLANNED)
    found = compare(SPEC, record(SPEC, said, corrected=better))
    assert [line.engine for line in found] == [19200, 9900, 464]
    assert [line.said for line in found] == [None, 10200, None]


def test_an_estimate_that_saw_not_all_confirms_or_says_nothing_but_that_it_does_not_fit() -> None:
    other = parts(FIRST, more(SECOND, -1000), HOST)
    found = compare(SPEC, record(SPEC, other, unseen=["--spec-type"]))
    assert [line.verdict for line in found] == [Verdict.OK, Verdict.UNKNOWN, Verdict.OK]
    found = compare(SPEC, record(SPEC, other, parts(*PLANNED), unseen=["--spec-type"]))
    assert [line.verdict for line in found] == [Verdict.OK] * 3
    found = compare(SPEC, record(SPEC, other, unseen=["--mmproj"]))
    assert [line.verdict for line in found] == [Verdict.OK, Verdict.DIFFERS, Verdict.OK]
    large = record(SPEC, parts(FIRST, more(SECOND, 6000), HOST), unseen=["--spec-type"])
    assert len(shortfalls(SPEC, large)) == 1


def test_more_than_a_service_may_take_does_not_fit() -> None:
    engine = parts(FIRST, more(SECOND, 6000), HOST)
    found = lines(engine)
    assert [line.verdict for line in found] == [Verdict.OK, Verdict.TOO_LARGE, Verdict.OK]
    assert found[1].text == "rtx5070ti: the engine needs 15900 MiB, and the service may take 15291"
    assert shortfalls(SPEC, record(SPEC, engine)) == [found[1].text]


@pytest.mark.parametrize(("over", "fits"), [(64, True), (65, False)])
def test_a_little_of_the_margin_may_be_taken(over: int, fits: bool) -> None:
    engine = parts((23552 - 1200 + over, 1000, 200), SECOND, HOST)
    assert (shortfalls(SPEC, record(SPEC, engine)) == []) is fits


def test_the_host_has_a_limit_too() -> None:
    engine = parts(FIRST, SECOND, (59000, 0, 64))
    assert shortfalls(SPEC, record(SPEC, engine)) == [
        "host: the engine needs 59064 MiB, and the service may take 58912"
    ]
    small = make_spec(memory_mib=1024)
    assert shortfalls(small, record(small, parts((400, 700, 64)))) == [
        "host: the engine needs 1164 MiB, and the service may take 1024"
    ]


def test_what_has_served_fits_whatever_is_estimated() -> None:
    engine = parts(FIRST, more(SECOND, 6000), HOST)
    known = record(SPEC, engine, parts(*PLANNED))
    assert shortfalls(SPEC, known) == []
    assert [line.verdict for line in compare(SPEC, known)] == [Verdict.OK, Verdict.DIFFERS, Verdict.OK]


def test_nothing_was_asked_so_nothing_is_refused() -> None:
    assert shortfalls(SPEC, record(SPEC)) == []
    assert shortfalls(SPEC, record(SPEC, answer=Answer.REFUSED, text="no", said=None, corrected=None)) == []


def test_an_engine_that_finds_no_layout_refuses_in_its_own_words() -> None:
    known = record(SPEC, answer=Answer.NO_LAYOUT, text="failed to fit", said=None, corrected=None)
    assert shortfalls(SPEC, known) == ["the engine finds no layout that fits: failed to fit"]


def test_a_running_engine_without_a_card_is_told_card_by_card() -> None:
    found = lines(measured=parts(FIRST, (9400, 800, 164)))
    assert [line.verdict for line in found] == [Verdict.OK, Verdict.NOT_USED, Verdict.DIFFERS]
    assert found[1].text == "rtx5070ti: the running engine does not use it: the model is on the CPU"


def test_an_engine_that_would_not_see_a_card_is_told_and_its_figures_refuse_nothing() -> None:
    engine = parts((90000, 1800, 364))
    found = lines(engine)
    assert [line.verdict for line in found] == [Verdict.NOT_USED, Verdict.NOT_USED, Verdict.TOO_LARGE]
    assert found[0].text == "rtx4090: the engine does not see it: it would lay the model on the CPU"
    assert shortfalls(SPEC, record(SPEC, engine)) == []


def test_images_count_against_what_a_service_may_take_and_not_against_the_prediction() -> None:
    assert lines(measured=parts(*PLANNED, vision=248))[0].verdict is Verdict.OK
    found = lines(measured=parts(*PLANNED, vision=4500))[0]
    assert found.verdict is Verdict.DIFFERS
    assert found.text == "rtx4090: takes 23700 MiB, 4500 of them for images, and may take 23552"


def test_a_server_that_takes_more_than_it_may_is_told() -> None:
    found = lines(measured=parts(more(FIRST, 4500), SECOND, HOST))[0]
    assert found.text.endswith("takes 23700 MiB, and may take 23552")


def test_the_remedy_is_something_that_can_be_done() -> None:
    assert "fewer blocks" in remedy(SPEC)
    assert "memory_mib" in remedy(make_spec())
