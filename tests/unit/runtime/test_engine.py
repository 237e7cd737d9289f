"""LlamaServer against a real HTTP server on loopback that plays what engines do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llamarig.config.spec import Spec
from llamarig.runtime.engine import EngineError, LlamaServer
from tests.support import KEY, make_spec

Play = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    server: Stage

    def do_GET(self) -> None:
        self.server.play(self)

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.play(self)

    def answer(self, status: int, body: object) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        pass


class Stage(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, play: Play) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.play = play
        self.bodies: list[dict[str, Any]] = []

    @property
    def spec(self) -> Spec:
        return make_spec(port=self.server_address[1])


@contextmanager
def stage(play: Play) -> Iterator[Stage]:
    with Stage(play) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def replies(status: int, body: object) -> Play:
    return lambda handler: handler.answer(status, body)


def completion(*tokens: tuple[int, str]) -> dict[str, Any]:
    return {
        "choices": [
            {
                "message": {"role": "assistant", "content": "".join(text for _, text in tokens)},
                "logprobs": {"content": [{"id": number, "token": text} for number, text in tokens]},
            }
        ],
        "timings": {"predicted_per_second": 42.5},
    }


def cut(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def hang(_: Handler) -> None:
    time.sleep(0.5)


def refusal(play: Play, timeout: float = 5) -> str:
    with stage(play) as server, pytest.raises(EngineError) as caught:
        LlamaServer().complete(server.spec, "hello", 16, timeout)
    return str(caught.value)


@pytest.mark.parametrize(
    ("play", "health"),
    [
        (replies(200, {"status": "ok"}), "ok"),
        (replies(503, {"error": {"code": 503, "message": "Loading model"}}), "loading"),
        (hang_up, "down"),
        (cut, "down"),
    ],
)
def test_health_is_one_of_three_words(play: Play, health: str) -> None:
    with stage(play) as server:
        assert LlamaServer().health(server.spec) == health


def test_health_of_a_server_that_does_not_listen_is_down() -> None:
    with Stage(hang) as server:
        spec = server.spec
    assert LlamaServer().health(spec) == "down"


def test_health_needs_no_key_so_that_every_user_of_the_host_can_ask(tmp_path: Path) -> None:
    with stage(replies(200, {"status": "ok"})) as server:
        spec = make_spec(port=server.server_address[1], api_key_file="/etc/llamarig/keys/chat.key")
        assert LlamaServer(tmp_path).health(spec) == "ok"


def test_a_completion_is_its_text_tokens_and_speed() -> None:
    with stage(replies(200, completion((5, "Hel"), (6, "lo")))) as server:
        answer = LlamaServer().complete(server.spec, "say it", 7, 5)
    assert (answer.text, answer.tokens, answer.tokens_per_second) == ("Hello", [5, 6], 42.5)
    (body,) = server.bodies
    assert body["messages"] == [{"role": "user", "content": "say it"}]
    assert (body["max_tokens"], body["temperature"]) == (7, 0)


def test_what_a_model_thinks_is_an_answer_too() -> None:
    body = completion((5, ""))
    body["choices"][0]["message"] = {"reasoning_content": "hm", "content": None}
    with stage(replies(200, body)) as server:
        assert LlamaServer().complete(server.spec, "", 1, 5).text == "hm"


def test_a_server_without_timings_has_no_speed() -> None:
    with stage(replies(200, completion((1, "a")) | {"timings": None})) as server:
        assert LlamaServer().complete(server.spec, "", 1, 5).tokens_per_second is None


def test_one_token_over_and_over_is_garbage() -> None:
    message = refusal(replies(200, completion(*[(0, "!")] * 4)))
    assert message == "the server answers one token over and over ('!!!!'): the weights are damaged"


@pytest.mark.parametrize("tokens", [[(0, "!")] * 3, [(0, "!")] * 15 + [(1, "?")]], ids=["few", "one other"])
def test_a_short_answer_or_a_single_other_token_is_no_garbage(tokens: list[tuple[int, str]]) -> None:
    with stage(replies(200, completion(*tokens))) as server:
        assert len(LlamaServer().complete(server.spec, "", 16, 5).tokens) == len(tokens)


def test_an_answer_without_tokens_is_refused() -> None:
    assert refusal(replies(200, completion())) == "the server answered a completion without a single token"


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "no json",
        "",
        {"choices": []},
        {"choices": "x"},
        {"choices": [1]},
        {"choices": [{"message": "x"}]},
        {"choices": [{"logprobs": {"content": [{}]}}]},
        {"choices": [{"logprobs": [1]}]},
    ],
    ids=repr,
)
def test_an_answer_that_is_no_completion_is_refused_like_any_other_bad_one(body: object) -> None:
    assert refusal(replies(200, body)).startswith("the server answered a completion with")


def test_a_server_that_hangs_is_given_up_at_the_timeout() -> None:
    assert refusal(hang, timeout=0.1) == "no completion within 0 s although the server accepts connections"


@pytest.mark.parametrize("play", [cut, hang_up])
def test_a_cut_connection_is_refused(play: Play) -> None:
    assert "the server cut the connection during a completion" in refusal(play)


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [
        (401, {"error": {"message": "Invalid API Key", "code": 401}}, "Invalid API Key"),
        (500, {"error": {"message": "llama_decode failed"}}, "llama_decode failed"),
        (503, {"error": {"message": "Loading model"}}, "Loading model"),
        (500, {"error": "plain words"}, "plain words"),
        (502, "<html>", ""),
    ],
)
def test_an_http_error_is_told_with_its_body(status: int, body: object, detail: str) -> None:
    message = refusal(replies(status, body))
    assert f"HTTP {status}" in message
    assert detail in message


def test_the_key_is_read_below_the_root_and_sent(tmp_path: Path) -> None:
    seen: list[str | None] = []

    def play(handler: Handler) -> None:
        seen.append(handler.headers["Authorization"])
        handler.answer(200, completion((1, "a")))

    (tmp_path / "chat.key").write_text(f"{KEY}\n", encoding="ascii")
    with stage(play) as server:
        LlamaServer(tmp_path).complete(make_spec(port=server.server_address[1], api_key_file="/chat.key"), "", 1, 5)
    assert seen == [f"Bearer {KEY}"]


def test_a_key_that_cannot_be_read_is_named_and_not_called_a_cut_connection(tmp_path: Path) -> None:
    spec = make_spec(port=9, api_key_file="/etc/llamarig/keys/chat.key")
    with pytest.raises(EngineError, match=r"/etc/llamarig/keys/chat\.key") as caught:
        LlamaServer(tmp_path).complete(spec, "", 1, 5)
    assert "cut the connection" not in str(caught.value)
