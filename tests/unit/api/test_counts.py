from __future__ import annotations

from llamarig.api import keys
from llamarig.api.counts import OTHER, Counts
from tests.unit.api.world import JSON, World


def test_what_was_answered_is_counted_by_route_and_status(api: World) -> None:
    for _ in range(2):
        api.ask("GET", "/status")
    api.ask("GET", "/logs/chat", where="read")
    api.ask("GET", "/logs/nothing", where="read")
    api.ask("HEAD", "/jobs/a", where="port", headers={})
    assert api.counts.read() == {
        ("/status", "200"): 2,
        ("/logs/{service}", "200"): 1,
        ("/logs/{service}", "404"): 1,
        ("/jobs/{job}", "404"): 1,
    }


def test_what_a_guard_refuses_is_counted_too(api: World) -> None:
    keys.add(api.root, "wall", "read")
    api.ask("GET", "/status", where="port")
    api.ask("GET", "/status", where="port", headers={"Host": "evil.example.net"})
    api.ask("POST", "/stop", "no JSON", headers=JSON)
    api.ask("POST", "/stop", "text", headers={"Content-Type": "text/plain"})
    assert api.counts.read() == {
        ("/status", "401"): 1,
        ("/status", "421"): 1,
        ("/stop", "400"): 1,
        ("/stop", "415"): 1,
    }


def test_names_that_nobody_made_fill_nothing() -> None:
    counts = Counts()
    for number in range(1000):
        counts.add(f"/no/{number}", 404)
        counts.add(f"/jobs/{number}", 404)
    counts.add("/statusx", 404)
    assert counts.read() == {(OTHER, "404"): 1001, ("/jobs/{job}", "404"): 1000}
