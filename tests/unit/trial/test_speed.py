from __future__ import annotations

import json

import pytest

from llamarig.trial import speed
from llamarig.trial.speed import LEAST_ROUNDS, MOST_ROUNDS, BenchError, Rates, race

BOTH = [
    {"n_prompt": 512, "n_gen": 0, "avg_ts": 98.0, "samples_ts": [97.0, 99.0]},
    {"n_prompt": 0, "n_gen": 64, "avg_ts": 9.5, "samples_ts": [9.0, 10.0]},
]
USAGE = "usage: llama-bench [options]\n  -oe, --output-err <csv>  (default: none)\n"


class Played:
    """An engine whose speed is said run by run; the last one stays."""

    def __init__(self, *speeds: float, sleeping: float = 0) -> None:
        self.speeds = iter(speeds)
        self.last = 0.0
        self.sleeping = sleeping
        self.asked: list[tuple[int, bool]] = []

    def __call__(self, samples: int, sleeping: bool) -> Rates:
        self.asked.append((samples, sleeping))
        self.last = self.sleeping if sleeping else next(self.speeds, self.last)
        return Rates((self.last * 10,) * samples, (self.last,) * samples)


def test_every_sample_of_both_tests_is_read() -> None:
    assert speed.read(json.dumps(BOTH), "") == Rates((97.0, 99.0), (9.0, 10.0))


@pytest.mark.parametrize(
    ("out", "err", "said"),
    [
        (
            "[\n",
            "x: load\nllama_bench: error: failed to load model '/models/none.gguf'\n",
            "error: failed to load model",
        ),
        (USAGE, "error: invalid parameter for argument: --bogus\n", "invalid parameter for argument: --bogus"),
        ("", "", "it says nothing"),
        (json.dumps(BOTH[:1]), "", "samples_ts"),
        (json.dumps([{**BOTH[0], "samples_ts": [0.0]}, BOTH[1]]), "", "its figures are no speeds"),
    ],
)
def test_no_figures_are_an_error_with_its_own_word(out: str, err: str, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        speed.read(out, err)


def test_both_run_in_alternation_and_twice_at_least() -> None:
    old, new = Played(10), Played(10)
    result = race(old, new, 10)
    assert (result.rounds, result.too_slow(10), result.sleeping) == (LEAST_ROUNDS, [], False)
    assert len(old.asked) == len(new.asked) == LEAST_ROUNDS


def test_the_best_of_every_run_counts_and_a_slow_beginning_is_measured_again() -> None:
    result = race(Played(10), Played(8, 8.5, 9.5), 10)
    assert (result.rounds, result.too_slow(10)) == (3, [])
    assert result.slower_percent()["generation"] == pytest.approx(5)


def test_an_engine_that_stays_slower_is_said_to_be_after_six_rounds() -> None:
    result = race(Played(10), Played(8), 10)
    assert (result.rounds, result.too_slow(10)) == (MOST_ROUNDS, ["prompt", "generation"])
    assert str(result) == (
        "prompt 80.0 tokens/s against 100 (-20.0 %), generation 8.0 tokens/s against 10.0 (-20.0 %), best of 6 rounds"
    )
    assert result.figures()["generation"] == {"against": 10.0, "candidate": 8.0, "slower_percent": 20.0}


def test_an_engine_that_is_faster_is_well() -> None:
    assert race(Played(10), Played(15), 0).too_slow(0) == []


def test_figures_that_scatter_are_measured_again_with_threads_that_sleep_whoever_was_ahead() -> None:
    old, new = Played(10, 2, sleeping=5), Played(30, 4, sleeping=4)
    result = race(old, new, 10)
    assert (result.sleeping, result.too_slow(10), result.rounds) == (True, ["prompt", "generation"], MOST_ROUNDS)
    assert str(result).endswith("best of 6 rounds on a busy machine")
    assert [sleeping for _, sleeping in old.asked] == [False] * 2 + [True] * MOST_ROUNDS


def test_as_many_samples_are_taken_as_some_seconds_have_room_for() -> None:
    assert Rates((10000.0,), (1000.0,)).samples == 10
    assert Rates((512.0,), (64.0,)).samples == 2
    assert Rates((20.0,), (2.0,)).samples == 1


def test_the_arguments_say_what_is_measured() -> None:
    assert speed.words(["--model", "/models/a.gguf"], 3) == [
        *("--model", "/models/a.gguf", "--n-prompt", "512", "--n-gen", "64", "--repetitions", "3", "--output", "json")
    ]
