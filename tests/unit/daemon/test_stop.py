from __future__ import annotations

import pytest

from llamarig.config import paths
from llamarig.daemon.state import State
from llamarig.errors import BusyError
from tests.support import below
from tests.unit.daemon.fakes import Host


def test_stop_stops_and_keeps_the_service_from_starting_with_the_host(serving_alpha: Host) -> None:
    assert serving_alpha.switcher.stop() == "alpha"
    assert (serving_alpha.units.running(), serving_alpha.units.enabled()) == ([], [])
    assert serving_alpha.state.read() == State()
    assert serving_alpha.state.history()[-1]["kind"] == "stop"


def test_stop_also_stops_what_nobody_switched_to(host: Host) -> None:
    host.units.start("beta")
    assert host.switcher.stop() is None
    assert host.units.running() == []
    assert host.state.history() == []


def test_stop_manages_without_a_spec_of_the_active_service(serving_alpha: Host) -> None:
    below(serving_alpha.root, f"{paths.SPECS}/alpha.json").unlink()
    assert serving_alpha.switcher.stop() == "alpha"
    assert serving_alpha.units.running() == []


def test_stop_during_a_switch_is_refused(serving_alpha: Host) -> None:
    with serving_alpha.state.lock(), pytest.raises(BusyError):
        serving_alpha.switcher.stop()
    assert serving_alpha.serving() == ["alpha"]
