from __future__ import annotations

import contextlib
import selectors
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarig.api.lines import CUT, LINE_BYTES, Splitter, shown
from llamarig.api.openapi import document
from llamarig.api.reads import FOLLOWERS, LISTENERS
from llamarig.daemon.feed import WAITING
from llamarig.daemon.request import Outcome, Reporter
from llamarig.errors import LlamarigError
from tests.unit.api.world import JSON, Events, FakeFollower, World, broken
from tests.unit.daemon.acting import SECONDS


def test_the_seeds_routes_say_what_the_seeds_said(api: World) -> None:
    models = api.ask("GET", "/models").data["models"]
    assert [model.keys() for model in models] == [{"id", "name", "speed", "ctx_size", "is_bench", "active"}] * 2
    status = api.ask("GET", "/status").data
    assert {key: status[key] for key in ("model", "model_name", "state", "status")} == {
        "model": "chat",
        "model_name": "Chat",
        "state": "running",
        "status": "chat serves",
    }


def test_answers_are_laid_out_for_people_and_carry_their_length(api: World) -> None:
    with contextlib.closing(api.connect()) as connection:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        raw = response.read()
    assert raw == b'{\n  "ok": true\n}\n'
    assert response.getheader("content-length") == str(len(raw))


@pytest.mark.parametrize("path", ["/", "/nothing", "/status/", "/jobs/", "/plan/a/b", "/plan/%2F", "/docs", "/%00"])
def test_what_is_not_there_is_a_404_in_json(api: World, path: str) -> None:
    said = api.ask("GET", path)
    assert said.status == 404
    assert said.data.keys() == {"error", "remedy"}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "/status", {"GET", "HEAD"}), ("PUT", "/jobs/x", {"GET", "HEAD", "DELETE"}), ("GET", "/switch", {"POST"})],
)
def test_a_method_that_is_not_for_it_is_a_405(api: World, method: str, path: str, allowed: set[str]) -> None:
    said = api.ask(method, path, headers=JSON)
    assert said.status == 405
    assert set(said.headers["allow"].split(", ")) == allowed


def test_what_cannot_be_read_is_an_error_with_its_remedy(api: World) -> None:
    api.board.trouble = broken()
    for path in ("/services", "/plan/chat", "/history"):
        said = api.ask("GET", path)
        assert said.status == 500
        assert said.data == {"error": "a spec cannot be read", "remedy": "run playbooks/site.yml"}


def test_what_nobody_foresaw_says_nothing_of_the_inside(api: World, caplog: pytest.LogCaptureFixture) -> None:
    api.board.trouble = ZeroDivisionError("a secret")
    said = api.ask("GET", "/services")
    assert said.status == 500
    assert "secret" not in str(said.data)
    api.server.stop(SECONDS)
    assert "a secret" in caplog.text


@pytest.mark.parametrize(
    "query", ["lines=0", "lines=10001", "lines=-1", "lines=1e3", "lines=", "lines=1&lines=2", "line=3", "lines=%C2%B2"]
)
def test_a_query_that_is_not_as_declared_is_refused(api: World, query: str) -> None:
    said = api.ask("GET", f"/history?{query}")
    assert said.status == 400
    assert said.data["error"]


def test_the_last_lines_and_events_are_as_many_as_asked_for(api: World) -> None:
    api.board.events = [{"time": float(number), "kind": "switch", "outcome": "ok"} for number in range(30)]
    assert [event["time"] for event in api.ask("GET", "/history?lines=2").data["events"]] == [28.0, 29.0]
    assert len(api.ask("GET", "/history").data["events"]) == 20
    assert api.ask("GET", "/logs/chat?lines=2").data == {"service": "chat", "lines": ["chat line 0", "chat line 1"]}
    assert len(api.ask("GET", "/logs/chat").data["lines"]) == 50


def test_services_that_are_not_there_are_not_found(api: World) -> None:
    for path in ("/plan/nothing", "/logs/nothing", "/logs/nothing?follow=true"):
        assert api.ask("GET", path).status == 404
    assert api.logs.followers == []


def test_a_log_is_followed(api: World) -> None:
    with api.events("/logs/chat?lines=1&follow=true") as events:
        assert events.next() == (None, "line", {"line": "chat line 0"})
        (follower,) = api.logs.followers
        follower.write("half a ")
        follower.write("line\nüber \x1b[31mred\n")
        assert events.next() == (None, "line", {"line": "half a line"})
        assert events.next() == (None, "line", {"line": "über \x1b[31mred"})
        follower.end()
        assert events.next() is None
    assert follower.closed.wait(SECONDS)


def test_a_line_that_is_too_long_is_cut_wherever_it_is_read(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    long = f"{'x' * 4095}ü and the rest"
    monkeypatch.setattr(api.logs, "lines", lambda *_: [long, "y" * 4096, "y" * 4097, "the next one"])
    cut, fits = "x" * 4095 + CUT, "y" * 4096
    assert api.ask("GET", "/logs/chat").data["lines"] == [cut, fits, fits + CUT, "the next one"]
    with api.events("/logs/chat?follow=true") as events:
        found = [printed(events) for _ in range(4)]
        (follower,) = api.logs.followers
        writing = threading.Thread(target=follower.write, args=(f"{'z' * 200_000}\nthe last one\nits end",))
        writing.start()
        found += [printed(events) for _ in range(2)]
        writing.join()
        follower.end()
        found += [event[2]["line"] for event in events.all()]
    assert found == [cut, fits, fits + CUT, "the next one", "z" * 4096 + CUT, "the last one", "its end"]


def printed(events: Events) -> str:
    event = events.next("line")
    assert event is not None
    line: str = event[2]["line"]
    return line


@given(
    lines=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6),
    sizes=st.lists(st.integers(1, 40), min_size=1),
)
def test_lines_are_the_same_however_their_bytes_come(lines: list[str], sizes: list[int]) -> None:
    data, splitter, found = "\n".join(lines).encode(), Splitter(), list[str]()
    for size in [*sizes, max(len(data), 1)]:
        found += splitter.feed(data[:size])
        data = data[size:]
    found += splitter.rest()
    whole = "\n".join(lines)
    assert found == (whole.removesuffix("\n").split("\n") if whole else [])
    assert [shown(line) for line in found] == found


def test_of_a_line_without_an_end_no_more_is_kept_than_is_answered() -> None:
    splitter = Splitter()
    for _ in range(100):
        assert splitter.feed(b"x" * 65536) == []
    assert len(splitter._line) <= LINE_BYTES + 1
    assert splitter.feed(b"\n") == ["x" * LINE_BYTES + CUT]


def test_more_lines_than_are_read_at_once_are_refused(api: World) -> None:
    assert len(api.ask("GET", "/logs/chat?lines=1000").data["lines"]) == 1000
    for query in ("lines=1001", "lines=1001&follow=true", "lines=0"):
        said = api.ask("GET", f"/logs/chat?{query}")
        assert said.status == 400
        assert "1000" in said.data["error"]
    assert api.logs.followers == []
    (lines,) = [item for item in document()["paths"]["/logs/{service}"]["get"]["parameters"] if item["name"] == "lines"]
    assert lines["schema"]["maximum"] == 1000


def test_a_log_that_nobody_follows_any_more_is_closed(api: World) -> None:
    with api.events("/logs/chat?follow=true") as events:
        events.next()
    (follower,) = api.logs.followers
    assert follower.closed.wait(SECONDS)
    follower.end()


def test_so_many_logs_are_followed_and_no_more(api: World) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(FOLLOWERS):
            stack.enter_context(api.events("/logs/chat?follow=true", where="read")).next()
        said = api.ask("GET", "/logs/chat?follow=true", where="read")
        assert said.status == 503
        assert said.headers["retry-after"]
        with api.events("/logs/chat?follow=true") as events:
            assert events.next(), "whoever takes all there takes none here"
    for follower in api.logs.followers:
        assert follower.closed.wait(SECONDS)
        follower.end()
    with api.events("/logs/chat?follow=true", where="read") as events:
        assert events.next()
        api.logs.followers[-1].end()


def test_of_many_who_follow_a_log_at_once_no_more_are_let_in(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted before the journal is waited for."""
    hold, follow = threading.Event(), api.logs.follow
    monkeypatch.setattr(api.logs, "follow", lambda *asked: hold.wait(SECONDS) and follow(*asked))
    with contextlib.ExitStack() as stack:
        burst = [stack.enter_context(contextlib.closing(api.connect())) for _ in range(FOLLOWERS * 3)]
        for connection in burst:
            connection.request("GET", "/logs/chat?follow=true")
        for _ in range(FOLLOWERS * 2):
            # Not select(), which takes no descriptor beyond 1023.
            with selectors.DefaultSelector() as selector:
                for connection in burst:
                    selector.register(connection.sock, selectors.EVENT_READ, connection)
                connection = selector.select(SECONDS)[0][0].data
            burst.remove(connection)
            assert connection.getresponse().status == 503
        hold.set()
        assert [connection.getresponse().status for connection in burst] == [200] * FOLLOWERS
    for follower in api.logs.followers:
        assert follower.closed.wait(SECONDS)
        follower.end()
    assert len(api.logs.followers) == FOLLOWERS


@pytest.mark.parametrize("opens", [True, False])
def test_a_log_that_opens_when_nobody_waits_any_more_is_closed(
    *, opens: bool, api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, tried, follow = threading.Event(), threading.Semaphore(0), api.logs.follow

    def late(service: str, count: int) -> FakeFollower:
        tried.release()
        hold.wait(SECONDS)
        if not opens:
            raise broken()
        return follow(service, count)

    monkeypatch.setattr(api.logs, "follow", late)
    monkeypatch.setattr("llamarig.api.pools.Pools._run", _impatient)
    for _ in range(FOLLOWERS + 1):
        assert api.ask("GET", "/logs/chat?follow=true").data["error"] == "the machine did not answer in time"
        assert tried.acquire(timeout=SECONDS)
    hold.set()
    api.server.stop(SECONDS)
    for thread in [thread for thread in threading.enumerate() if thread.name == "late"]:
        thread.join(SECONDS)
    assert len(api.logs.followers) == (FOLLOWERS + 1 if opens else 0)
    for follower in api.logs.followers:
        assert follower.closed.wait(SECONDS)
        follower.end()


async def _impatient(_: object, __: object, work: Callable[[], object]) -> object:
    def quietly() -> None:
        with contextlib.suppress(LlamarigError):
            work()

    threading.Thread(target=quietly, name="late").start()
    raise TimeoutError


def test_the_head_of_a_followed_log_leaves_nothing_open(api: World) -> None:
    with contextlib.closing(api.connect()) as connection:
        connection.request("HEAD", "/logs/chat?follow=true")
        assert connection.getresponse().status == 200
    (follower,) = api.logs.followers
    assert follower.closed.wait(SECONDS)
    follower.end()


def test_everything_that_happens_is_told(api: World) -> None:
    def serve(reporter: Reporter) -> Outcome:
        reporter.phase("load")
        api.board.events.append({"time": 2.0, "kind": "switch", "service": "code", "outcome": "ok"})
        api.board.model = "code"
        return Outcome(("code",), message="code serves")

    api.board.events = [{"time": 1.0, "kind": "switch", "service": "chat", "outcome": "ok"}]
    with api.events("/events") as events:
        first = events.next()
        assert first is not None
        assert first[1] == "status"
        assert first[2]["model"] == "chat"
        api.ask("POST", "/switch?wait=false", {"model": "code"})
        api.acting.end(serve)
        told: list[tuple[int | None, str, Any]] = []
        awaited = {("job", "succeeded"), ("history", None), ("status", "running")}
        while awaited:
            event = events.next()
            assert event is not None
            told.append(event)
            awaited.discard((event[1], event[2].get("state")))
    jobs = [data for _, kind, data in told if kind == "job"]
    assert [(job["state"], job["phase"]) for job in jobs][-1] == ("succeeded", "load")
    assert all((number is not None) == (kind == "job") for number, kind, _ in told), "a reader comes back to jobs"
    assert [data for _, kind, data in told if kind == "history"] == [api.board.events[-1]]
    assert [data["model"] for _, kind, data in told if kind == "status"][-1] == "code"


def test_so_many_are_told_everything_and_no_more(api: World) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(LISTENERS):
            stack.enter_context(api.events("/events", where="read")).next()
        for where, status in (("read", 503), ("manage", 200)):
            with api.events("/events", where=where) as events:
                assert events.status == status
        for _ in range(LISTENERS):
            stack.enter_context(api.events("/events", where="port")).next()
        said = api.ask("GET", "/events", where="read")
        assert said.headers["retry-after"]
        assert str(LISTENERS) in said.data["error"]
        assert api.ask("GET", "/status", where="read").status == 200
    with contextlib.ExitStack() as stack:
        opened = 0
        # Those who left give their places back as soon as that is seen.
        for _ in range(2000):
            connection = stack.enter_context(contextlib.closing(api.connect("port")))
            connection.request("GET", "/events")
            if connection.getresponse().status == 200:
                opened += 1
            else:
                connection.close()
            if opened == LISTENERS:
                break
        assert opened == LISTENERS


def test_one_who_comes_back_to_all_events_is_told_of_the_jobs_that_were_missed(api: World) -> None:
    name = api.ask("POST", "/switch?wait=false", {"model": "code"}).data["job"]["id"]
    api.acting.end()
    api.jobs.wait(name, SECONDS)
    with api.events("/events", after=0) as events:
        states = []
        while "succeeded" not in states:
            event = events.next("job")
            assert event is not None
            states.append(event[2]["state"])
    assert states == ["queued", "running", "succeeded"]


def test_readers_that_read_nothing_hold_nobody_up(api: World) -> None:
    """They are dropped when too much waits for them; jobs, and those who read, go on."""

    def talk(reporter: Reporter) -> Outcome:
        for number in range(WAITING * 40):
            reporter.say(f"{number} " + "x" * 2000)
        return Outcome(("code",), message="code serves")

    with contextlib.ExitStack() as stack:
        dead = [stack.enter_context(api.events("/events")) for _ in range(3)]
        for reader in dead:
            assert reader.status == 200
        name = api.ask("POST", "/switch?wait=false", {"model": "code"}).data["job"]["id"]
        api.acting.end(talk)
        assert api.ask("GET", "/status").status == 200
        assert api.jobs.wait(name, SECONDS).text == "code serves"
        assert api.ask("GET", f"/jobs/{name}").data["job"]["state"] == "succeeded"


def test_a_read_that_hangs_holds_up_nothing_that_is_in_memory(api: World) -> None:
    api.board.hold = threading.Event()
    try:
        hanging = [api.connect() for _ in range(8)]
        for connection in hanging:
            connection.request("GET", "/services")
        assert api.ask("GET", "/status").status == 200
        assert api.ask("GET", "/gpus").status == 200
        assert api.ask("POST", "/switch?wait=false", {"model": "code"}).status == 202
    finally:
        api.board.hold.set()
    for connection in hanging:
        assert connection.getresponse().status == 200
        connection.close()


def test_reads_that_hang_at_one_place_hold_up_none_at_another(api: World) -> None:
    api.board.hold = threading.Event()
    try:
        hanging = [api.connect("read") for _ in range(8)]
        for connection in hanging:
            connection.request("GET", "/services")
        api.board.wait_for_reads(3)
        assert api.ask("GET", "/logs/chat").status == 200, "it needs a thread of the same kind"
    finally:
        api.board.hold.set()
    for connection in hanging:
        assert connection.getresponse().status == 200
        connection.close()


def test_a_read_that_takes_too_long_is_given_up(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamarig.api.pools.Pools._run", _late)
    said = api.ask("GET", "/services")
    assert said.status == 503
    assert said.headers["retry-after"]


async def _late(*_: object) -> object:
    raise TimeoutError


def test_a_hundred_ask_for_the_status_while_a_switch_runs(api: World) -> None:
    api.ask("POST", "/switch?wait=false", {"model": "code"})
    api.acting.wait_for_start()
    said: list[tuple[int, str]] = []

    def ask() -> None:
        answer = api.ask("GET", "/status", where="read")
        said.append((answer.status, answer.data["job"]["service"]))

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert said == [(200, "code")] * 100
    assert [job.service for job in api.jobs.all()] == ["code"]
