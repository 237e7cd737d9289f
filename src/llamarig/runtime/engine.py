"""llama-server as a client sees it."""

from __future__ import annotations

import errno
import http.client
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from llamarig.config.spec import Spec

# What a switch and the doctor ask to see whether a service really answers.
PROMPT: Final = "Say hello in one short sentence."
TOKENS: Final = 16
_GARBAGE_FROM: Final = 4
_LARGEST: Final = 1 << 20


class EngineError(Exception):
    """The server did not answer as a working server does; the message says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion: its text, and how fast it came (tokens per second)."""

    text: str
    tokens: list[int]
    seconds: float
    tokens_per_second: float | None


class Engine(Protocol):
    """What switching needs of an engine."""

    def port_is_taken(self, spec: Spec) -> bool:
        """Tell whether something listens on the service's port."""

    def health(self, spec: Spec) -> str:
        """Return ``ok``, ``loading`` or ``down``; proves nothing about completions."""

    def complete(self, spec: Spec, prompt: str, tokens: int, timeout: float) -> Answer:
        """Ask for a completion, and refuse one that is garbage."""


class LlamaServer:
    """The engine over HTTP."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def port_is_taken(self, spec: Spec) -> bool:
        """Tell whether something listens on the service's port."""
        family = socket.AF_INET6 if ":" in spec.bind else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((spec.bind, spec.port))
            except OSError as error:
                return error.errno == errno.EADDRINUSE
        return False

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
            msg = f"the server answered a completion with HTTP {status}: {detail}"
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
            raise EngineError(msg)
        if len(ids) >= _GARBAGE_FROM and len(set(ids)) == 1:
            msg = f"the server answers one token over and over ({text[:20]!r}): the weights are damaged"
            raise EngineError(msg)
        return Answer(text, ids, time.monotonic() - start, speed)

    def _key(self, path: str) -> str:
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            msg = f"the API key {path} cannot be read ({error}): ask as root, or run playbooks/site.yml again"
            raise EngineError(msg) from error

    def _request(
        self, spec: Spec, method: str, path: str, body: dict[str, Any] | None, timeout: float
    ) -> tuple[int, dict[str, Any]]:
        url = urlsplit(spec.url)
        headers = {"Content-Type": "application/json"}
        # /health wants no key, and not every user may read it.
        if spec.api_key_file and path != "/health":
            headers["Authorization"] = f"Bearer {self._key(spec.api_key_file)}"
        connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port, timeout=timeout)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            raw = response.read(_LARGEST)
            if response.length:
                raise http.client.IncompleteRead(raw, response.length)
        finally:
            connection.close()
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError):
            data = {}
        return response.status, data if isinstance(data, dict) else {}
