"""How far two engines' answers are apart, token by token, as far as the same text stands before both.

At each place of the old engine's answer both say how likely the next tokens are; the candidate is given what the old
one said so far, so that one token chosen otherwise at a near tie does not end the comparison. The distance of a place
is an estimate of the Kullback-Leibler divergence, in nats, over the tokens that either names among its likeliest.

What was measured with llama.cpp 0.7.0 on a CPU, with six dense and MoE models of random weights, two of them with
outputs four times as sharp: 32 places after each of the prompts of 55, 320, 512 and 768 tokens; the third quartile of
an answer's distances, and the middle of those right after the prompts.

====================================  ===================  ====================
candidate                             third quartile       after the prompt
====================================  ===================  ====================
the same engine again                 0                    0
other threads, no flash attention     up to 0.0002         up to 0.00007
cache of Q8_0 instead of F16          0.0001 to 0.005      up to 0.015
weights of Q8_0 instead of F16        0.0009 to 0.020      up to 0.032
weights of Q4_K_M instead of F16      0.03 to 3.4          0.013 to 1.4
tokens after the hundredth damaged    0.4 to 8.7           1.4 to 18.9
====================================  ===================  ====================

So 0.1 is five times what weights of 8 bits do, twenty times what a cache of 8 bits does, and a quarter of the least
that a broken engine does. It is the third quartile and not the mean because of MoE models: with nothing but other
threads single places were up to 2.4 apart there, while three quarters agreed to four digits.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llamarig.runtime.completions import Token

# How far three places of four, and the first places of the long prompts, may be apart; see above.
MOST_NATS: Final = 0.1
# The likeliest tokens of which the shared part is told.
_TOP: Final = 10
_STUCK_FROM: Final = 16
_LEAST: Final = 1e-9
# Said where two lists have nothing in common.
_FAR: Final = 99.0


@dataclass(frozen=True, slots=True)
class Place:
    """One place of an answer, as both engines see it.

    Attributes:
        same: whether both would go on with the same token.
        nats: the estimated Kullback-Leibler divergence of the candidate from the old engine.
        shared: which part of the ten likeliest tokens both name, 0 to 1.
        difference: mean absolute difference of the log-probabilities that both name.

    """

    same: bool
    nats: float
    shared: float
    difference: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Every place of the answers, prompt by prompt; an answer begins with the place right after its prompt."""

    answers: Sequence[Sequence[Place]]

    @property
    def places(self) -> list[Place]:
        """Return the places of all answers."""
        return [place for answer in self.answers for place in answer]

    @property
    def quartile(self) -> float:
        """Return the distance that three places of four stay within, of the answer where it is the largest, in nats."""
        return max(_quartile([place.nats for place in answer]) for answer in self.answers)

    @property
    def first(self) -> float:
        """Return the middle of the distances right after the prompts, in nats."""
        return statistics.median(answer[0].nats for answer in self.answers)

    @property
    def holds(self) -> bool:
        """Whether the candidate answers every prompt as the old engine does."""
        return max(self.quartile, self.first) <= MOST_NATS

    def figures(self) -> dict[str, Any]:
        """Return what was measured, as plain JSON types."""
        places = self.places
        return {
            "places": len(places),
            "same": sum(place.same for place in places),
            "kl_third_quartile": _rounded(self.quartile),
            "kl_first": _rounded(self.first),
            "kl_mean": _rounded(statistics.fmean(place.nats for place in places)),
            "kl_largest": _rounded(max(place.nats for place in places)),
            "kl_allowed": MOST_NATS,
            "shared_top_10": round(statistics.fmean(place.shared for place in places), 3),
            "logprob_difference": _rounded(statistics.fmean(place.difference for place in places)),
        }

    def __str__(self) -> str:
        figures = self.figures()
        same = f"{figures['same']} of {figures['places']} tokens as the old engine"
        apart = f"KL {figures['kl_third_quartile']} at three places of four, {figures['kl_first']} after the prompt"
        shared = f"{100 * figures['shared_top_10']:.0f} % of the ten likeliest shared"
        differ = f"log-probabilities differ by {figures['logprob_difference']}"
        return f"{same}; {apart}, {MOST_NATS} is the most; {shared}, {differ}"


def compare(old: Token, new: Token) -> Place:
    """Compare what two engines say of the same place."""
    both = old.likely.keys() & new.likely.keys()
    top = _likeliest(old.likely)
    differences = [abs(old.likely[token] - new.likely[token]) for token in both]
    return Place(
        same=old.id == new.id,
        nats=divergence(old.likely, new.likely),
        shared=len(top & _likeliest(new.likely)) / len(top) if top else 0.0,
        difference=statistics.fmean(differences) if differences else _FAR,
    )


def divergence(old: Mapping[int, float], new: Mapping[int, float]) -> float:
    """Estimate the Kullback-Leibler divergence of two lists of log-probabilities, in nats.

    A token that only one list names is taken for as likely as the last of the other list, which is the most that it can
    be there; what no list names counts as one more token.
    """
    if not old or not new:
        return _FAR
    rarest_old, rarest_new = min(old.values()), min(new.values())
    total = said_old = said_new = 0.0
    for token in old.keys() | new.keys():
        first, second = old.get(token, rarest_old), new.get(token, rarest_new)
        total += math.exp(first) * (first - second)
        said_old += math.exp(first)
        said_new += math.exp(second)
    rest_old, rest_new = max(1 - said_old, _LEAST), max(1 - said_new, _LEAST)
    return max(total + rest_old * math.log(rest_old / rest_new), 0.0)


def is_stuck(tokens: Sequence[Token]) -> bool:
    """Tell whether an answer is one token over and over; in a short one that can be chance."""
    return len(tokens) >= _STUCK_FROM and len({token.id for token in tokens}) == 1


def _likeliest(likely: Mapping[int, float]) -> set[int]:
    return set(sorted(likely, key=lambda token: -likely[token])[:_TOP])


def _quartile(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) * 3 // 4, len(values) - 1)]


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
