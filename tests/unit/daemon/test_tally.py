from __future__ import annotations

import pytest

from llamarig.daemon.memory import MemoryStore
from llamarig.daemon.request import Kind, Origin, Request
from llamarig.daemon.switching import Switcher
from llamarig.daemon.tally import Sums, Tally
from llamarig.errors import SwitchError
from tests.unit.daemon.fakes import FakeReporter, Fault, Host


def counting(host: Host) -> tuple[Tally, Switcher]:
    tally = Tally()
    memory = MemoryStore(host.root)
    return tally, Switcher(state=host.state, means=host.means, memory=memory, tally=tally, now=host.clock)


def test_nothing_is_counted_before_anything_happened() -> None:
    assert Tally().sums() == Sums()


def test_sums_are_over_all_switches_and_what_is_of_the_last_is_of_the_last_that_served() -> None:
    tally = Tally()
    tally.switched("chat", "ok", {"stop": 1.0, "load": 20.0})
    tally.switched("chat", "ok", {"stop": 2.0, "load": 10.0})
    tally.switched("chat", "failed", {"stop": 0.5, "load": 60.0, "back": 7.0})
    sums = tally.sums()
    assert sums.switches == {("chat", "ok"): 2, ("chat", "failed"): 1}
    assert sums.phases == {("chat", "stop"): 3.5, ("chat", "load"): 90.0, ("chat", "back"): 7.0}
    assert (sums.last, sums.load) == ({"chat": 12.0}, {"chat": 10.0})
    tally.switched("chat", "ok", {})
    assert sums.switches["chat", "ok"] == 2, "what was read stays as it was"


def test_a_switch_is_counted_with_its_phases(serving_alpha: Host) -> None:
    tally, switcher = counting(serving_alpha)
    outcome = switcher.perform(Request(Kind.SWITCH, "beta"), FakeReporter())
    sums = tally.sums()
    assert sums.switches == {("beta", "ok"): 1}
    assert {phase: seconds for (_, phase), seconds in sums.phases.items()} == pytest.approx(outcome.phases)
    assert sums.load == {"beta": outcome.phases["load"]}
    assert sums.last["beta"] == pytest.approx(sum(outcome.phases.values()))


def test_a_switch_that_fails_is_counted_as_such_and_so_is_one_that_is_refused(serving_alpha: Host) -> None:
    tally, switcher = counting(serving_alpha)
    serving_alpha.faults["beta"] = Fault.EXITS
    with pytest.raises(SwitchError):
        switcher.perform(Request(Kind.SWITCH, "beta"), FakeReporter())
    sums = tally.sums()
    assert sums.switches == {("beta", "failed"): 1}
    assert ("beta", "back") in sums.phases
    assert (sums.last, sums.load) == ({}, {})


def test_services_that_one_request_brings_up_are_counted_each_with_its_own_time(serving_alpha: Host) -> None:
    """Beside alpha, gamma serves on a port of its own; after a reboot one reconciliation brings both."""
    serving_alpha.switch("gamma")
    serving_alpha.reboot()
    tally, switcher = counting(serving_alpha)
    steps = serving_alpha.clock.seconds
    switcher.perform(Request(Kind.RECONCILE, origin=Origin.START), FakeReporter())
    sums = tally.sums()
    assert sums.switches == {("alpha", "ok"): 1, ("gamma", "ok"): 1}
    assert sum(sums.phases.values()) <= serving_alpha.clock.seconds - steps + 0.001


def test_a_stop_is_no_switch(serving_alpha: Host) -> None:
    tally, switcher = counting(serving_alpha)
    switcher.perform(Request(Kind.STOP, "alpha"), FakeReporter())
    assert tally.sums() == Sums()
