"""LlamaServer against a real HTTP server on loopback that plays what engines do."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.runtime.engine import EngineError, EngineSocket, LlamaServer, Slot
from tests.support import KEY, below, make_spec

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


class SocketHandler(Handler):
    def address_string(self) -> str:
        return "a socket"


class SocketStage(socketserver.ThreadingUnixStreamServer):
    """The same on a UNIX socket."""

    daemon_threads = True

    def __init__(self, place: str, play: Play) -> None:
        super().__init__(place, SocketHandler)
        self.play = play
        self.bodies: list[dict[str, Any]] = []
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


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


SLOTS_OF_0_7 = [
    {
        "id": 0,
        "is_processing": True,
        "n_prompt_tokens": 1502,
        "n_prompt_tokens_processed": 1024,
        "next_token": [{"has_next_token": True, "n_remain": -1, "n_decoded": 7}],
    }
]
SLOTS_OF_0_5 = [
    {"id": 1, "is_processing": False, "n_prompt_tokens": 3, "next_token": {"n_decoded": 0}},
    {"id": 2, "is_processing": False},
]


def test_slots_say_how_far_the_engine_is_whatever_its_version() -> None:
    with stage(replies(200, SLOTS_OF_0_7)) as server:
        assert LlamaServer().slots(server.spec, 5) == [Slot(0, busy=True, prompt_tokens=1024, decoded=7)]
    with stage(replies(200, SLOTS_OF_0_5)) as server:
        assert LlamaServer().slots(server.spec, 5) == [Slot(1, False, 3, 0), Slot(2, False, 0, 0)]


@pytest.mark.parametrize(
    "play",
    [hang_up, hang, cut, replies(501, {"error": {}}), replies(200, {}), replies(200, [{}]), replies(200, "no json")],
)
def test_an_engine_that_does_not_say_what_it_does_is_an_error(play: Play) -> None:
    with stage(play) as server, pytest.raises(EngineError, match="what it is doing"):
        LlamaServer().slots(server.spec, 0.2)


def test_an_engine_is_reached_on_its_own_socket_with_its_key(tmp_path: Path) -> None:
    seen: list[str] = []

    def play(handler: Handler) -> None:
        seen.append(f"{handler.path} {handler.headers.get('Authorization')}")
        handler.answer(200, [])

    spec = make_spec(api_key_file="/etc/llamarig/keys/chat.key")
    below(tmp_path, "/etc/llamarig/keys").mkdir(parents=True)
    below(tmp_path, "/etc/llamarig/keys/chat.key").write_text(f"{KEY}\n", encoding="ascii")
    place = below(tmp_path, paths.engine_socket("chat"))
    place.parent.mkdir(parents=True)
    with SocketStage(str(place), play):
        assert EngineSocket(tmp_path).slots(spec, 5) == []
        assert EngineSocket(tmp_path).health(spec) == "ok"
    assert seen == [f"/slots Bearer {KEY}", "/health None"]
    assert EngineSocket(tmp_path).health(spec) == "down"


def trickle(handler: Handler) -> None:
    """An answer that comes so slowly that no single wait is ever over."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(1000):
            handler.wfile.write(b" ")
            time.sleep(0.01)


def continues(handler: Handler) -> None:
    """Word that an answer will come, and no answer."""
    with contextlib.suppress(OSError):
        for _ in range(1000):
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.01)


@pytest.mark.parametrize("play", [trickle, continues])
def test_an_engine_cannot_hold_whoever_asks_it(play: Play) -> None:
    with stage(play) as server, pytest.raises(EngineError):
        LlamaServer().slots(server.spec, 0.3)


def test_figures_that_are_none_are_an_error_and_no_end_of_the_daemon() -> None:
    endless = '[{"id": 0, "is_processing": true, "n_prompt_tokens": 1e999}]'
    with stage(replies(200, endless)) as server, pytest.raises(EngineError, match="words that are not known"):
        LlamaServer().slots(server.spec, 5)


def test_what_an_engine_says_in_its_own_words_is_kept_short_and_on_one_line() -> None:
    play = replies(500, {"error": {"message": "a\nb" * 10000}})
    assert len(refusal(play)) < 300
    assert "\n" not in refusal(play)
