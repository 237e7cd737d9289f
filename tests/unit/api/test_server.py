from __future__ import annotations

import contextlib
import gc
import http.client
import json
import logging
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from llamarig.api import keys, server
from llamarig.api.providers import Providers
from llamarig.api.server import Server
from llamarig.config import paths
from llamarig.config.address import Address
from llamarig.daemon.desk import Desk
from llamarig.daemon.jobs import Jobs
from llamarig.runtime.connections import UnixConnection
from llamarig.web import listener
from llamarig.web.guard import Metered
from tests.support import below
from tests.unit.api.world import JSON, Events, FakeBoard, FakeGauges, FakeLogs, FakeMetrics, FakeSamples, World, world
from tests.unit.daemon.acting import SECONDS, Acting


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="api") as directory:
        yield Path(directory)


def make_server(root: Path, address: Address | None = None) -> Server:
    jobs = Jobs(Acting().perform, root)
    desk = Desk(jobs, list, list)
    providers = Providers(FakeBoard(jobs), desk, FakeLogs(), FakeGauges(), FakeMetrics(), FakeSamples())
    return Server(providers, root, address)


def healthy(place: Path | http.client.HTTPConnection) -> bool:
    client = UnixConnection(str(place), SECONDS) if isinstance(place, Path) else place
    with contextlib.closing(client) as connection:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        response.read()
        return response.status == 200


@pytest.mark.parametrize("path", [paths.MANAGE_SOCKET, paths.READ_SOCKET])
def test_what_an_earlier_daemon_left_is_replaced(root: Path, path: str) -> None:
    place = below(root, path)
    place.parent.mkdir(parents=True)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(place))
    found = make_server(root)
    found.start()
    assert healthy(place)
    found.stop(SECONDS)
    assert sorted(entry.name for entry in place.parent.iterdir()) == ["manage.sock", "read.sock"]


def test_everybody_may_look_and_only_the_group_may_change(api: World) -> None:
    modes = {
        path: stat.S_IMODE(below(api.root, path).stat().st_mode) for path in (paths.MANAGE_SOCKET, paths.READ_SOCKET)
    }
    assert modes == {paths.MANAGE_SOCKET: 0o660, paths.READ_SOCKET: 0o666}


def test_what_is_no_socket_is_not_replaced(root: Path) -> None:
    place = below(root, paths.READ_SOCKET)
    place.parent.mkdir(parents=True)
    place.write_text("precious")
    found = make_server(root)
    with pytest.raises(FileExistsError):
        found.start()
    assert place.read_text() == "precious"


CHANGES = [
    ("POST", "/switch", {"model": "chat"}),
    ("POST", "/stop", {}),
    ("POST", "/reconcile", {}),
    ("DELETE", "/jobs/x", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_the_socket_for_everybody_changes_nothing(api: World, method: str, path: str, body: object) -> None:
    said = api.ask(method, path, body, where="read")
    assert said.status == 403
    assert "group llamarig" in said.data["remedy"]
    assert api.jobs.all() == []
    assert api.ask("GET", "/status", where="read").status == 200


def test_the_port_of_loopback_may_everything_until_there_is_a_key(api: World) -> None:
    assert api.ask("POST", "/stop?wait=false", {}, where="port").status == 202
    reads, manages = keys.add(api.root, "wall", "read"), keys.add(api.root, "ci", "manage")
    for method, path, body in CHANGES:
        said = api.ask(method, path, body, where="port")
        assert said.status == 401
        assert said.headers["www-authenticate"].startswith("Bearer")
        wrong = api.ask(method, path, body, where="port", headers={**JSON, "X-Api-Key": f"{manages}x"})
        assert wrong.status == 401
        refused = api.ask(method, path, body, where="port", headers={**JSON, "X-Api-Key": reads})
        assert refused.status == 403
    assert api.ask("GET", "/status", where="port").status == 401
    assert api.ask("GET", "/healthz", where="port").status == 200, "whoever watches over it needs no key"
    assert api.ask("GET", "/status", where="port", headers={"Authorization": f"Bearer {reads}"}).status == 200
    said = api.ask("POST", "/stop?wait=false", {}, where="port", headers={**JSON, "X-Api-Key": manages})
    assert said.status == 202
    for where in ("manage", "read"):
        assert api.ask("GET", "/status", where=where).status == 200, "the sockets of the host want no key"
    keys.revoke(api.root, "ci")
    said = api.ask("POST", "/stop?wait=false", {}, where="port", headers={**JSON, "X-Api-Key": manages})
    assert said.status == 401


def test_only_the_port_looks_at_names(api: World) -> None:
    evil = {"Host": "evil.example.net"}
    assert api.ask("GET", "/status", where="port", headers=evil).status == 421
    assert api.ask("GET", "/status", where="read", headers=evil).status == 200
    said = api.ask("POST", "/stop", {}, where="port", headers={**JSON, "Origin": "https://evil.example.net"})
    assert said.status == 403
    assert api.jobs.all() == []


def test_a_page_can_send_nothing_that_counts(api: World) -> None:
    """What a form of another site sends unasked; what needs a question first gets no answer that allows it."""
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert api.ask("POST", "/stop", "{}", where="port", headers={"Content-Type": kind}).status == 415
    asked = api.ask(
        "OPTIONS",
        "/stop",
        where="port",
        headers={
            "Access-Control-Request-Method": "POST",
            "Host": f"localhost:{api.server.port}",
            "Origin": f"http://localhost:{api.server.port}",
        },
    )
    assert asked.status == 405
    assert not [name for name in asked.headers if name.startswith("access-control")]
    assert api.jobs.all() == []


def test_headers_of_proxies_make_nobody_another_client(api: World) -> None:
    statuses = set()
    for number in range(60):
        headers = {**JSON, "X-Forwarded-For": f"192.0.2.{number}"}
        statuses.add(api.ask("POST", "/switch", {"model": "nothing"}, where="port", headers=headers).status)
    assert statuses == {404, 429}


def test_users_of_the_host_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    users = iter([1000, 1000, 1000, 1001, 1000])
    monkeypatch.setattr(listener, "_user", lambda _: (f"uid {next(users)}", 1))
    monkeypatch.setattr(server, "Metered", partial(Metered, looks=(0.001, 2.0)))
    with world() as api:
        statuses = [api.ask("GET", "/status", where="read").status for _ in range(5)]
    assert statuses == [200, 200, 429, 200, 429]


def test_the_kernel_says_who_is_at_the_other_end(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def wait(_: Metered, client: str, *, looks: bool) -> int:
        asked.append(client)
        return 0 if looks else 1

    monkeypatch.setattr(Metered, "_wait", wait)
    api.ask("GET", "/status", where="read", headers={"X-Forwarded-For": "192.0.2.1"})
    api.ask("GET", "/status", where="port", headers={"X-Forwarded-For": "192.0.2.1"})
    assert asked == [f"uid {os.getuid()}", "127.0.0.1"]


def test_no_client_has_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many, one is told so; beyond that there is no answer; and others find room."""
    for name, number in (("_CONNECTIONS", 8), ("_OF_ONE", 4), ("_TOLD", 2)):
        monkeypatch.setattr(listener, name, number)
    users = iter([1000] * 7 + [1001])
    monkeypatch.setattr(listener, "_user", lambda _: (f"uid {next(users)}", 1))
    with world() as api, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(api.events("/events", where="read")).next()
        full = [stack.enter_context(contextlib.closing(api.connect("read"))) for _ in range(2)]
        for connection in full:
            connection.connect()
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            api.ask("GET", "/status", where="read")
        said = api.ask("GET", "/status", where="read")
        assert said.status == 200, "of another user"
        for connection in full:
            connection.request("GET", "/status")
            response = connection.getresponse()
            assert response.status == 503
            assert response.headers["Retry-After"]
            assert response.headers["Connection"] == "close"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert json.loads(response.read()).keys() == {"error", "remedy"}


def test_who_is_told_that_it_is_too_much_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (("_OF_ONE", 0), ("_TOLD_SECONDS", 0.01)):
        monkeypatch.setattr(listener, name, number)
    with world() as api, contextlib.closing(api.connect("read")) as connection:
        connection.connect()
        with contextlib.suppress(ConnectionResetError):
            assert connection.sock.recv(1) == b""


def spoken(api: World, sent: bytes, where: str = "read") -> bytes:
    """Say something as it is, and return all that is answered."""
    found = b""
    with contextlib.closing(api.connect(where)) as connection:
        connection.connect()
        connection.sock.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            while part := connection.sock.recv(1 << 16):
                found += part
    return found


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /status\r\n\r\n",
        b"GET /status HTTP/1.1\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /st\xc3\xa4tus HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20000,
        b"POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /stop HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST /stop HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n{}",
    ],
)
def test_what_is_no_request_is_answered_in_json_too(sent: bytes, api: World, caplog: pytest.LogCaptureFixture) -> None:
    for where in ("read", "port"):
        head, _, body = spoken(api, sent, where).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"content-type: application/json" in head
        assert b"x-content-type-options: nosniff" in head.lower()
        assert json.loads(body).keys() == {"error", "remedy"}
    assert api.jobs.all() == []
    api.server.stop(SECONDS)
    assert caplog.records == [], "nobody can fill the journal"


def test_a_request_to_speak_something_else_is_answered_in_http(api: World, caplog: pytest.LogCaptureFixture) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x"}
    assert api.ask("GET", "/status", where="port", headers=upgrade).status == 200
    api.server.stop(SECONDS)
    assert caplog.records == []


def test_what_comes_after_a_request_that_is_answered_is_no_error(api: World, caplog: pytest.LogCaptureFixture) -> None:
    """What is no request behind one is not answered before it, and breaks nothing."""
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert spoken(api, ask + ask + b"\0\r\n\r\n").count(b"HTTP/1.1 ") == 3
    chunked = b"GET /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert spoken(api, chunked + b"Z\r\n").startswith(b"HTTP/1.1 400")
    assert api.ask("GET", "/healthz").status == 200
    api.server.stop(SECONDS)
    assert caplog.records == []


def test_a_switch_whose_body_breaks_off_is_none(api: World) -> None:
    head = b"POST /switch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for rest in (
        b'Content-Length: 18\r\n\r\n{"model": "chat"}',
        b'Transfer-Encoding: chunked\r\n\r\n11\r\n{"model": "chat"}\r\n',
    ):
        with contextlib.closing(api.connect()) as connection:
            connection.connect()
            connection.sock.sendall(head + rest)
            connection.sock.shutdown(socket.SHUT_WR)
            assert connection.sock.recv(1) == b""
    assert api.ask("GET", "/healthz").status == 200
    assert api.jobs.all() == []


@pytest.mark.parametrize("host", ["[", "]:x", "http://[", "a b", "\u00ff", "[::1]evil", "localhost:99999999"])
@pytest.mark.parametrize("where", ["manage", "read", "port"])
def test_whatever_the_host_is_said_to_be_is_answered(host: str, where: str, api: World) -> None:
    for path, status in (("/status", 200), ("/nothing", 404), ("/switch", 405)):
        said = api.ask("GET", path, where=where, headers={"Host": host})
        assert said.status == (421 if where == "port" else status)
        assert status == 200 or said.data.keys() == {"error", "remedy"}


@pytest.mark.parametrize("path", ["/status", "/services", "/openapi.json", "/nothing", "/switch"])
def test_the_head_is_that_of_the_answer(path: str, api: World) -> None:
    whole, head = api.ask("GET", path), api.ask("HEAD", path)
    assert head.data is None
    assert head.status == whole.status
    for headers in (whole.headers, head.headers):
        headers.pop("date")  # type: ignore[attr-defined]
        assert headers["content-type"] == "application/json"
    assert {**head.headers, "content-length": ""} == {**whole.headers, "content-length": ""}


def test_a_key_that_is_taken_back_is_told_nothing_more(api: World) -> None:
    with api.events("/events", where="port") as open_once:
        assert open_once.next()
        text = keys.add(api.root, "wall", "read")
        keys.add(api.root, "ci", "manage")
        connection = api.connect("port")
        connection.request("GET", "/events", headers={"X-Api-Key": text})
        with contextlib.closing(connection), connection.getresponse() as response:
            events = Events(response)
            assert events.next()
            api.ask("POST", "/switch?wait=false", {"model": "code"})
            assert open_once.next() is None, "with the first key, nobody goes on without one"
            assert events.next("job")
            keys.revoke(api.root, "wall")
            api.acting.end()
            while (event := events.next()) is not None:
                assert event[2]["state"] != "succeeded"


def test_a_body_that_is_too_large_is_refused_however_it_comes(api: World) -> None:
    large = b'{"model": "' + b"x" * (64 * 1024) + b'"}'
    assert api.ask("POST", "/switch", large).status == 413
    with contextlib.closing(api.connect()) as connection:
        connection.request("POST", "/switch", iter([large[:1000]] * 80), JSON, encode_chunked=True)
        assert connection.getresponse().status == 413
    assert api.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "3", "null", '"chat"', "[" * 30000, '{"model": 3}', '{"model": ""}', '{"model": "%s"}' % ("x" * 65),
     '{"model": "chat", "now": "true"}', '{"model": "chat", "nwo": true}', '{"now": true}', b"\xff\xfe", "NaN",
     '{"model": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_a_body_that_is_not_as_declared_is_refused(api: World, body: str | bytes) -> None:
    said = api.ask("POST", "/switch", body)
    assert said.status == 400
    assert said.data["error"]
    assert api.jobs.all() == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "\ud800", "a\u0000b", "..", "ü", "chat\n"])
def test_no_name_leads_anywhere_else(api: World, name: str) -> None:
    said = api.ask("POST", "/switch", {"model": name})
    assert said.status == 404
    assert repr(name) in said.data["error"]


def test_a_port_that_is_taken_is_said_and_tried_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "_AGAIN_SECONDS", 0.01)
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    found = make_server(root, Address("127.0.0.1", port))
    with caplog.at_level(logging.INFO):
        found.start()
        _until(lambda: bool(found.trouble))
        assert str(port) in found.trouble
        assert found.port == 0
        assert healthy(below(root, paths.READ_SOCKET))
        taken.close()
        _until(lambda: found.port == port)
    assert found.trouble == ""
    found.stop(SECONDS)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1, "said once"


def test_a_bind_beyond_loopback_waits_for_a_key(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_AGAIN_SECONDS", 0.01)
    found = make_server(root, Address("0.0.0.0", 0, ["gpu01.example.com"]))  # noqa: S104  that is what is tested
    found.start()
    _until(lambda: bool(found.trouble))
    assert "llamarig keys add" in found.trouble
    text = keys.add(root, "wall", "read")
    _until(lambda: found.port != 0)
    keys.revoke(root, "wall")
    said = World(root, Acting(), found._providers.desk, found._providers.board, FakeLogs(), found)  # type: ignore[arg-type]
    headers = {"Host": "gpu01.example.com", "X-Api-Key": text}
    assert said.ask("GET", "/status", where="port", headers=headers).status == 401, "never without one"
    found.stop(SECONDS)


def test_ipv6_is_listened_on_where_it_is_asked_for(root: Path) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    found = make_server(root, Address("::1", 0))
    found.start()
    _until(lambda: found.port != 0)
    assert healthy(http.client.HTTPConnection("::1", found.port, timeout=SECONDS))
    found.stop(SECONDS)


def test_without_an_address_only_the_sockets_are_listened_on(root: Path) -> None:
    found = make_server(root)
    found.start()
    assert (found.port, found.trouble) == (0, "")
    assert found.answers(SECONDS)
    found.stop(SECONDS)
    assert not found.answers(SECONDS)


def test_an_event_loop_that_hangs_is_seen(api: World) -> None:
    hold = threading.Event()
    api.server._loop.call_soon_threadsafe(hold.wait, SECONDS)
    assert not api.server.answers(0.01)
    hold.set()
    assert api.server.answers(SECONDS)


def test_connections_that_ask_nothing_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_IDLE_SECONDS", 0.5)
    with world() as api, contextlib.ExitStack() as stack:
        for sent in (b"", b"GET /status HTT"):
            quiet = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
            quiet.settimeout(SECONDS)
            quiet.connect(str(below(api.root, paths.READ_SOCKET)))
            quiet.sendall(sent)
            assert quiet.recv(1) == b""


def test_the_end_is_not_held_up_by_those_who_listen() -> None:
    with world() as api, api.events("/events") as events:
        assert events.next()
        api.server.stop(SECONDS)
        assert not api.server.answers(0)
        assert events.next() is None


def test_descriptors_are_given_back(api: World) -> None:
    api.ask("GET", "/status")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        api.ask("GET", "/status")
        with api.events("/events") as events:
            events.next()
    _until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before + 2)


def test_connections_that_are_over_are_forgotten(api: World) -> None:
    """A thousand requests a second must not fill the memory with timers that are still to fire."""

    def kept() -> int:
        return sum(isinstance(item, listener._Connection) for item in gc.get_objects())

    for _ in range(50):
        api.ask("GET", "/healthz")
    _until(lambda: kept() <= 1)


def _until(is_so: object) -> None:
    assert callable(is_so)
    over = threading.Event()
    for _ in range(2000):
        if is_so():
            return
        over.wait(0.01)
    raise AssertionError("it never came to be so")


def _has_ipv6() -> bool:
    try:
        with contextlib.closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
