"""The API, fuzzed from its own document: whatever is asked, it answers as declared, and nothing breaks it.

Once by schemathesis, which makes of the document what is right and what is wrong by it; and once by ourselves, with
what no document speaks of: methods that are not for a place, headers that mean something to servers, bodies of any
kind and size, keys that are none, and bytes that are no request at all.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import re
import socket
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from llamarig.api import keys
from llamarig.api.openapi import OPERATIONS, Operation, document
from llamarig.api.schemas import SCHEMAS
from llamarig.daemon.request import Outcome, Reporter, Request
from llamarig.errors import CancelledError
from llamarig.web.guard import BODY_BYTES, Metered
from tests.unit.api.world import SERVICES, World, world
from tests.unit.daemon.acting import SECONDS

EXAMPLES = 25
DOCUMENT = document()
# They do not end by themselves: schemathesis would read for ever. What they begin with is fuzzed below.
ENDLESS = {"events"}
SETTINGS = settings(
    max_examples=EXAMPLES,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def act(request: Request, _: Reporter) -> Outcome:
    # No 502: schemathesis takes every one of them for a fault of the API's own.
    if request.service == "code":
        raise CancelledError("it was cancelled", "", "chat", [])
    return Outcome(("chat",))


@pytest.fixture(scope="module")
def api() -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, world(act) as found:
        # How often one may ask is tested elsewhere.
        patch.setattr(Metered, "_wait", lambda *_, **__: 0)
        yield found


@pytest.fixture(scope="module")
def key(api: World) -> str:
    return keys.add(api.root, "fuzz", "manage")


@pytest.fixture(scope="module")
def reading(api: World) -> str:
    return keys.add(api.root, "wall", "read")


@pytest.fixture(autouse=True)
def unharmed(api: World) -> Iterator[None]:
    yield
    assert api.ask("GET", "/healthz").status == 200
    assert api.jobs.is_alive


RIGHT, WRONG = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
# Of what asks for nothing, nothing can be wrong.
CASES = [
    (operation.name, mode)
    for operation in OPERATIONS
    for mode in (RIGHT, WRONG)
    if operation.name not in ENDLESS and not (mode is WRONG and operation.scope == "open")
]


def make_real(case: schemathesis.Case[Any], data: st.DataObject) -> None:
    """Let a request that is right also be about what is there."""
    if str(case.query.get("follow")).lower() == "true":
        case.query["follow"] = "false"
    if data.draw(st.booleans()):
        service = data.draw(st.sampled_from(SERVICES))
        if "service" in case.path_parameters:
            case.path_parameters["service"] = service
        if isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = service


@pytest.mark.parametrize(("name", "mode"), CASES, ids=[f"{name}-{mode.value}" for name, mode in CASES])
def test_whatever_is_asked_is_answered_as_declared(api: World, key: str, name: str, mode: Any) -> None:
    schema = schemathesis.openapi.from_dict(document())
    schema.config.update(base_url=f"http://127.0.0.1:{api.server.port}")
    schema.validate()

    @seed(f"{name} {mode.value}")
    @SETTINGS
    @given(case=schema.find_operation_by_id(name).as_strategy(generation_mode=mode), data=st.data())
    def fuzz(case: schemathesis.Case[Any], data: st.DataObject) -> None:
        if mode is RIGHT:
            make_real(case, data)
        case.call_and_validate(headers={"Authorization": f"Bearer {key}"})

    fuzz()


def rarely(what: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.booleans().flatmap(lambda there: what if there else st.none())


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"]
# Of what may stand in a header of HTTP.
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)
MEANT: dict[str, list[str]] = {
    "Host": ["localhost", "127.0.0.1:8081", "[::1]", "evil.example.net", "[", "localhost:80:80", ""],
    "Origin": ["http://localhost", "null", "https://evil.example.net", "http://["],
    "Sec-Fetch-Site": ["none", "same-origin", "cross-site"],
    "Content-Type": ["application/json", "APPLICATION/JSON;charset=x", "text/plain", "multipart/form-data", ","],
    "Content-Encoding": ["gzip", "identity"],
    "Accept": ["text/event-stream", "text/html", "*/*;q=0"],
    "Accept-Encoding": ["gzip, br"],
    "Range": ["bytes=0-0", "bytes=5-1"],
    "If-None-Match": ["*"],
    "Expect": ["100-continue", "200-ok"],
    "Connection": ["close", "keep-alive", "Upgrade", "Host, X-Api-Key"],
    "Upgrade": ["websocket", "h2c"],
    "X-Forwarded-For": ["127.0.0.1", "' or 1=1"],
    "X-Forwarded-Host": ["localhost"],
    "X-Http-Method-Override": ["DELETE"],
    "X-Original-Url": ["/switch"],
    "X-Llamarig-Origin": ["cli", "playbook", "start"],
    "Last-Event-ID": ["0", "-1", "1e3", "9" * 30, "x"],
    "X-Api-Key": ["llamarig_", "llamarig_" + "A" * 43, "x" * 5000],
    "Authorization": ["Bearer", "Bearer x", "Basic eDp5", "Bearer llamarig_" + "A" * 43],
}
HEADERS = st.lists(
    st.sampled_from(sorted(MEANT)).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(MEANT[name]) | VALUES)
    ),
    max_size=4,
    unique_by=lambda pair: pair[0],
)
NAMES = st.sampled_from(["model", "now", "queue", "adopt", "wait", "__proto__"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80) | st.sampled_from(SERVICES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | NAMES, inner, max_size=4),
    max_leaves=8,
)
BODIES = (
    st.none()
    | st.just(b'{"model": "chat"}')
    | st.dictionaries(NAMES, ANYTHING, max_size=3).map(as_json)
    | ANYTHING.map(as_json)
    | st.binary(max_size=200)
    | st.sampled_from([b"[" * 30_000, b'{"model": ' * 5000])
    | st.sampled_from(
        [
            b"",
            b"{}",
            b"\xef\xbb\xbf{}",
            b'{"model": "chat", "model": "code"}',
            b'{"model": "' + b"x" * (BODY_BYTES - 13) + b'"}',
            b'{"model": "' + b"x" * BODY_BYTES + b'"}',
            b"9" * 60_000,
            b"\0" * (BODY_BYTES * 4),
            b"x" * (1 << 21),
        ]
    )
)
QUERIES = st.text(max_size=20).map(quote) | st.sampled_from(
    [
        "wait=false",
        "wait=false&wait=false",
        "wait=",
        "wait[]=false",
        "lines=1",
        "lines=1000",
        "lines=1001",
        "lines=-1",
        "lines=00000000001",
        "lines=1;follow=true",
        "lines=%31",
        "lines=%C2%B2",
        "follow=true",
        "follow=True",
        "&&&",
        "%",
        "=" * 3000,
        "a=1&" * 2000,
    ]
)  # fmt: skip
FIELDS = st.sampled_from(
    [*SERVICES, "gone", "%2e%2e", "..%2f..", "%00", "%ff", "a" * 3000, "%F0%9F%98%80", ";x", "*"]
) | (st.text(min_size=1, max_size=70).map(lambda text: quote(text, safe="")))
PLACES = {"manage": "manage", "read": "read", "port": "none"}


# So much of a body that is too large is read all the same.
LONGEST_READ = 1 << 20
# What may come of any request, whoever may do what.
GUARDED = {400, 403, 404, 405, 408, 413, 415, 421}
ERROR = {"$ref": "#/components/schemas/Error"}


def schema_of(operation: Operation | None, status: int, kind: str) -> dict[str, Any] | None:
    """Return the schema of an answer in JSON, None for another kind; the answer must be one that is promised."""
    if operation is None or status in {408, 413, 415}:
        assert status in GUARDED, f"nothing says that it may be {status}"
        return ERROR
    answers = DOCUMENT["paths"][operation.path][operation.method.lower()]["responses"]
    assert str(status) in answers, f"{operation.method} {operation.path} does not say that it may answer {status}"
    content = answers[str(status)].get("content", {"": {}})
    assert kind in content, (operation.path, status, kind)
    found: dict[str, Any] | None = content[kind].get("schema") if kind == "application/json" else None
    return found


def check(method: str, path: str, body: bytes | None, response: http.client.HTTPResponse, grant: str) -> None:
    """See that an answer is one that is promised, and gives nothing to whom it is not for, or to what is wrong."""
    status, kind = response.status, response.headers.get("Content-Type", "").partition(";")[0]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert not [name for name in response.headers if name.lower().startswith("access-control")]
    asked = "GET" if method == "HEAD" else method
    operation = next((one for one in OPERATIONS if (one.path, one.method) == (path, asked)), None)
    if status < HTTPStatus.BAD_REQUEST:
        assert operation is not None
        assert grant == "manage" or operation.scope != "manage", "it may only be looked at"
        assert grant != "none" or operation.scope == "open", "nobody may know that"
        assert operation.body or not body, "there is a body, where none is asked for"
        if operation.body:
            jsonschema_rs.Draft202012Validator(SCHEMAS[operation.body]).validate(json.loads(body or b""))
    assert len(body or b"") <= BODY_BYTES or status in {403, 413, 421}
    schema = schema_of(operation, status, kind)
    if method == "HEAD":
        assert response.read() == b""
    elif kind == "text/event-stream":
        assert response.readline().startswith((b"event: ", b"id: "))
    elif kind == "application/json":
        data = json.loads(response.read())
        jsonschema_rs.Draft202012Validator({**(schema or {}), "components": DOCUMENT["components"]}).validate(data)
        # Whatever is asked, nothing breaks; what is too much is said to be.
        assert status < HTTPStatus.INTERNAL_SERVER_ERROR or response.headers["Retry-After"], (method, path, data)


def send(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: dict[str, str],
    raw: bytes | None,
    *,
    chunked: bool,
) -> http.client.HTTPResponse:
    """Ask, and return what is answered."""
    connection.putrequest(method, target, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value.encode("latin-1"))
    if raw is not None:
        connection.putheader(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(raw)))))
    # Whoever is refused early may see the answer before all is said.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.endheaders([raw] if raw and chunked else raw, encode_chunked=chunked and raw is not None)
    return connection.getresponse()


def lossy(body: bytes | None) -> contextlib.AbstractContextManager[None]:
    """Let an answer be lost where the connection ends in the middle of a body of more than a MiB, and only there."""
    return contextlib.suppress(ConnectionError) if len(body or b"") > LONGEST_READ else contextlib.nullcontext()


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("path", sorted({operation.path for operation in OPERATIONS} | {"/", "/nothing/{service}"}))
def test_whatever_is_sent_is_answered_as_promised(api: World, key: str, reading: str, path: str, where: str) -> None:
    methods = [operation.method for operation in OPERATIONS if operation.path == path] or METHODS

    @seed(f"{where} {path}")
    @settings(SETTINGS, max_examples=EXAMPLES * 3)
    @given(data=st.data())
    def fuzz(data: st.DataObject) -> None:
        # Half of each is as it should be, so that what is wrong elsewhere is come to.
        method = data.draw(st.sampled_from(methods) | st.sampled_from(METHODS))
        body, query = data.draw(BODIES if method == "POST" else rarely(BODIES)), data.draw(rarely(QUERIES))
        headers, grant = dict(data.draw(st.just([]) | HEADERS)), PLACES[where]
        target = path.replace("{service}", data.draw(st.sampled_from(SERVICES) | FIELDS))
        # Which jobs there are is another matter each time; that one of them is meant is not.
        known = next((job.id for job in api.jobs.all()), "none")
        target = target.replace("{job}", data.draw(st.none() | FIELDS) or known)
        if where == "port" and data.draw(st.booleans()):
            grant, text = data.draw(st.sampled_from([("read", reading), ("manage", key)]))
            headers.pop("Authorization", None)
            headers["X-Api-Key"] = text
        if body is not None and data.draw(st.integers(0, 3)):
            # What is right so far goes on to what is looked at next.
            headers["Content-Type"] = "application/json"
        before = {job.id for job in api.jobs.all()}
        asked, chunked = target if query is None else f"{target}?{query}", data.draw(st.booleans())
        with (
            contextlib.closing(api.connect(where)) as connection,
            lossy(body),
            send(connection, method, asked, headers, body, chunked=chunked) as response,
        ):
            check(method, path, body, response, grant)
            kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
            assert response.status >= HTTPStatus.BAD_REQUEST or method != "POST" or kind == "application/json"
        assert grant == "manage" or {job.id for job in api.jobs.all()} <= before
        while api.logs.followers:
            follower = api.logs.followers.pop()
            assert follower.closed.wait(SECONDS)
            follower.end()

    fuzz()


HEAD = b"HTTP/1.1\r\nHost: localhost\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
SWITCH = b'Content-Type: application/json\r\nContent-Length: 17\r\n\r\n{"model": "chat"}'
WHOLE = (
    b"POST /switch?wait=false " + HEAD + SWITCH,
    b"GET /events " + HEAD + b"Last-Event-ID: 0\r\n" + CHUNKS,
    b"GET /status " + HEAD + b"\r\nGET /logs/chat?follow=true " + HEAD + b"\r\n",
)
PIECES = st.binary(max_size=12) | st.sampled_from(
    [b"\r\n", b"\n", b"\r\n\r\n", b"\0", b" ", b":", b"\xff" * 20_000, b"Transfer-Encoding: chunked\r\n", b"-1", b"0"]
)


@pytest.mark.parametrize("where", ["read", "port"])
def test_bytes_that_are_no_request_break_nothing(
    api: World, key: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A whole request with pieces cut out of it and others put in."""

    @settings(SETTINGS, max_examples=EXAMPLES * 8)
    @given(
        sent=st.sampled_from(WHOLE), cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), PIECES), max_size=3)
    )
    def fuzz(sent: bytes, cuts: list[tuple[float, int, bytes]]) -> None:
        for place, length, piece in cuts:
            at = int(place * len(sent))
            sent = sent[:at] + piece + sent[at + length :]
        found = b""
        with contextlib.closing(api.connect(where)) as connection:
            connection.connect()
            # The end of what is sent is the end of what is asked, so that nothing is waited for.
            # Who is refused before all was sent finds nobody there.
            with contextlib.suppress(OSError):
                connection.sock.sendall(sent)
                connection.sock.shutdown(socket.SHUT_WR)
                while part := connection.sock.recv(1 << 16):
                    found += part
        assert found == b"" or found.startswith(b"HTTP/1.1 ")
        assert not re.search(rb"^HTTP/1.1 5(?!03)", found, re.MULTILINE)
        while api.logs.followers:
            follower = api.logs.followers.pop()
            assert follower.closed.wait(SECONDS)
            follower.end()

    assert key
    before = {job.id for job in api.jobs.all()}
    fuzz()
    assert {job.id for job in api.jobs.all()} <= before
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
