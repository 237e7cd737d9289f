from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from llamarig.web.guard import BODY_BYTES, Bounded, Metered, Named, Sealed
from tests.unit.web.asking import Behind, ask

JSON = {"Content-Type": "application/json"}


def test_every_answer_tells_browsers_to_do_nothing_with_it() -> None:
    said = ask(Sealed(Behind(), "llamarigd"))
    assert said.headers["x-content-type-options"] == "nosniff"
    assert said.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in said.headers["content-security-policy"]
    assert said.headers["date"].endswith("GMT")
    assert not [name for name in said.headers if name.startswith("access-control")], "no other site may read it"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8081",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:9",
        "[::1]",
        "[::1]:8081",
        "[0:0:0:0:0:0:0:1]:8081",
        "[::ffff:127.0.0.1]",
        "gpu01.example.com",
        "GPU01.example.com:8081",
        "192.0.2.1:8081",
    ],
)
def test_names_of_this_host_are_let_in(host: str) -> None:
    app = Named(Behind(), ["192.0.2.1", "gpu01.example.com"], "hosts")
    assert ask(app, {"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example.net",
        "localhost.evil.example.net",
        "evil.example.net:8081",
        "127.0.0.1.evil.example.net",
        "192.0.2.2",
        "[::2]:8081",
        "localhost@evil.example.net",
        "evil.example.net#localhost",
        "0x7f.1",
        "a:b:c",
        "[",
        "]",
        ":8081",
        "0.0.0.0",  # noqa: S104  a name in a list
        "[::]:8081",
        "[::1].evil.example.net",
        "[::1]evil.example.net:8081",
        "[::1]:8081:8082",
        "localhost:port",
        "localhost:²",
        "localhost/evil",
        "localhost localhost",
    ],
)
def test_a_name_that_points_here_and_is_not_ours_is_refused(host: str) -> None:
    behind = Behind()
    said = ask(Named(behind, ["192.0.2.1", "0.0.0.0", "::"], "hosts"), {"Host": host})  # noqa: S104  names in a list
    assert said.status == 421
    assert said.data.keys() == {"error", "remedy"}
    assert behind.scopes == []


def test_without_a_host_nothing_is_let_in() -> None:
    assert ask(Named(Behind(), [], "hosts")).status == 421


def test_the_address_that_was_connected_to_is_let_in_where_all_are_listened_on() -> None:
    app = Named(Behind(), ["0.0.0.0"], "hosts")  # noqa: S104  a name in a list
    assert ask(app, {"Host": "192.0.2.9:8081"}, server=("192.0.2.9", 8081)).status == 200
    assert ask(app, {"Host": "[2001:db8::9]:8081"}, server=("2001:db8::9", 8081)).status == 200
    assert ask(app, {"Host": "[2001:db8:0::9]"}, server=("2001:db8::9%eth0", 8081)).status == 200
    assert ask(app, {"Host": "192.0.2.9:8081"}, server=("::ffff:192.0.2.9", 8081)).status == 200, "bound to [::]"
    assert ask(app, {"Host": "192.0.2.8:8081"}, server=("192.0.2.9", 8081)).status == 421
    assert ask(app, {"Host": "evil.example.net"}, server=("evil.example.net", 8081)).status == 421, "only addresses"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8081", 200),
        ("https://LOCALHOST:8081", 200),
        ("http://localhost", 403),
        ("http://localhost:8080", 403),
        ("http://127.0.0.1:8081", 403),
        ("https://evil.example.net", 403),
        ("https://evil.example.net://localhost:8081", 403),
        ("http://localhost:8081/", 403),
        ("localhost:8081", 403),
        ("null", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
def test_pages_of_other_sites_may_ask_nothing(origin: str, status: int) -> None:
    """A page of another port of this host, as an engine's own is, is another site too."""
    assert ask(Named(Behind(), [], "hosts"), {"Host": "localhost:8081", "Origin": origin}).status == status


@pytest.mark.parametrize(("site", "status"), [("none", 200), ("same-origin", 200), ("same-site", 403), ("x", 403)])
def test_what_another_page_holds_open_is_refused(site: str, status: int) -> None:
    assert ask(Named(Behind(), [], "hosts"), {"Host": "localhost", "Sec-Fetch-Site": site}).status == status


def test_a_guard_that_fails_says_nothing_of_the_inside(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    said = ask(Sealed(broken, "llamarigd"))
    assert said.status == 500
    assert said.data.keys() == {"error", "remedy"}
    assert "secret" not in str(said.data)
    assert said.headers["x-content-type-options"] == "nosniff"
    assert "a secret" in caplog.text


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_client_that_asks_too_often_is_told_when_to_come_again() -> None:
    clock = Clock()
    app = Metered(Behind(), looks=(2, 3), changes=(0.1, 1), clock=clock)
    assert [ask(app).status for _ in range(4)] == [200, 200, 200, 429]
    said = ask(app)
    assert said.headers["retry-after"] == "1"
    assert ask(app, client=("192.0.2.8", 1)).status == 200, "others are not kept waiting"
    assert ask(app, method="POST").status == 200, "what changes something has a limit of its own"
    refused = ask(app, method="DELETE")
    assert (refused.status, refused.headers["retry-after"]) == (429, "10")
    clock.seconds += 0.5
    assert [ask(app).status for _ in range(2)] == [200, 429]
    clock.seconds += 1000
    assert [ask(app).status for _ in range(4)] == [200, 200, 200, 429]


def test_what_is_remembered_of_clients_is_bounded() -> None:
    app = Metered(Behind(), looks=(1, 1), changes=(1, 1), clock=Clock())
    for number in range(3000):
        ask(app, client=(f"192.0.2.{number}", 1))
    assert len(app._buckets) == 1024


def test_a_body_comes_whole_and_then_the_end_of_the_connection() -> None:
    behind = Behind()
    headers = {**JSON, "Transfer-Encoding": "chunked"}
    assert ask(Bounded(behind), headers, method="POST", chunks=[b'{"a"', b": ", b"1}"]).status == 200
    assert behind.bodies == [b'{"a": 1}']
    assert behind.later == ["http.disconnect"]


@pytest.mark.parametrize(
    ("headers", "chunks"),
    [
        ({"Content-Length": str(BODY_BYTES + 1)}, [b"x" * (BODY_BYTES + 1)]),
        ({"Content-Length": str(2 << 20)}, [None]),
        ({"Content-Length": "9" * 30}, [None]),
        ({"Content-Length": "-1"}, [None]),
        ({"Content-Length": "²"}, [None]),
        ({"Transfer-Encoding": "chunked"}, [b"x" * BODY_BYTES, b"x", b""]),
        ({"Transfer-Encoding": "chunked"}, [b"x" * BODY_BYTES, b"x" * (1 << 20), None]),
        ({"Content-Length": "1"}, [b"x" * (BODY_BYTES + 1)]),
    ],
)
def test_a_body_that_is_too_large_is_refused(headers: dict[str, str], chunks: list[bytes | None]) -> None:
    behind = Behind()
    said = ask(Bounded(behind), {**JSON, **headers}, method="POST", chunks=chunks)
    assert said.status == 413
    assert said.headers["connection"] == "close"
    assert behind.scopes == []


@pytest.mark.parametrize("length", [{"Content-Length": "30"}, {"Transfer-Encoding": "chunked"}])
def test_whoever_leaves_before_the_body_is_whole_asked_for_nothing(length: dict[str, str]) -> None:
    behind, sent = Behind(), list[Message]()
    coming = iter([{"type": "http.request", "body": b'{"model": "chat"}', "more_body": True}])

    async def receive() -> Message:
        return next(coming, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(name.lower().encode(), value.encode()) for name, value in {**JSON, **length}.items()]
    asyncio.run(Bounded(behind)({"type": "http", "method": "POST", "headers": headers}, receive, send))
    assert behind.scopes == []
    assert sent == []


def test_the_largest_body_is_let_in() -> None:
    headers = {**JSON, "Content-Length": str(BODY_BYTES)}
    assert ask(Bounded(Behind()), headers, method="POST", chunks=[b"x" * BODY_BYTES]).status == 200


def test_a_body_that_does_not_come_is_not_waited_for_for_ever() -> None:
    headers = {**JSON, "Content-Length": "10"}
    said = ask(Bounded(Behind(), seconds=0.01), headers, method="POST", chunks=[b"x", None])
    assert said.status == 408


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("multipart/form-data; boundary=application/json", 415),
        ("application/json, text/plain", 415),
        ("", 415),
    ],
)
def test_what_a_page_can_send_unasked_is_no_json(kind: str, status: int) -> None:
    headers = {"Content-Type": kind, "Content-Length": "2"} if kind else {"Content-Length": "2"}
    assert ask(Bounded(Behind()), headers, method="POST", chunks=[b"{}"]).status == status
    headers.pop("Content-Length")
    assert ask(Bounded(Behind()), headers, method="POST").status == status, "also without a body"


def test_looking_needs_no_content_type() -> None:
    assert ask(Bounded(Behind())).status == 200
    assert ask(Bounded(Behind()), {"Content-Length": "0"}).status == 200
    assert ask(Bounded(Behind()), {"Content-Length": "2"}, chunks=[b"{}"]).status == 415
