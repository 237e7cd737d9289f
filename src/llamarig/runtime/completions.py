"""What an engine answers token by token, with the probabilities that it saw: raw completions, past every template."""

from __future__ import annotations

import http.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llamarig.config.spec import Spec
from llamarig.runtime.engine import EngineError, LlamaServer

# What engine speed asks; the engine goes on to the end of its tokens whatever the model would do.
SPEED_PROMPT: Final = "Write a long and calm description of a walk along a river, from its spring to the sea."


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token: its id, and log-probabilities of the likeliest at its place, itself among them."""

    id: int
    likely: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine generated, and how fast: tokens per second of the prompt and of the answer, None if unsaid."""

    tokens: list[Token]
    text: str
    prompt_per_second: float | None
    predicted_per_second: float | None


class Completions(LlamaServer):
    """A server asked for raw completions. Every method raises EngineError where it does not answer as it should."""

    def tokenize(self, spec: Spec, text: str, timeout: float) -> list[int]:
        """Return a text's tokens, with those that a prompt begins with."""
        data = self._answer(spec, "/tokenize", {"content": text, "add_special": True}, timeout)
        try:
            return [int(token) for token in data["tokens"]]
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"the server tokenizes a text into {str(data)[:100]!r}") from error

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
        """Generate ``count`` tokens, the likeliest at each place, whatever ends a text.

        Args:
            spec: where the server is.
            prompt: tokens, or a text that the server tokenizes.
            count: how many tokens; all of them are generated.
            timeout: seconds.
            likely: of how many of the likeliest tokens log-probabilities are wanted at each place.
            reuse: whether what the server still has of an earlier prompt may stand for the same beginning of this one.

        """
        body = {
            "prompt": list(prompt) if not isinstance(prompt, str) else prompt,
            "n_predict": count,
            "temperature": 0,
            "n_probs": likely,
            "cache_prompt": reuse,
            "ignore_eos": True,
        }
        data = self._answer(spec, "/completion", body, timeout)
        try:
            tokens = [_token(item) for item in data.get("completion_probabilities") or []]
            timings = data.get("timings") or {}
            speeds = (timings.get("prompt_per_second"), timings.get("predicted_per_second"))
            return Completion(tokens, str(data["content"]), *speeds)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise EngineError(f"the server completes a prompt with {str(data)[:100]!r}") from error

    def _answer(self, spec: Spec, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        try:
            status, data = self._request(spec, "POST", path, body, timeout=timeout)
        except TimeoutError as error:
            raise EngineError(f"no answer of {path} within {timeout:.0f} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"the server cut the connection ({error or type(error).__name__})") from error
        if status != http.HTTPStatus.OK:
            said = data.get("error")
            detail = said.get("message", "") if isinstance(said, dict) else data
            raise EngineError(f"the server answers {path} with HTTP {status}: {detail}")
        return data


def _token(item: Mapping[str, Any]) -> Token:
    likely = {
        int(other["id"]): float(other["logprob"]) for other in item["top_logprobs"] if other["logprob"] is not None
    }
    return Token(int(item["id"]), likely)
