from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.config import paths
from llamarig.config.spec import SpecFile
from llamarig.daemon.request import Kind, Origin
from llamarig.daemon.state import GivenUp, Serving
from llamarig.errors import NotFoundError, SwitchError
from tests.support import below, make_spec
from tests.unit.daemon.conftest import ALPHA, BETA, GAMMA, SMALL
from tests.unit.daemon.fakes import Cut, Fault, Host

ALPHA2 = make_spec("alpha", port=8080, memory=SMALL, argv=["--model", "/models/alpha.gguf", "--ctx-size", "8192"])


def test_a_host_that_runs_no_service_has_nothing_to_do(tmp_path: Path) -> None:
    host = Host(tmp_path)
    outcome = host.reconcile()
    assert (outcome.active, outcome.changed, outcome.message) == ((), False, "this host runs no service")


def test_the_default_service_serves_where_nobody_chose_one(host: Host) -> None:
    assert host.reconcile().changed
    assert host.serving() == ["alpha"]
    assert not host.reconcile().changed


def test_the_second_time_touches_nothing_and_asks_for_no_token(serving_alpha: Host) -> None:
    asked = list(serving_alpha.engine.asked)
    assert not serving_alpha.reconcile().changed
    assert (serving_alpha.effects, serving_alpha.engine.asked) == ([], asked)


def test_who_was_chosen_stays_chosen(serving_beta: Host) -> None:
    assert not serving_beta.reconcile().changed
    assert serving_beta.serving() == ["beta"]


def test_a_changed_spec_is_adopted_when_a_playbook_asks(serving_alpha: Host) -> None:
    serving_alpha.provision(ALPHA2, BETA, default="alpha")
    assert not serving_alpha.reconcile(adopt=False).changed
    assert serving_alpha.versions() == {"alpha": ALPHA.spec_sha256}
    assert serving_alpha.reconcile().changed
    assert serving_alpha.versions() == {"alpha": ALPHA2.spec_sha256}
    assert serving_alpha.state.read().active[0].version == ALPHA2.spec_sha256


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.NO_CONTAINER, Fault.EXITS, Fault.GARBAGE, Fault.NEVER_LOADS])
def test_a_changed_spec_that_does_not_serve_is_undone(serving_alpha: Host, fault: Fault) -> None:
    serving_alpha.provision(ALPHA2, BETA, default="alpha")
    serving_alpha.faults[ALPHA2.spec_sha256] = fault
    with pytest.raises(SwitchError, match="alpha serves again"):
        serving_alpha.reconcile()
    assert serving_alpha.serving() == ["alpha"]
    assert serving_alpha.versions() == {"alpha": ALPHA.spec_sha256}
    serving_alpha.reboot()
    serving_alpha.reconcile(adopt=False)
    assert serving_alpha.versions() == {"alpha": ALPHA.spec_sha256}


def test_a_version_of_before_is_behind_the_port_that_is_planned_now(serving_alpha: Host) -> None:
    changed = make_spec("alpha", port=9000, memory=SMALL, argv=ALPHA2.argv)
    serving_alpha.provision(changed, BETA, default="alpha")
    serving_alpha.faults[changed.spec_sha256] = Fault.EXITS
    with pytest.raises(SwitchError, match="alpha serves again"):
        serving_alpha.reconcile()
    assert serving_alpha.versions() == {"alpha": ALPHA.spec_sha256}
    assert (serving_alpha.door.ports(), serving_alpha.door.behind(9000)) == ([9000], "alpha")


def test_files_of_a_version_of_before_are_the_units_business(serving_alpha: Host) -> None:
    files = [SpecFile("/srv/llamarig/models/alpha.gguf", 5, "b" * 64)]
    serving_alpha.provision(make_spec("alpha", port=8080, memory=SMALL, files=files), BETA, default="alpha")
    below(serving_alpha.root, files[0].path).write_bytes(b"GGUF2")
    serving_alpha.reboot()
    serving_alpha.reconcile(adopt=False)
    assert serving_alpha.versions() == {"alpha": ALPHA.spec_sha256}


def test_a_service_that_the_host_runs_no_more_is_stopped_and_the_default_serves(serving_beta: Host) -> None:
    below(serving_beta.root, f"{paths.SPECS}/beta.json").unlink()
    outcome = serving_beta.reconcile()
    assert (outcome.active, outcome.left) == (("alpha",), ("beta",))
    assert serving_beta.serving() == ["alpha"]
    assert serving_beta.units.running() == ["alpha"]


def test_what_runs_and_should_not_is_ended(serving_alpha: Host) -> None:
    serving_alpha.gate.open("gamma")
    serving_alpha.units.start("gamma")
    assert serving_alpha.reconcile().changed
    assert serving_alpha.units.running() == ["alpha"]


def test_what_waits_at_its_gate_does_no_harm_and_is_ended(serving_alpha: Host) -> None:
    serving_alpha.units.start("beta")
    assert serving_alpha.serving() == ["alpha"]
    assert serving_alpha.doubles == 0
    assert serving_alpha.reconcile().changed
    assert serving_alpha.units.running() == ["alpha"]


def test_services_side_by_side_come_back_after_a_reboot(serving_alpha: Host) -> None:
    serving_alpha.switch("gamma")
    serving_alpha.reboot()
    serving_alpha.reconcile(adopt=False)
    assert serving_alpha.serving() == ["alpha", "gamma"]
    assert serving_alpha.state.read().names == ("gamma", "alpha")


def test_one_service_that_fails_does_not_keep_the_others_from_serving(serving_alpha: Host) -> None:
    serving_alpha.switch("gamma")
    serving_alpha.reboot()
    serving_alpha.faults["gamma"] = Fault.EXITS
    with pytest.raises(SwitchError, match="gamma"):
        serving_alpha.reconcile(adopt=False)
    assert serving_alpha.serving() == ["alpha"]


def test_services_that_no_longer_fit_together_are_fewer(serving_alpha: Host) -> None:
    serving_alpha.switch("gamma")
    serving_alpha.provision(ALPHA, BETA, make_spec("gamma", port=8080, memory=SMALL), default="alpha")
    outcome = serving_alpha.reconcile()
    assert outcome.active == ("gamma",)
    assert serving_alpha.serving() == ["gamma"]


def test_who_has_no_room_any_more_leaves_only_when_the_other_serves(serving_alpha: Host) -> None:
    """Gamma's new spec has no room beside alpha, and does not come to serve: both go on as they did."""
    serving_alpha.switch("gamma")
    before = serving_alpha.versions()
    changed = make_spec("gamma", port=8090, memory_mib=4321)
    serving_alpha.provision(ALPHA, BETA, changed, default="alpha")
    serving_alpha.faults[changed.spec_sha256] = Fault.EXITS
    with pytest.raises(SwitchError, match="serves again"):
        serving_alpha.reconcile()
    assert serving_alpha.serving() == ["alpha", "gamma"]
    assert serving_alpha.versions() == before
    assert serving_alpha.state.read().names == ("gamma", "alpha")


def test_that_a_service_went_is_written_down_when_it_has_gone(serving_beta: Host) -> None:
    below(serving_beta.root, f"{paths.SPECS}/beta.json").unlink()
    serving_beta.faults["beta"] = Fault.STAYS
    serving_beta.cut_after = len(serving_beta.effects) + 1
    with pytest.raises(Cut):
        serving_beta.reconcile()
    assert [event["service"] for event in serving_beta.state.history() if event["kind"] == "stop"] == []


def test_a_door_that_was_closed_is_opened(serving_alpha: Host) -> None:
    serving_alpha.door.close(8080)
    serving_alpha.reconcile(adopt=False)
    assert serving_alpha.serving() == ["alpha"]


def test_a_service_whose_port_was_changed_goes_on_behind_the_new_one(serving_alpha: Host) -> None:
    first = serving_alpha.units.units["alpha"].pid
    serving_alpha.provision(make_spec("alpha", port=9000, memory=SMALL), BETA, default="alpha")
    serving_alpha.reconcile()
    assert serving_alpha.units.units["alpha"].pid == first
    assert (serving_alpha.door.behind(9000), serving_alpha.door.ports()) == ("alpha", [9000])


def test_health_has_a_service_started_anew(serving_alpha: Host) -> None:
    first = serving_alpha.units.units["alpha"].pid
    serving_alpha.perform(Kind.RECONCILE, "alpha", origin=Origin.HEALTH, reason="hung")
    assert serving_alpha.units.units["alpha"].pid != first
    assert serving_alpha.serving() == ["alpha"]


def test_stopping_lasts(serving_alpha: Host) -> None:
    outcome = serving_alpha.perform(Kind.STOP, origin=Origin.CLI)
    assert (outcome.active, outcome.left) == ((), ("alpha",))
    assert (serving_alpha.serving(), serving_alpha.units.running()) == ([], [])
    for adopt in (False, True):
        outcome = serving_alpha.reconcile(adopt=adopt)
        assert not outcome.changed
        assert outcome.message == "nothing serves: the last service was stopped on purpose"
    serving_alpha.switch("beta")
    assert serving_alpha.serving() == ["beta"]
    assert not serving_alpha.state.read().stopped


def test_stopping_one_of_several_leaves_the_others(serving_alpha: Host) -> None:
    serving_alpha.switch("gamma")
    assert serving_alpha.perform(Kind.STOP, "alpha").active == ("gamma",)
    assert serving_alpha.serving() == ["gamma"]
    assert not serving_alpha.state.read().stopped


def test_stopping_what_is_not_active_changes_nothing(serving_alpha: Host) -> None:
    assert not serving_alpha.perform(Kind.STOP, "beta").changed
    with pytest.raises(NotFoundError):
        serving_alpha.perform(Kind.STOP, "delta")


def test_an_idle_service_leaves_and_the_default_returns(serving_beta: Host) -> None:
    serving_beta.perform(Kind.STOP, "beta", origin=Origin.IDLE, reason="no request for 30 min")
    assert not serving_beta.state.read().stopped
    serving_beta.reconcile(adopt=False)
    assert serving_beta.serving() == ["alpha"]


def test_what_is_given_up_is_not_started_until_somebody_asks(serving_alpha: Host) -> None:
    serving_alpha.perform(Kind.STOP, "alpha", origin=Origin.HEALTH, reason="it crashed 5 times in 15 min")
    assert serving_alpha.state.read().given_up == {
        "alpha": GivenUp(serving_alpha.clock.seconds, "it crashed 5 times in 15 min")
    }
    outcome = serving_alpha.reconcile(adopt=False)
    assert outcome.message == "nothing serves: alpha was given up (it crashed 5 times in 15 min)"
    serving_alpha.reconcile(adopt=True)
    assert serving_alpha.serving() == ["alpha"]
    assert serving_alpha.state.read().given_up == {}


def test_a_service_that_is_given_up_makes_room_for_the_default(serving_beta: Host) -> None:
    serving_beta.perform(Kind.STOP, "beta", origin=Origin.HEALTH, reason="it crashed 5 times in 15 min")
    serving_beta.reconcile(adopt=False, origin=Origin.HEALTH)
    assert serving_beta.serving() == ["alpha"]


def test_a_service_that_the_host_runs_no_more_was_not_given_up(serving_beta: Host) -> None:
    serving_beta.perform(Kind.STOP, "beta", origin=Origin.HEALTH, reason="it crashed 5 times in 15 min")
    serving_beta.reconcile(adopt=False)
    assert list(serving_beta.state.read().given_up) == ["beta"]
    below(serving_beta.root, f"{paths.SPECS}/beta.json").unlink()
    serving_beta.reconcile(adopt=True)
    assert serving_beta.state.read().given_up == {}


def test_a_version_that_is_lost_is_replaced_by_the_planned_one(host: Host) -> None:
    host.state.write(host.state.read().__class__((Serving("alpha", "f" * 64, 1.0),)))
    host.reconcile(adopt=False)
    assert host.versions() == {"alpha": ALPHA.spec_sha256}
    assert host.specs.version("gamma", "../../etc") is None
    assert host.specs.get("gamma") == GAMMA


@pytest.mark.parametrize("torn", [f"{paths.SPECS}/gamma.json", paths.HOST_FILE, f"{paths.SPECS}/alpha.json"])
def test_a_torn_file_keeps_nobody_from_serving(serving_alpha: Host, torn: str) -> None:
    serving_alpha.provision(ALPHA2, BETA, GAMMA, default="alpha")
    below(serving_alpha.root, torn).write_text("", encoding="utf-8")
    serving_alpha.reboot()
    serving_alpha.reconcile(adopt=False)
    assert serving_alpha.serving() == ["alpha"]
    assert serving_alpha.versions() == {"alpha": ALPHA.spec_sha256}
