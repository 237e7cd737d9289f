from __future__ import annotations

from llamarig.config.spec import Spec
from llamarig.daemon.memory import Judged
from llamarig.runtime.breakdown import Breakdown
from llamarig.runtime.fit_params import Answer, JudgeError
from llamarig.trial.memory import Need, need
from tests.unit.daemon.judged import PLANNED, FakeJudge, parts, planned

SPEC = planned("chat", image="engine:old")
FIRST, SECOND, HOST = PLANNED


def old_says(*figures: tuple[float, float, float]) -> Judged:
    said = parts(*figures)
    return Judged(1, Answer.ESTIMATED, said, said, "", [], [])


class Judge(FakeJudge):
    """Also knows which image it was asked in."""

    def __init__(self, answer: Breakdown | JudgeError | tuple[Answer, str]) -> None:
        super().__init__(chat=answer)
        self.images: list[str] = []

    def estimate(self, spec: Spec) -> object:  # type: ignore[override]
        self.images.append(spec.image)
        return super().estimate(spec)


def asked(answer: Breakdown | JudgeError | tuple[Answer, str], old: Judged | None = None, why_not: str = "") -> Need:
    judge = Judge(answer)
    found = need(SPEC, "engine:new", judge, lambda _: old or old_says(*PLANNED), why_not)  # type: ignore[arg-type]
    assert judge.images == ([] if why_not else ["engine:new"])
    return found


def test_a_service_that_needs_what_it_needed_fits() -> None:
    found = asked(parts(*PLANNED))
    assert (found.trouble, found.unasked, found.note) == ("", "", "")
    assert found.figures["candidate"] == found.figures["against"] == {"CUDA0": 19200, "CUDA1": 9900, "Host": 464}


def test_what_changes_is_told_in_figures() -> None:
    found = asked(parts((18000, 1000, 700), SECOND, HOST))
    assert (found.trouble, found.note) == ("", "CUDA0 +500 MiB")


def test_a_service_that_no_longer_fits_is_told_with_the_card_and_the_numbers() -> None:
    found = asked(parts((18000, 1000, 5000), SECOND, HOST))
    assert found.trouble == "rtx4090: the engine needs 24000 MiB, and the service may take 23552"


def test_a_service_that_did_not_fit_by_the_old_engines_word_either_is_no_difference() -> None:
    large = (18000.0, 1000.0, 5000.0)
    found = asked(parts(large, SECOND, HOST), old_says(large, SECOND, HOST))
    assert found.trouble == ""
    assert found.note.startswith("as with the old engine: rtx4090: the engine needs 24000 MiB")


def test_an_engine_that_does_not_see_the_cards_is_trouble() -> None:
    assert asked(parts(HOST)).trouble == "the engine sees 0 of the service's 2 cards"
    assert asked(parts(HOST), old_says(HOST)).trouble == ""


def test_an_engine_that_crashes_is_trouble_where_the_old_one_did_not() -> None:
    crash = (Answer.ENGINE_BUG, "GGML_ASSERT(x) failed")
    assert asked(crash).trouble == "the engine gives no estimate (engine bug): GGML_ASSERT(x) failed"
    both = Judged(1, Answer.ENGINE_BUG, None, None, "GGML_ASSERT(x) failed", [], [])
    assert asked(crash, both).trouble == ""


def test_cards_that_are_busy_are_not_asked_about() -> None:
    assert asked(parts(*PLANNED), why_not="rtx4090 has 100 MiB free") == Need(
        "chat", unasked="rtx4090 has 100 MiB free"
    )


def test_a_tool_that_cannot_be_asked_is_told() -> None:
    assert asked(JudgeError("no llama-fit-params", "")).unasked == "no llama-fit-params"
