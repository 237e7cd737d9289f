from __future__ import annotations

import dataclasses
import json

import pytest

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.state import State
from llamarig.errors import BusyError, SwitchError
from tests.support import below, make_spec
from tests.unit.daemon.fakes import Fault, Host, Unit

CHANGED = make_spec("alpha", argv=["--model", "/models/alpha.gguf", "--jinja"])


def test_a_host_without_services_is_left_alone(host: Host) -> None:
    for path in below(host.root, paths.SPECS).iterdir():
        path.unlink()
    below(host.root, paths.HOST_FILE).unlink()
    assert host.switcher.reconcile() is None
    assert host.units.changes == []


def test_a_new_host_starts_its_default_service(host: Host) -> None:
    outcome = host.switcher.reconcile()
    assert outcome is not None
    assert (outcome.active, outcome.changed) == ("alpha", True)
    assert (host.serving(), host.units.enabled()) == (["alpha"], ["alpha"])


def test_what_serves_with_its_present_spec_is_not_touched(serving_alpha: Host) -> None:
    serving_alpha.switcher.reconcile()  # the first one keeps the host's generation
    before = serving_alpha.files()
    outcome = serving_alpha.switcher.reconcile()
    assert outcome is not None
    assert not outcome.changed
    assert serving_alpha.units.changes == []
    assert serving_alpha.files() == before


def test_the_active_service_stays_although_the_default_is_another(serving_beta: Host) -> None:
    serving_beta.switcher.reconcile()
    assert serving_beta.serving() == ["beta"]
    assert serving_beta.units.changes == []


def test_a_changed_spec_restarts_its_service(serving_alpha: Host) -> None:
    serving_alpha.provision(CHANGED)
    outcome = serving_alpha.switcher.reconcile()
    assert outcome is not None
    assert outcome.changed
    assert serving_alpha.units.changes == ["stop alpha", "start alpha"]
    assert serving_alpha.switcher.specs.running("alpha") == CHANGED


def test_a_changed_spec_of_a_service_that_is_not_active_restarts_nothing(serving_alpha: Host) -> None:
    serving_alpha.provision(make_spec("beta", port=8091))
    serving_alpha.switcher.reconcile()
    assert serving_alpha.units.changes == []


@pytest.mark.parametrize("fault", [Fault.EXITS, Fault.GARBAGE, Fault.NEVER_LOADS, Fault.CTRL_C])
def test_a_changed_spec_that_fails_gives_way_to_the_files_that_served(serving_alpha: Host, fault: Fault) -> None:
    directory = below(serving_alpha.root, paths.ETC)
    good = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    serving_alpha.provision(CHANGED)
    serving_alpha.faults[CHANGED.spec_sha256] = fault
    with pytest.raises(SwitchError) as caught:
        serving_alpha.switcher.reconcile()
    assert caught.value.serving == "alpha"
    assert "alpha with its previous spec serves again" in caught.value.message
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == good
    assert serving_alpha.serving() == ["alpha"]
    assert serving_alpha.state.read() == State("alpha")


def test_a_first_spec_that_fails_has_nothing_to_give_way_to(host: Host) -> None:
    host.faults["alpha"] = Fault.EXITS
    with pytest.raises(SwitchError) as caught:
        host.switcher.reconcile()
    assert caught.value.serving is None
    assert host.units.running() == []


def test_strays_beside_the_active_service_are_stopped(serving_alpha: Host) -> None:
    serving_alpha.units.units["beta"].active = "active"
    serving_alpha.switcher.reconcile()
    assert serving_alpha.units.running() == ["alpha"]
    assert serving_alpha.serving() == ["alpha"]


def test_an_active_service_that_was_removed_gives_way_to_the_default(serving_beta: Host) -> None:
    below(serving_beta.root, f"{paths.SPECS}/beta.json").unlink()
    outcome = serving_beta.switcher.reconcile()
    assert outcome is not None
    assert outcome.active == "alpha"
    assert serving_beta.serving() == ["alpha"]


def test_an_active_service_that_crashed_is_started_again(serving_alpha: Host) -> None:
    serving_alpha.units.crash("alpha")
    serving_alpha.switcher.reconcile()
    assert serving_alpha.serving() == ["alpha"]


def test_a_service_that_is_loading_is_waited_for_and_not_started_over(serving_alpha: Host) -> None:
    serving_alpha.faults["alpha"] = Fault.NEVER_LOADS
    serving_alpha.clock.on_sleep = serving_alpha.faults.clear
    outcome = serving_alpha.switcher.reconcile()
    assert outcome is not None
    assert not outcome.changed
    assert serving_alpha.units.changes == []


def test_an_active_service_that_does_not_start_with_the_host_is_made_to_and_that_is_a_change(
    serving_alpha: Host,
) -> None:
    serving_alpha.units.units["alpha"].enabled = False
    outcome = serving_alpha.switcher.reconcile()
    assert serving_alpha.units.enabled() == ["alpha"]
    assert outcome is not None
    assert outcome.changed


def test_an_unfinished_switch_is_recorded_and_ends_with_the_old_service(serving_alpha: Host) -> None:
    serving_alpha.state.write(State("alpha", "beta"))
    serving_alpha.units.stop("alpha")
    serving_alpha.units.start("beta")
    serving_alpha.switcher.reconcile()
    assert (serving_alpha.serving(), serving_alpha.state.read()) == (["alpha"], State("alpha"))
    outcomes = [(event["service"], event["outcome"]) for event in serving_alpha.state.history()]
    assert ("beta", "interrupted") in outcomes


def test_reconcile_during_a_switch_is_refused(serving_alpha: Host) -> None:
    with serving_alpha.state.lock(), pytest.raises(BusyError):
        serving_alpha.switcher.reconcile()


def test_dry_says_what_would_start_and_changes_nothing(host: Host) -> None:
    before = host.files()
    outcome = host.switcher.reconcile(dry=True)
    assert outcome is not None
    assert (outcome.changed, outcome.message) == (True, "would start alpha")
    assert (host.units.changes, host.files()) == ([], before)


def test_dry_changes_nothing_where_a_spec_changed(serving_alpha: Host) -> None:
    serving_alpha.provision(CHANGED)
    before = serving_alpha.files()
    outcome = serving_alpha.switcher.reconcile(dry=True)
    assert outcome is not None
    assert outcome.changed
    assert (serving_alpha.units.changes, serving_alpha.files()) == ([], before)


def test_dry_says_that_nothing_would_change(serving_alpha: Host) -> None:
    outcome = serving_alpha.switcher.reconcile(dry=True)
    assert outcome is not None
    assert not outcome.changed


def test_dry_changes_nothing_where_a_switch_was_cut_off(serving_alpha: Host) -> None:
    serving_alpha.state.write(State("alpha", "beta"))
    before = serving_alpha.files()
    serving_alpha.switcher.reconcile(dry=True)
    assert (serving_alpha.units.changes, serving_alpha.files()) == ([], before)


def test_dry_does_not_make_a_service_start_with_the_host(serving_alpha: Host) -> None:
    serving_alpha.units.units["alpha"].enabled = False
    serving_alpha.switcher.reconcile(dry=True)
    assert serving_alpha.units.changes == []


def test_a_changed_spec_that_started_by_itself_and_answers_garbage_does_not_become_the_last_good(host: Host) -> None:
    host.switcher.switch("alpha")
    good = host.state.kept("alpha")
    spec = below(host.root, f"{paths.SPECS}/alpha.json")
    changed = dataclasses.replace(Spec.from_dict(json.loads(spec.read_text())), argv=["--other"]).hashed()
    spec.write_text(json.dumps(changed.to_dict()))
    host.units.reboot()
    host.faults[changed.spec_sha256] = Fault.GARBAGE
    with pytest.raises(SwitchError, match="alpha with its previous spec serves again"):
        host.switcher.reconcile()
    assert host.state.kept("alpha") == good
    assert host.serving() == ["alpha"]


def test_a_foreign_unit_of_a_like_name_is_left_alone(serving_alpha: Host) -> None:
    serving_alpha.units.units["swap"] = Unit("active", "running")
    outcome = serving_alpha.switcher.reconcile()
    assert outcome is not None
    assert not outcome.changed
    assert "swap" in serving_alpha.units.running()


def test_a_model_that_was_replaced_by_a_bad_one_of_the_same_name_comes_back_with_the_spec(host: Host) -> None:
    host.switcher.switch("alpha")
    before = Spec.from_dict(json.loads(below(host.root, f"{paths.SPECS}/alpha.json").read_text()))
    model = below(host.root, before.files[0].path)
    previous = model.with_name(f"{model.name}.previous")
    good = model.read_bytes()
    model.replace(previous)
    model.write_bytes(b"X" * len(good))
    changed = dataclasses.replace(before, files=[dataclasses.replace(before.files[0], sha256="0" * 64)]).hashed()
    below(host.root, f"{paths.SPECS}/alpha.json").write_text(json.dumps(changed.to_dict()))
    host.faults[changed.spec_sha256] = Fault.GARBAGE
    with pytest.raises(SwitchError, match="alpha with its previous spec serves again"):
        host.switcher.reconcile()
    assert model.read_bytes() == good
    assert not previous.exists()
    assert host.serving() == ["alpha"]


def test_what_a_new_model_replaced_goes_when_the_service_was_seen_to_serve(host: Host) -> None:
    host.switcher.switch("alpha")
    previous = below(host.root, "/srv/llamarig/models/alpha.gguf.previous")
    previous.write_bytes(b"old")
    host.switcher.reconcile()
    assert not previous.exists()
