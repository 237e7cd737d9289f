"""How fast two engines are with the same model in the same place: llama-bench, in alternation, the best of each.

Whatever else a machine does makes an engine slower and never faster, so the best of several runs is what it can do.
Where a candidate seems slower than it may be, more rounds are run before it is said. On a busy machine threads that
spin wait for threads that do not run: with two threads on two cores that had nine others to run, the same engine was up
to four times as fast from one run to the next, best of ten each. Where figures scatter like that, both engines start
over with threads that sleep while they wait; the best of their runs were then within 5 % of each other.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

PROGRAM: Final = "llama-bench"
PROMPT: Final = 512
GENERATED: Final = 64
LEAST_ROUNDS: Final = 2
MOST_ROUNDS: Final = 6
# What lets OpenMP's threads sleep while they wait for each other.
SLEEPING: Final[Mapping[str, str]] = {"OMP_WAIT_POLICY": "passive"}
# So much faster than the usual one is the best of samples that scatter.
_SCATTERED: Final = 1.5
# So many samples of one run at most, and so long for all of them.
_MOST_SAMPLES: Final = 10
_SAMPLE_SECONDS: Final = 5.0
PROCESSING: Final = "prompt"
GENERATION: Final = "generation"

# Runs one engine: how many samples of each test, and whether its threads sleep while they wait.
Bench = Callable[[int, bool], "Rates"]


class BenchError(Exception):
    """llama-bench gave no figures; the message says why."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens per second that one engine reached, in every sample: of a prompt of 512 tokens, and of 64 generated."""

    prompt: tuple[float, ...]
    generation: tuple[float, ...]

    def __add__(self, other: Rates) -> Rates:
        return Rates(self.prompt + other.prompt, self.generation + other.generation)

    @property
    def best(self) -> dict[str, float]:
        """Return the best sample of each test."""
        return {PROCESSING: max(self.prompt), GENERATION: max(self.generation)}

    @property
    def scattered(self) -> bool:
        """Whether the machine did so much else that the best sample may be luck."""
        return any(max(each) > _SCATTERED * statistics.median(each) for each in (self.prompt, self.generation))

    @property
    def samples(self) -> int:
        """How many samples of both take some seconds."""
        one = PROMPT / statistics.median(self.prompt) + GENERATED / statistics.median(self.generation)
        return max(1, min(_MOST_SAMPLES, int(_SAMPLE_SECONDS / one)))


@dataclass(frozen=True, slots=True)
class Race:
    """All samples of both engines, how many rounds it took, and whether threads slept while they waited."""

    old: Rates
    new: Rates
    rounds: int
    sleeping: bool

    def slower_percent(self) -> dict[str, float]:
        """Return by how many per cent the candidate is slower, by what was measured; less than 0 where it is faster."""
        old, new = self.old.best, self.new.best
        return {name: 100 * (1 - new[name] / old[name]) for name in old}

    def too_slow(self, percent: float) -> list[str]:
        """Return what is slower by more than it may be."""
        return [name for name, slower in self.slower_percent().items() if slower > percent]

    def figures(self) -> dict[str, Any]:
        """Return what was measured, as plain JSON types, in tokens per second."""
        old, new, slower = self.old.best, self.new.best, self.slower_percent()
        rates = {
            name: {
                "against": round(old[name], 2),
                "candidate": round(new[name], 2),
                "slower_percent": round(slower[name], 1),
            }
            for name in old
        }
        lengths = {"prompt_tokens": PROMPT, "generated_tokens": GENERATED}
        return {**rates, **lengths, "rounds": self.rounds, "busy_machine": self.sleeping}

    def __str__(self) -> str:
        old, new, slower = self.old.best, self.new.best, self.slower_percent()
        said = [
            f"{name} {_rate(new[name])} tokens/s against {_rate(old[name])} ({-slower[name]:+.1f} %)" for name in old
        ]
        rounds = f"best of {self.rounds} rounds{' on a busy machine' if self.sleeping else ''}"
        return f"{', '.join(said)}, {rounds}"


def words(own: Sequence[str], samples: int) -> list[str]:
    """Return the arguments of llama-bench; ``own`` say which model lies where."""
    lengths = ["--n-prompt", str(PROMPT), "--n-gen", str(GENERATED)]
    return [*own, *lengths, "--repetitions", str(samples), "--output", "json"]


def read(out: str, err: str) -> Rates:
    """Read what llama-bench printed: the samples of each test.

    Raises:
        BenchError: there are no figures in it.

    """
    try:
        tests = {bool(test["n_gen"]): tuple(float(each) for each in test["samples_ts"]) for test in json.loads(out)}
        found = Rates(prompt=tests[False], generation=tests[True])
        if min(*found.prompt, *found.generation) <= 0:
            raise BenchError("its figures are no speeds")
    except (ValueError, KeyError, TypeError) as error:
        lines = [line.strip() for line in f"{err}\n{out}".splitlines() if line.strip(" [\n")]
        errors = [line for line in lines if "error" in line.lower()]
        raise BenchError((errors or lines or ["it says nothing"])[-1]) from error
    return found


def race(old: Bench, new: Bench, percent: float) -> Race:
    """Run both in alternation until the candidate is shown to be fast enough, or for six rounds.

    Args:
        old: runs the old engine.
        new: runs the candidate.
        percent: by how much the candidate may be slower.

    """
    result = _run(old, new, percent, sleeping=False)
    return _run(old, new, percent, sleeping=True) if result.old.scattered or result.new.scattered else result


def _run(old: Bench, new: Bench, percent: float, *, sleeping: bool) -> Race:
    result = Race(old(1, sleeping), new(1, sleeping), 1, sleeping)
    while result.rounds < LEAST_ROUNDS or (result.rounds < MOST_ROUNDS and result.too_slow(percent)):
        if result.rounds >= LEAST_ROUNDS and not sleeping and (result.old.scattered or result.new.scattered):
            return result
        samples = result.old.samples
        more = old(samples, sleeping), new(samples, sleeping)
        result = Race(result.old + more[0], result.new + more[1], result.rounds + 1, sleeping)
    return result


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"  # noqa: PLR2004  four digits at most are worth telling
