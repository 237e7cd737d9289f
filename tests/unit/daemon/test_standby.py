"""The container of the service that left waits at its gate, so that the way back does not wait for Docker."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.errors import CancelledError
from tests.support import make_spec
from tests.unit.daemon.fakes import FakeReporter, Fault, Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Three services that take turns; beta serves, and alpha has left for it."""
    host = Host(tmp_path, *(make_spec(name) for name in ("alpha", "beta", "gamma")), default="alpha")
    host.switch("alpha")
    host.switch("beta")
    return host


def _calls(host: Host) -> list[str]:
    """What was asked of systemd since the last call."""
    calls, host.units.changes = host.units.changes, []
    return calls


def test_who_left_waits_and_has_not_begun(host: Host) -> None:
    assert host.units.running() == ["alpha", "beta"]
    assert not host.gate.is_open("alpha")
    assert (host.engines.waits("alpha"), host.engines.pids("alpha")) == (True, [])
    assert host.state.read().names == ("beta",)


def test_the_way_back_starts_nothing_before_the_other_has_left(host: Host) -> None:
    _calls(host)
    assert host.switch("alpha").changed
    assert _calls(host) == ["stop beta", "start beta"]
    assert (host.serving(), host.doubles) == (["alpha"], 0)


def test_one_at_most_waits(host: Host) -> None:
    host.switch("gamma")
    assert host.units.running() == ["beta", "gamma"]
    assert host.serving() == ["gamma"]


def test_reconciling_leaves_it_waiting_and_changes_nothing(host: Host) -> None:
    _calls(host)
    assert not host.reconcile().changed
    assert _calls(host) == []
    assert host.units.running() == ["alpha", "beta"]


def test_one_whose_spec_was_changed_waits_no_more(host: Host) -> None:
    host.provision(make_spec("alpha", memory_mib=4321), make_spec("beta"), make_spec("gamma"), default="alpha")
    host.reconcile()
    assert host.units.running() == ["beta"]


def test_a_switch_to_a_changed_spec_makes_its_container_anew(host: Host) -> None:
    changed = make_spec("alpha", memory_mib=4321)
    host.provision(changed, make_spec("beta"), make_spec("gamma"), default="alpha")
    _calls(host)
    host.switch("alpha")
    assert _calls(host)[:3] == ["stop alpha", "start alpha", "stop beta"]
    assert host.versions() == {"alpha": changed.spec_sha256}


def test_one_made_before_the_driver_was_changed_is_made_anew(host: Host) -> None:
    host.stale.add("alpha")
    _calls(host)
    host.switch("alpha")
    assert _calls(host)[:3] == ["stop alpha", "start alpha", "stop beta"]
    assert host.serving() == ["alpha"]


def test_one_that_is_still_being_made_is_waited_for(host: Host) -> None:
    host.engines.forget("alpha")

    def arrive() -> None:
        host.pass_time()
        host.engines.remember("alpha")

    host.clock.on_sleep = arrive
    _calls(host)
    host.switch("alpha")
    assert _calls(host) == ["stop beta", "start beta"]
    assert host.serving() == ["alpha"]


def test_one_whose_container_could_not_be_made_is_tried_anew_at_once(host: Host) -> None:
    """systemd waits longer and longer before it tries again, and a start does not come before that."""
    host.units.crash("alpha")
    host.reconcile()
    host.switch("alpha")
    assert host.serving() == ["alpha"]


def test_stopping_all_stops_who_waits_too(host: Host) -> None:
    assert host.stop().left == ("beta",)
    assert host.units.running() == []


def test_stopping_who_waits_leaves_who_serves(host: Host) -> None:
    host.stop("alpha")
    assert (host.units.running(), host.serving()) == (["beta"], ["beta"])


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.NO_CONTAINER])
def test_one_that_cannot_wait_fails_no_switch(host: Host, fault: Fault) -> None:

    def break_down() -> None:
        host.pass_time()
        host.faults["beta"] = fault

    host.clock.on_sleep = break_down
    assert host.switch("gamma").changed
    assert host.serving() == ["gamma"]


def test_a_stray_at_its_gate_gets_no_door_where_a_reconciliation_is_cancelled(tmp_path: Path) -> None:
    """Beta serves; what waits has its port, and another stray that has requests is drained when it is cancelled."""
    specs = {name: make_spec(name) for name in ("alpha", "beta")} | {"gamma": make_spec("gamma", port=8090)}
    host = Host(tmp_path, *specs.values(), default="alpha")
    host.switch("beta")
    for name in ("alpha", "gamma"):
        host.gate.choose(name, specs[name].spec_sha256)
        host.units.start(name)
    host.gate.choose("alpha", "f" * 64)
    host.gate.open("gamma")
    host.door.open(8090, "gamma")
    host.door.in_flight[8090] = 1000
    host.reporter = FakeReporter()
    host.reporter.cancel = lambda: True
    with pytest.raises(CancelledError):
        host.reconcile()
    assert (host.door.behind(specs["beta"].port), host.door.behind(8090)) == ("beta", "gamma")


def test_an_engine_that_does_not_end_is_not_taken_for_one_that_waits(host: Host) -> None:
    host.gate.shut("beta")  # as for its end, which does not come
    host.reconcile()
    assert host.serving() == ["beta"]
    assert host.gate.is_open("beta")


def test_one_whose_container_cannot_be_made_is_not_tried_for_ever(host: Host) -> None:
    host.units.crash("alpha")
    host.reconcile()
    assert host.units.running() == ["beta"]
