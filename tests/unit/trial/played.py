"""An engine that answers by arithmetic: what comes next depends on all tokens before it, as in a model."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from llamarig.config.spec import Spec
from llamarig.runtime.completions import Completion, Completions, Token
from llamarig.runtime.engine import EngineError

Context = tuple[int, ...]


class PlayedModel(Completions):
    """Tokens of a text are its letters; ``hears`` is what becomes of a prompt, ``noise`` is added to logits."""

    def __init__(
        self,
        *,
        hears: Callable[[Context], Context] = lambda prompt: prompt,
        noise: float = 0.0,
        says: Callable[[Context], Completion | None] = lambda _: None,
        letters: int = 0,
    ) -> None:
        super().__init__()
        self.hears = hears
        self.noise = noise
        self.says = says
        self.letters = letters
        self.asked: list[tuple[int, int, bool]] = []
        self._heard: tuple[Context, Context] = ((), ())

    def tokenize(self, spec: Spec, text: str, timeout: float) -> list[int]:
        assert spec.service
        assert timeout > 0
        return [ord(letter) + self.letters for letter in text][:900]

    def generate(
        self,
        spec: Spec,
        prompt: Sequence[int] | str,
        count: int,
        *,
        timeout: float,
        likely: int = 0,
        reuse: bool = False,
    ) -> Completion:
        assert not isinstance(prompt, str)
        assert spec.service
        assert timeout > 0
        self.asked.append((len(prompt), count, reuse))
        said = self.says(tuple(prompt))
        if said is not None:
            return said
        given = tuple(prompt)
        # What stays of an earlier prompt is what was heard then, as in a cache.
        if not reuse:
            self._heard = (given, self.hears(given))
        context = self._heard[1] + given[len(self._heard[0]) :]
        tokens = []
        for _ in range(count):
            tokens.append(self._next(context, likely))
            context += (tokens[-1].id,)
        return Completion(tokens, "".join(chr(32 + token.id % 90) for token in tokens), None, None)

    def _next(self, context: Context, likely: int) -> Token:
        chance = random.Random(hash(context[-600:]))  # noqa: S311  the same for the same context
        logits = [chance.gauss(0, 3) for _ in range(200)]
        jitter = random.Random(hash((context[-5:], self.noise)))  # noqa: S311
        logits = [logit + jitter.gauss(0, self.noise) for logit in logits]
        total = math.log(sum(math.exp(logit) for logit in logits))
        ranked = sorted(range(200), key=lambda token: -logits[token])
        return Token(ranked[0], {token: logits[token] - total for token in ranked[:likely]})


def refuses(_: Context) -> Completion | None:
    """Answer no prompt."""
    raise EngineError("the server answers /completion with HTTP 500: no slot")


def says(*tokens: int) -> Callable[[Context], Completion | None]:
    """Answer every prompt with these tokens."""
    return lambda _: Completion([Token(token, {token: -0.1}) for token in tokens], "same", None, None)
