"""What two engines answer to the same prompts, short and long, each from a server of its own, one after the other.

Long prompts are of three lengths, the longest of them more than one batch of the server's usual 512 tokens: an engine
can be right on 20 tokens and wrong from 100 on, or only where a second batch begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from llamarig.config.spec import Spec
from llamarig.runtime.completions import Completion, Completions
from llamarig.trial.agreement import Agreement, Place, compare, is_stuck
from llamarig.trial.placement import CONTEXT
from llamarig.trial.text import LONG, SHORT

SHORT_PROMPT: Final = "short-prompt"
LONG_PROMPT: Final = "long-prompt"
# A prompt shorter than this is no long one.
LEAST_LONG: Final = 300
# Tokens of each long prompt, and how many are generated after every prompt.
_LONG: Final = (320, 512, 768)
_GENERATED: Final = 32
# So many of the likeliest tokens are compared at each place.
_LIKELY: Final = 40
# Where a candidate parts from the old engine this often, the rest of the answer would say nothing new.
_PARTINGS: Final = 12
# A model whose experts are on the CPU reads 768 tokens at 5 a second in 150 s.
_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, and what the old engine answered."""

    check: str
    prompt: tuple[int, ...]
    answer: Completion


@dataclass(frozen=True, slots=True)
class Recording:
    """All that the old engine said: the tokens of the text, and its answers."""

    tokens: tuple[int, ...]
    asked: tuple[Asked, ...]

    def of(self, check: str) -> list[Asked]:
        """Return the prompts of one check."""
        return [asked for asked in self.asked if asked.check == check]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a candidate's answers to the prompts of one check come to.

    Attributes:
        agreement: with the old engine's; None where there is nothing to compare.
        trouble: what is wrong whatever the figures say; empty where nothing is.
        lengths: tokens of the prompts.

    """

    agreement: Agreement | None
    trouble: str
    lengths: tuple[int, ...]

    @property
    def holds(self) -> bool:
        """Whether the candidate answers as the old engine does."""
        return not self.trouble and self.agreement is not None and self.agreement.holds


def record(server: Completions, spec: Spec, context: int) -> Recording:
    """Ask the old engine.

    Args:
        server: how it is asked.
        spec: where it is.
        context: the longest that the model was made for, 0 where that is not known.

    Raises:
        EngineError: it does not answer as a working server does.

    """
    short = server.tokenize(spec, SHORT, _SECONDS)
    text = server.tokenize(spec, LONG, _SECONDS)
    longest = min(len(text), min(context or CONTEXT, CONTEXT) - _GENERATED)
    lengths = dict.fromkeys(min(length, longest) for length in _LONG if longest >= LEAST_LONG)
    prompts = [(SHORT_PROMPT, tuple(short)), *((LONG_PROMPT, tuple(text[:length])) for length in lengths)]
    asked = [
        Asked(check, prompt, server.generate(spec, prompt, _GENERATED, timeout=_SECONDS, likely=_LIKELY))
        for check, prompt in prompts
    ]
    return Recording((*short, *text), tuple(asked))


def judge(server: Completions, spec: Spec, recording: Recording, check: str, say: Callable[[str], None]) -> Judged:
    """Ask the candidate the prompts of one check, and compare.

    Raises:
        EngineError: it does not answer as a working server does.

    """
    lengths = tuple(len(asked.prompt) for asked in recording.of(check))
    if not lengths:
        return Judged(None, f"the model was not made for prompts of {LEAST_LONG} tokens", ())
    tokens = (*server.tokenize(spec, SHORT, _SECONDS), *server.tokenize(spec, LONG, _SECONDS))
    if tokens != recording.tokens:
        return Judged(None, _other_tokens(recording.tokens, tokens), lengths)
    found = []
    for asked in recording.of(check):
        say(f"a prompt of {len(asked.prompt)} tokens")
        first = server.generate(spec, asked.prompt, len(asked.answer.tokens), timeout=_SECONDS, likely=_LIKELY)
        if not first.tokens:
            return Judged(None, f"no token after a prompt of {len(asked.prompt)}", lengths)
        if is_stuck(first.tokens) and not is_stuck(asked.answer.tokens):
            said = f"one token over and over ({first.text[:20]!r}) after a prompt of {len(asked.prompt)}"
            return Judged(None, f"{said}, and the old engine {asked.answer.text[:20]!r}", lengths)
        found.append(_follow(server, spec, asked, first))
    return Judged(Agreement(found), "", lengths)


def _follow(server: Completions, spec: Spec, asked: Asked, first: Completion) -> list[Place]:
    """Compare place by place; where the candidate goes another way, it is asked on from what the old engine said."""
    old = asked.answer.tokens
    places: list[Place] = []
    answer = first
    for _ in range(_PARTINGS):
        for ours, theirs in zip(old[len(places) :], answer.tokens, strict=False):
            places.append(compare(ours, theirs))
            if not places[-1].same:
                break
        if len(places) >= len(old) or places[-1].same:
            break
        prompt = [*asked.prompt, *(token.id for token in old[: len(places)])]
        answer = server.generate(spec, prompt, len(old) - len(places), timeout=_SECONDS, likely=_LIKELY, reuse=True)
        if not answer.tokens:
            break
    return places


def _other_tokens(old: Sequence[int], new: Sequence[int]) -> str:
    place = next((n for n, (ours, theirs) in enumerate(zip(old, new, strict=False)) if ours != theirs), None)
    where = f"from token {place + 1} on" if place is not None else f"{len(new)} instead of {len(old)}"
    return f"it makes other tokens of the same text, {where}"
