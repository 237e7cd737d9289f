"""Raw completions over real HTTP, from a server that answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llamarig.runtime.completions import Completions, Token
from llamarig.runtime.engine import EngineError
from tests.support import make_spec

TOKEN = {"id": 7, "token": "a", "bytes": [97], "logprob": -0.1}
ANSWER = {
    "content": "a",
    "completion_probabilities": [
        {**TOKEN, "top_logprobs": [TOKEN, {"id": 9, "logprob": -2.5}, {"id": 1, "logprob": None}]}
    ],
    "timings": {"prompt_per_second": 100.5, "predicted_per_second": 20.25},
}


@dataclass
class Played:
    """A server: what it answers with which status, and what it was asked."""

    port: int = 0
    answer: Any = field(default_factory=dict)
    status: int = 200
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def spec(self) -> Any:
        return make_spec(port=self.port)


@pytest.fixture
def server() -> Iterator[Played]:
    played = Played()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            played.asked.append((self.path, body))
            self.send_response(played.status)
            self.end_headers()
            self.wfile.write(json.dumps(played.answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    played.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield played
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_text_becomes_tokens_with_those_that_a_prompt_begins_with(server: Played) -> None:
    server.answer = {"tokens": [1, 2, 3]}
    assert Completions().tokenize(server.spec, "text", 5) == [1, 2, 3]
    assert server.asked == [("/tokenize", {"content": "text", "add_special": True})]


def test_a_completion_is_greedy_and_told_with_its_likeliest_tokens(server: Played) -> None:
    server.answer = ANSWER
    done = Completions().generate(server.spec, [4, 5], 1, timeout=5, likely=3)
    assert done.tokens == [Token(7, {7: -0.1, 9: -2.5})]
    assert (done.text, done.prompt_per_second, done.predicted_per_second) == ("a", 100.5, 20.25)
    ((path, body),) = server.asked
    assert path == "/completion"
    assert body == {
        "prompt": [4, 5],
        "n_predict": 1,
        "temperature": 0,
        "n_probs": 3,
        "cache_prompt": False,
        "ignore_eos": True,
    }


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (500, {"error": {"message": "out of slots"}}, "HTTP 500: out of slots"),
        (404, {"error": "File Not Found"}, "HTTP 404"),
        (200, {"completion_probabilities": [{"id": "x"}], "content": ""}, "completes a prompt with"),
        (200, {"completion_probabilities": 3}, "completes a prompt with"),
        (200, [], "completes a prompt with"),
    ],
)
def test_an_answer_that_is_none_is_an_error_that_says_so(server: Played, status: int, answer: Any, said: str) -> None:
    server.status, server.answer = status, answer
    with pytest.raises(EngineError, match=said):
        Completions().generate(server.spec, "x", 1, timeout=5)


def test_a_text_that_does_not_become_tokens_is_an_error(server: Played) -> None:
    server.answer = {"tokens": [{"id": 1}]}
    with pytest.raises(EngineError, match="tokenizes a text into"):
        Completions().tokenize(server.spec, "text", 5)


def test_a_server_that_is_gone_is_an_error() -> None:
    with pytest.raises(EngineError, match="cut the connection"):
        Completions().generate(make_spec(port=1), "x", 1, timeout=5)
