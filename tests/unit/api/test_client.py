"""The client that the command and the dashboard use, and the API that it was written for."""

from __future__ import annotations

import pytest

from llamarig.api import keys
from llamarig.daemon.request import Origin, Outcome, Reporter
from llamarig.errors import (
    BusyError,
    CancelledError,
    DaemonGoneError,
    LlamarigError,
    NotAllowedError,
    NotFoundError,
    SwitchError,
)
from llamarig.runtime.management import Management, outcome_of
from tests.unit.api.world import World
from tests.unit.daemon.acting import SECONDS


@pytest.fixture
def client(api: World) -> Management:
    return Management(api.root, origin="cli", seconds=SECONDS)


def test_a_job_is_asked_for_and_followed_to_its_end(api: World, client: Management) -> None:
    def serve(reporter: Reporter) -> Outcome:
        reporter.phase("load")
        reporter.say("code is loading")
        return Outcome(("code",), changed=True, message="code serves")

    job = client.submit("/switch", {"model": "code", "now": False, "queue": False})
    assert api.acting.wait_for_start().origin is Origin.CLI
    api.acting.end(serve)
    *_, last = client.follow(job["id"])
    assert outcome_of(last)["active"] == ["code"]
    assert client.job(job["id"]) == last


def test_how_it_failed_comes_whole(api: World, client: Management) -> None:
    job = client.submit("/switch", {"model": "code"})
    api.acting.end(SwitchError("code did not load", "llamarig logs code", "chat", ["bad magic"]))
    *_, last = client.follow(job["id"])
    with pytest.raises(SwitchError, match="code did not load") as caught:
        outcome_of(last)
    assert (caught.value.serving, caught.value.log_lines) == ("chat", ["bad magic"])
    api.acting.end(SwitchError("code did not load", "llamarig logs code", "chat", ["bad magic"]))
    with pytest.raises(SwitchError) as caught:
        client.post("/switch", {"model": "code"})
    assert (caught.value.serving, caught.value.remedy) == ("chat", "llamarig logs code")


def test_what_is_refused_is_the_error_that_it_was(api: World, client: Management) -> None:
    with pytest.raises(NotFoundError, match="no service 'nothing'"):
        client.submit("/switch", {"model": "nothing"})
    with pytest.raises(NotFoundError, match="no job"):
        client.delete("/jobs/nothing")
    with pytest.raises(LlamarigError, match="no field 'nwo'"):
        client.submit("/switch", {"model": "code", "nwo": True})
    client.submit("/switch", {"model": "code"})
    api.acting.wait_for_start()
    with pytest.raises(BusyError, match="under way"):
        client.submit("/switch", {"model": "chat"})


def test_a_job_is_cancelled(api: World, client: Management) -> None:
    def obey(reporter: Reporter) -> Outcome:
        assert reporter.cancelled()
        raise CancelledError("it was cancelled", "", "chat", [])

    job = client.submit("/switch", {"model": "code"})
    api.acting.wait_for_start()
    client.delete(f"/jobs/{job['id']}")
    api.acting.end(obey)
    *_, last = client.follow(job["id"])
    assert last["state"] == "cancelled"
    with pytest.raises(BusyError, match="over"):
        client.delete(f"/jobs/{job['id']}")


def test_what_happens_and_what_is_printed_is_followed(api: World, client: Management) -> None:
    events = client.events()
    first = next(events)
    assert (first.name, first.data["model"]) == ("status", "chat")
    client.submit("/stop", {})
    assert next(events).name in {"job", "status"}
    del events
    lines = client.log("chat", 2)
    assert [next(lines), next(lines)] == ["chat line 0", "chat line 1"]
    (follower,) = api.logs.followers
    follower.write("hello\n")
    assert next(lines) == "hello"
    follower.end()
    with pytest.raises(DaemonGoneError):
        next(lines)


def test_from_elsewhere_a_key_says_what_may_be_done(api: World) -> None:
    reads = keys.add(api.root, "wall", "read")
    there = Management(url=f"http://127.0.0.1:{api.server.port}", key=reads)
    assert there.get("/status")["model"] == "chat"
    with pytest.raises(NotAllowedError):
        there.submit("/stop", {})
    nobody = Management(url=f"http://127.0.0.1:{api.server.port}")
    with pytest.raises(NotAllowedError, match="a key is needed"):
        nobody.get("/status")


def test_who_only_looks_is_known_before_anything_is_tried(api: World, client: Management) -> None:
    reads, manages = keys.add(api.root, "wall", "read"), keys.add(api.root, "desk", "manage")
    url = f"http://127.0.0.1:{api.server.port}"
    assert client.only_looks() == ""
    assert Management(url=url, key=manages).only_looks() == ""
    assert Management(url=url, key=reads).only_looks() == "a key of scope manage may change what serves"
    assert Management(api.root / "elsewhere").only_looks() == "root and the group llamarig may change what serves"
