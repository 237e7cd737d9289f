"""llama-server as a client sees it."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.runtime.connections import BoundedConnection, UnixConnection, read_whole

# What a switch and the doctor ask to see whether a service really answers.
PROMPT: Final = "Say hello in one short sentence."
TOKENS: Final = 16
_GARBAGE_FROM: Final = 4
_LARGEST: Final = 1 << 20
# What an engine says of itself for Prometheus is some thousand bytes.
_METRICS_BYTES: Final = 1 << 18
# An engine with this option is woken, or kept awake, by questions for its slots and its metrics.
SLEEPS: Final = "--sleep-idle-seconds"
# Of what an engine says in its own words, so much is passed on.
_SAID: Final = 200


class EngineError(Exception):
    """The server did not answer as a working server does; the message says how."""


class GarbageError(EngineError):
    """What the server answers is no text: one token over and over, or none at all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion: its text, and how fast it came (tokens per second)."""

    text: str
    tokens: list[int]
    seconds: float
    tokens_per_second: float | None


@dataclass(frozen=True, slots=True)
class Slot:
    """One of the server's places for a request: whether it has one, which, and how far that is, in tokens."""

    id: int
    busy: bool
    prompt_tokens: int
    decoded: int
    task: int = -1


class Engine(Protocol):
    """What switching needs of an engine."""

    def health(self, spec: Spec) -> str:
        """Return ``ok``, ``loading`` or ``down``; proves nothing about completions."""

    def complete(self, spec: Spec, prompt: str, tokens: int, timeout: float) -> Answer:
        """Ask for a completion, and refuse one that is garbage."""

    def slots(self, spec: Spec, timeout: float) -> list[Slot]:
        """Return what the engine is doing; that touches no cache."""


class LlamaServer:
    """The engine over HTTP, where its clients reach it."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def health(self, spec: Spec) -> str:
        """Return ``ok``, ``loading`` or ``down``."""
        try:
            status, _ = self._request(spec, "GET", "/health", None, timeout=2)
        except OSError:
            return "down"
        except http.client.HTTPException:
            return "down"
        return "ok" if status == http.HTTPStatus.OK else "loading"

    def complete(self, spec: Spec, prompt: str, tokens: int, timeout: float) -> Answer:
        """Ask for a completion of at most ``tokens`` tokens at temperature 0, through the model's chat template.

        Raises:
            EngineError: no answer in ``timeout`` seconds, an error, or one token over and over, which is what
                zeroed weights give while ``/health`` says ok.

        """
        start = time.monotonic()
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 1,
            "cache_prompt": False,
        }
        try:
            status, data = self._request(spec, "POST", "/v1/chat/completions", body, timeout=timeout)
        except TimeoutError as error:
            msg = f"no completion within {timeout:.0f} s although the server accepts connections"
            raise EngineError(msg) from error
        except (OSError, http.client.HTTPException) as error:
            msg = f"the server cut the connection during a completion ({error or type(error).__name__})"
            raise EngineError(msg) from error
        if status != http.HTTPStatus.OK:
            detail = (data.get("error") or {}).get("message", "") if isinstance(data.get("error"), dict) else data
            said = " ".join(str(detail).split())[:_SAID]
            msg = f"the server answered a completion with HTTP {status}: {said}"
            raise EngineError(msg)
        try:
            choice = data["choices"][0]
            message = choice["message"]
            text = f"{message.get('reasoning_content') or ''}{message.get('content') or ''}"
            ids = [int(item["id"]) for item in (choice.get("logprobs") or {}).get("content") or []]
            speed = (data.get("timings") or {}).get("predicted_per_second")
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
            text, ids, speed = "", [], None  # something that is no completion holds no token either
        if not ids:
            msg = "the server answered a completion without a single token"
            raise GarbageError(msg)
        if len(ids) >= _GARBAGE_FROM and len(set(ids)) == 1:
            msg = f"the server answers one token over and over ({text[:20]!r}): the weights are damaged"
            raise GarbageError(msg)
        return Answer(text, ids, time.monotonic() - start, speed)

    def slots(self, spec: Spec, timeout: float) -> list[Slot]:
        """Return what the engine is doing.

        ``GET /slots`` goes through the queue of the engine's main loop. Version 0.7.0 answers in the middle of a batch
        from another thread, with figures that stand still: what tells is whether they move.

        Raises:
            EngineError: no answer in ``timeout`` seconds, or none that is understood.

        """
        try:
            status, data = self._exchange(spec, "GET", "/slots", None, timeout)
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"the server does not say what it is doing ({error or type(error).__name__})") from error
        if status != http.HTTPStatus.OK or not isinstance(data, list):
            raise EngineError(f"the server does not say what it is doing (HTTP {status})")
        try:
            return [_slot(item) for item in data]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise EngineError(f"the server says what it is doing in words that are not known ({error})") from error

    def metrics(self, spec: Spec, timeout: float) -> str:
        """Return what the engine counts, in Prometheus's text format; that takes no slot, and touches no cache.

        Raises:
            EngineError: no answer in ``timeout`` seconds, none that is good, or one that is too long.

        """
        try:
            status, raw = self._fetch(spec, "GET", "/metrics", None, timeout, _METRICS_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"the server does not say what it counts ({error or type(error).__name__})") from error
        if status != http.HTTPStatus.OK:
            raise EngineError(f"the server does not say what it counts (HTTP {status})")
        return raw.decode("utf-8", "replace")

    def _key(self, path: str) -> str:
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            msg = f"the API key {path} cannot be read ({error}): ask as root, or run playbooks/site.yml again"
            raise EngineError(msg) from error

    def _request(
        self, spec: Spec, method: str, path: str, body: dict[str, Any] | None, timeout: float
    ) -> tuple[int, dict[str, Any]]:
        status, data = self._exchange(spec, method, path, body, timeout)
        return status, data if isinstance(data, dict) else {}

    def _exchange(
        self, spec: Spec, method: str, path: str, body: dict[str, Any] | None, timeout: float
    ) -> tuple[int, Any]:
        status, raw = self._fetch(spec, method, path, body, timeout, _LARGEST)
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError):
            data = {}
        return status, data

    def _fetch(
        self, spec: Spec, method: str, path: str, body: dict[str, Any] | None, timeout: float, largest: int
    ) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        # /health wants no key, and not every user may read it.
        if spec.api_key_file and path != "/health":
            headers["Authorization"] = f"Bearer {self._key(spec.api_key_file)}"
        connection = self._connection(spec, timeout)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            with connection.getresponse() as response:
                return response.status, read_whole(response, largest)
        finally:
            connection.close()

    def _connection(self, spec: Spec, timeout: float) -> http.client.HTTPConnection:
        url = urlsplit(spec.url)
        return BoundedConnection(url.hostname or "127.0.0.1", url.port, timeout=timeout)


class EngineSocket(LlamaServer):
    """The engine over HTTP, on the socket that it listens on itself, whether the door is open or not."""

    def _connection(self, spec: Spec, timeout: float) -> http.client.HTTPConnection:
        return UnixConnection(str(self.root / paths.engine_socket(spec.service).lstrip("/")), timeout)


def _slot(item: dict[str, Any]) -> Slot:
    """Read one slot; the engine names its fields by version (0.5.0 has next_token as an object, 0.7.0 as a list)."""
    token = item.get("next_token") or {}
    token = token[0] if isinstance(token, list) else token
    return Slot(
        id=int(item["id"]),
        busy=bool(item["is_processing"]),
        prompt_tokens=int(item.get("n_prompt_tokens_processed", item.get("n_prompt_tokens", 0)) or 0),
        decoded=int(token.get("n_decoded", 0) or 0),
        task=int(item.get("id_task", -1)),
    )
