"""The client of the daemon, against a real HTTP server on UNIX sockets and on a port."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from llamarig.config import paths
from llamarig.errors import (
    BusyError,
    CancelledError,
    DaemonGoneError,
    ExitCode,
    LlamarigError,
    NotAllowedError,
    NotFoundError,
    SwitchError,
)
from llamarig.runtime.connections import UnixConnection
from llamarig.runtime.management import Management, outcome_of
from tests.played_daemon import Answer, Daemon, Request, event
from tests.support import below

RUNNING = {"id": "7", "kind": "switch", "service": "chat", "state": "running", "phase": "load"}
DONE = RUNNING | {"state": "succeeded", "outcome": {"active": ["chat"], "changed": True}}


def asking(root: Path, **changes: Any) -> Management:
    return Management(root, **{"seconds": 5.0, "patience": 5.0, "sleep": lambda _: None, **changes})


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Callable[[Request], Answer]], Daemon]]:
    """Start a daemon that answers as a test says."""
    started: list[Daemon] = []

    def start(answer: Callable[[Request], Answer]) -> Daemon:
        started.append(Daemon(tmp_path, answer).start())
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop()


Serve = Callable[[Callable[[Request], Answer]], Daemon]


def test_it_asks_and_says_who_asks(serve: Serve, tmp_path: Path) -> None:
    daemon = serve(lambda request: Answer(data={"path": request.path}))
    client = asking(tmp_path, origin="playbook")
    assert client.get("/plan/ein dienst", lines=3) == {"path": "/plan/ein dienst"}
    assert client.post("/reconcile", {"adopt": True}, wait="false") == {"path": "/reconcile"}
    assert client.delete("/jobs/7") == {"path": "/jobs/7"}
    get, post, delete = daemon.asked
    assert (get.method, get.query, get.body) == ("GET", {"lines": "3"}, None)
    assert (post.method, post.query, post.body) == ("POST", {"wait": "false"}, {"adopt": True})
    assert delete.method == "DELETE"
    assert {request.headers["x-llamarig-origin"] for request in daemon.asked} == {"playbook"}
    assert {request.headers["host"] for request in daemon.asked} == {"localhost"}
    assert all(request.may_manage for request in daemon.asked)


def test_who_may_not_manage_asks_on_the_socket_that_reads(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = serve(lambda request: Answer(200 if request.method == "GET" else 403, {"ok": True}))
    client = asking(tmp_path)
    assert client.may_manage
    forbid(monkeypatch, tmp_path, paths.MANAGE_SOCKET)
    assert client.get("/status") == {"ok": True}
    assert [request.may_manage for request in daemon.asked] == [False]
    with pytest.raises(NotAllowedError) as refused:
        client.post("/switch", {"model": "chat"})
    assert refused.value.remedy == "try with sudo, or join the group llamarig"
    assert not asking(tmp_path / "elsewhere").may_manage
    forbid(monkeypatch, tmp_path, paths.MANAGE_SOCKET, paths.READ_SOCKET)
    with pytest.raises(DaemonGoneError, match="this user may not ask it"):
        client.get("/status")


def forbid(monkeypatch: pytest.MonkeyPatch, root: Path, *sockets: str) -> None:
    """Let nobody connect to these; root itself would be let through."""
    places = {str(below(root, path)) for path in sockets}

    class Guarded(UnixConnection):
        def connect(self) -> None:
            if self.path in places:
                raise PermissionError(13, "Permission denied")
            super().connect()

    monkeypatch.setattr("llamarig.runtime.management.UnixConnection", Guarded)


@pytest.mark.parametrize(
    ("status", "data", "kind", "code", "remedy"),
    [
        (401, {"error": "no key"}, NotAllowedError, ExitCode.NOT_ALLOWED, "try with sudo"),
        (403, {"error": "no", "remedy": "ask her"}, NotAllowedError, ExitCode.NOT_ALLOWED, "ask her"),
        (404, {"error": "no such model"}, NotFoundError, ExitCode.NOT_FOUND, ""),
        (409, {"error": "a switch is under way"}, BusyError, ExitCode.BUSY, "llamarig status"),
        (429, {"error": "too many"}, BusyError, ExitCode.BUSY, "try again in 7 s"),
        (400, {"error": "no JSON", "remedy": "send some"}, LlamarigError, ExitCode.FAILED, "send some"),
        (500, b"<html>", LlamarigError, ExitCode.FAILED, "journalctl --unit llamarigd"),
    ],
)
def test_a_refusal_is_an_error_with_its_exit_code(
    serve: Serve, tmp_path: Path, status: int, data: Any, kind: type[LlamarigError], code: ExitCode, remedy: str
) -> None:
    serve(lambda _: Answer(status, data, {"Retry-After": "7"}))
    with pytest.raises(LlamarigError) as refused:
        asking(tmp_path).get("/status")
    assert type(refused.value) is kind
    assert refused.value.exit_code == code
    assert remedy in refused.value.remedy
    assert refused.value.message == (
        data["error"] if isinstance(data, dict) else "the daemon answers HTTP 500 Internal Server Error"
    )


def test_a_switch_that_was_waited_for_and_failed_says_what_serves(serve: Serve, tmp_path: Path) -> None:
    answer = {"success": False, "error": "it ended", "remedy": "look", "model": "code", "log_lines": ["out of memory"]}
    serve(lambda _: Answer(502, answer))
    with pytest.raises(SwitchError) as failed:
        asking(tmp_path).post("/switch", {"model": "chat"})
    assert (failed.value.serving, failed.value.log_lines) == ("code", ["out of memory"])


def test_a_daemon_that_does_not_run_is_said_with_what_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(DaemonGoneError, match="llamarigd does not answer: it does not run") as gone:
        asking(tmp_path).get("/status")
    assert gone.value.remedy == "systemctl status llamarigd"
    place = below(tmp_path, paths.MANAGE_SOCKET)
    place.parent.mkdir(parents=True)
    with socketserver.UnixStreamServer(str(place), BaseHTTPRequestHandler):
        pass  # bound and closed: a socket that nobody listens on, as a kill leaves it
    with pytest.raises(DaemonGoneError, match="it does not run"):
        asking(tmp_path).get("/status")


def test_a_daemon_that_says_nothing_is_not_waited_for_for_ever(serve: Serve, tmp_path: Path) -> None:
    daemon: Daemon

    def silent(_: Request) -> Answer:
        daemon.over.wait(60)
        return Answer(data={})

    daemon = serve(silent)
    with pytest.raises(DaemonGoneError, match="it says nothing"):
        asking(tmp_path, seconds=0.05).get("/status")
    with pytest.raises(DaemonGoneError, match="it says nothing"):
        next(asking(tmp_path, seconds=0.05).events())


def test_a_daemon_that_goes_in_the_middle_of_an_answer_is_gone(serve: Serve, tmp_path: Path) -> None:
    serve(lambda _: Answer(cut=True))
    with pytest.raises(DaemonGoneError):
        asking(tmp_path).get("/status")


def test_a_job_that_was_asked_for_is_returned(serve: Serve, tmp_path: Path) -> None:
    daemon = serve(lambda request: Answer(202 if request.method == "POST" else 200, {"job": RUNNING}))
    client = asking(tmp_path)
    assert client.submit("/switch", {"model": "chat"}) == RUNNING
    assert daemon.asked[0].query == {"wait": "false"}
    assert client.job("7") == RUNNING


def test_a_job_is_followed_to_its_end(serve: Serve, tmp_path: Path) -> None:
    loading = [RUNNING | {"text": f"{percent} %"} for percent in (10, 60)]
    pieces = [": hello\n\n", event("job", loading[0], 1), event("other", {}), event("job", loading[1], 2)]
    daemon = serve(lambda _: Answer(stream=iter([*pieces, event("job", DONE, 3)])))
    assert list(asking(tmp_path).follow("7")) == [*loading, DONE]
    assert [request.path for request in daemon.asked] == ["/jobs/7/events"]
    assert daemon.asked[0].headers["accept"] == "text/event-stream"


def test_a_job_is_followed_over_a_cut_connection_from_where_it_was(serve: Serve, tmp_path: Path) -> None:
    streams = iter([[event("job", RUNNING, 4), "event: job\nda"], [event("job", DONE, 5)]])

    def answer(request: Request) -> Answer:
        if request.path.endswith("/events"):
            return Answer(stream=iter(next(streams)))
        return Answer(data=RUNNING)

    daemon = serve(answer)
    assert list(asking(tmp_path).follow("7")) == [RUNNING, DONE]
    asked = [(request.path, request.headers.get("last-event-id")) for request in daemon.asked]
    assert asked == [("/jobs/7/events", None), ("/jobs/7", None), ("/jobs/7/events", "4")]


def test_a_job_is_followed_over_a_restart_of_the_daemon(tmp_path: Path) -> None:
    def before(request: Request) -> Answer:
        def stream() -> Iterator[str]:
            yield event("job", RUNNING, 1)
            first.over.wait(60)

        return Answer(stream=stream()) if request.path.endswith("/events") else Answer(data=RUNNING)

    first = Daemon(tmp_path, before).start()
    second = Daemon(tmp_path, lambda _: Answer(stream=iter([event("job", DONE, 2)])))
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            second.start()

    jobs = asking(tmp_path, sleep=nap).follow("7")
    assert next(jobs) == RUNNING
    first.stop()
    assert list(jobs) == [DONE]
    assert len(naps) == 3
    second.stop()


def test_a_job_that_was_over_before_anybody_looked_is_told_once(serve: Serve, tmp_path: Path) -> None:
    serve(lambda request: Answer(stream=iter(())) if request.path.endswith("/events") else Answer(data={"job": DONE}))
    assert list(asking(tmp_path).follow("7")) == [DONE]


def test_a_daemon_that_stays_away_ends_the_following(serve: Serve, tmp_path: Path) -> None:
    daemon = serve(lambda _: Answer(stream=iter([event("job", RUNNING, 1)])))
    jobs = asking(tmp_path, patience=0.0).follow("7")
    assert next(jobs) == RUNNING
    daemon.stop()
    with pytest.raises(DaemonGoneError):
        list(jobs)


def test_a_daemon_that_comes_up_is_waited_for(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, lambda _: Answer(data={"ok": True}))
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            daemon.start()

    asking(tmp_path, sleep=nap).wait(60)
    assert len(naps) == 3
    daemon.stop()
    with pytest.raises(DaemonGoneError):
        asking(tmp_path).wait(0)


def test_a_job_that_nobody_knows_is_not_found(serve: Serve, tmp_path: Path) -> None:
    serve(lambda _: Answer(404, {"error": "there is no job 7"}))
    with pytest.raises(NotFoundError, match="there is no job 7"):
        list(asking(tmp_path).follow("7"))


def test_events_come_as_long_as_the_daemon_is_there(serve: Serve, tmp_path: Path) -> None:
    sent = [event("status", {"model": "chat"}), 'event: job\ndata: {"id":\ndata: "7"}\n\n', "data: [1]\n\n"]
    serve(lambda _: Answer(stream=iter(sent)))
    events = asking(tmp_path).events()
    found = [(one.name, one.data) for one in islice(events, 3)]
    assert found == [("status", {"model": "chat"}), ("job", {"id": "7"}), ("message", {})]
    with pytest.raises(DaemonGoneError, match="it ended the connection"):
        next(events)


def test_a_log_is_followed(serve: Serve, tmp_path: Path) -> None:
    daemon = serve(lambda _: Answer(stream=iter([event("line", {"line": text}) for text in ("a", "b")])))
    lines = asking(tmp_path).log("chat", 7)
    assert list(islice(lines, 2)) == ["a", "b"]
    assert (daemon.asked[0].path, daemon.asked[0].query) == ("/logs/chat", {"lines": "7", "follow": "true"})
    with pytest.raises(DaemonGoneError):
        next(lines)


@pytest.mark.parametrize(
    ("job", "kind", "message"),
    [
        ({"state": "failed", "id": "7"}, SwitchError, "job 7 failed"),
        ({"state": "failed", "error": {"message": "no", "exit_code": 99}}, SwitchError, "no"),
        ({"state": "cancelled", "error": {"message": "enough"}}, CancelledError, "enough"),
        ({"state": "failed", "error": {"message": "what?", "exit_code": 3}}, NotFoundError, "what?"),
        ({"state": "failed", "error": {"message": "wait", "exit_code": 5}}, BusyError, "wait"),
    ],
)
def test_what_came_of_a_job_that_failed(job: dict[str, Any], kind: type[LlamarigError], message: str) -> None:
    with pytest.raises(LlamarigError) as failed:
        outcome_of(job)
    assert (type(failed.value), failed.value.message) == (kind, message)


def test_what_came_of_a_job() -> None:
    assert outcome_of(DONE) == {"active": ["chat"], "changed": True}
    error = {"message": "it ended", "remedy": "look", "serving": "code", "log_lines": ["bye"], "exit_code": 1}
    with pytest.raises(SwitchError) as failed:
        outcome_of(RUNNING | {"state": "failed", "error": error})
    assert (failed.value.serving, failed.value.log_lines, failed.value.remedy) == ("code", ["bye"], "look")


class Elsewhere(BaseHTTPRequestHandler):
    """A daemon on a port, which wants a key."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        allowed = self.headers["Authorization"] == "Bearer secret"
        body = json.dumps({"path": self.path} if allowed else {"error": "a key is needed"}).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    with socketserver.TCPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_another_hosts_daemon_is_asked_with_a_key(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asking(Path("/"), url=f"{elsewhere}/rig/", key=" secret\n").get("/status") == {"path": "/rig/status"}
    with pytest.raises(NotAllowedError, match="a key is needed") as refused:
        asking(Path("/"), url=elsewhere).get("/status")
    assert refused.value.remedy == "give a key that may, in LLAMARIG_API_KEY"
    monkeypatch.setenv("LLAMARIG_URL", elsewhere)
    monkeypatch.setenv("LLAMARIG_API_KEY", "secret")
    monkeypatch.setenv("LLAMARIG_ORIGIN", "playbook")
    client = Management.here()
    assert (client.get("/x"), client.origin, client.url) == ({"path": "/x"}, "playbook", elsewhere)


def test_another_hosts_daemon_that_is_not_there_is_named() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), Elsewhere) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
    with pytest.raises(DaemonGoneError, match=f"the daemon at {url} does not answer: it does not run"):
        asking(Path("/"), url=url).get("/status")


@pytest.mark.parametrize("url", ["gpu01:8081", "ftp://gpu01", "http://", "http://gpu01:port", "http://[gpu01"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(LlamarigError, match="is no address of a daemon"):
        asking(Path("/"), url=url)


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(LlamarigError, match="characters that no key has"):
        asking(Path("/"), url="http://gpu01:8081", key="one\r\nX-Two: 2")
