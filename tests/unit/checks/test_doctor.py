from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from llamarig.checks import doctor
from llamarig.checks.box import Box
from llamarig.checks.doctor import CHECKS, Check, examine, verdict
from llamarig.checks.result import CheckResult, Status
from llamarig.config import paths
from llamarig.daemon.state import State
from llamarig.runtime.specs import SpecStore
from tests.support import below, make_spec
from tests.unit.daemon.fakes import Fault, Host

Break = Callable[[Host], object]
# Of a host without cards; what else there is concerns cards, or a firewall, and is left out.
NAMES = ["clock", "reboot", "specs", "models", "space", "active", "units", "spec-in-use", "health", "answer"]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plenty of room, whatever this machine has."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 50, 0, 1 << 50))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    result = Host(tmp_path, make_spec("alpha"), make_spec("beta", port=8090), default="alpha")
    result.switcher.switch("alpha")
    (tmp_path / "run/systemd/timesync").mkdir(parents=True)
    (tmp_path / "run/systemd/timesync/synchronized").touch()
    return result


def box(host: Host) -> Box:
    return Box(SpecStore(host.root), host.state, host.units, host.engine)


def result(host: Host, name: str) -> CheckResult:
    return next(item for item in examine(box(host)) if item.name == name)


def spec_file(host: Host, service: str = "alpha") -> Path:
    return below(host.root, f"{paths.SPECS}/{service}.json")


def edit(host: Host) -> None:
    data = json.loads(spec_file(host).read_text(encoding="utf-8"))
    spec_file(host).write_text(json.dumps(data | {"port": 9000}), encoding="utf-8")


def change_spec(host: Host) -> None:
    host.provision(make_spec("alpha", memory_mib=2048))


def add_stray(host: Host) -> None:
    host.units.units["beta"].active = "active"


def forget_all(host: Host) -> None:
    for path in below(host.root, paths.SPECS).iterdir():
        path.unlink()
    host.switcher.stop()


FAILURES: list[tuple[str, Break, str, str]] = [
    ("specs", lambda h: spec_file(h).write_text("{", encoding="utf-8"), "cannot be read", "playbooks/site.yml"),
    ("specs", edit, "edited by hand: alpha", "host_vars"),
    ("models", lambda h: below(h.root, "/srv/llamarig/models/beta.gguf").unlink(), "beta.gguf is missing", "site.yml"),
    ("models", lambda h: below(h.root, "/srv/llamarig/models/beta.gguf").write_bytes(b"GG"), "has 2 bytes", "site.yml"),
    ("active", lambda h: h.switcher.stop(), "no service is active", "llamarig switch"),
    ("active", lambda h: spec_file(h).unlink(), "alpha is active and has no spec", "playbooks/site.yml"),
    ("active", lambda h: h.units.disable("alpha"), "alpha is active, but nothing starts", "playbooks/site.yml"),
    ("active", lambda h: h.units.enable("beta"), "but alpha, beta starts with the host", "playbooks/site.yml"),
    ("units", lambda h: h.units.crash("alpha"), "llama-alpha.service is failed (failed, exit-code)", "llamarig logs"),
    ("units", add_stray, "running beside alpha: beta", "playbooks/site.yml"),
    ("units", lambda h: h.state.write(State()), "running although nothing is active: alpha", "llamarig stop"),
    ("spec-in-use", change_spec, "alpha does not run with its present spec", "playbooks/site.yml"),
    ("spec-in-use", lambda h: h.units.stop("alpha"), "alpha does not run with its present spec", "playbooks/site.yml"),
    ("health", lambda h: h.units.stop("alpha"), "alpha at http://127.0.0.1:8080 is down", "llamarig logs alpha"),
    ("health", lambda h: h.faults.update(alpha=Fault.NEVER_LOADS), "is loading", "llamarig logs alpha --follow"),
    ("answer", lambda h: h.faults.update(alpha=Fault.GARBAGE), "one token over and over", "llamarig logs alpha"),
    (
        "answer",
        lambda h: h.units.stop("alpha"),
        "its container does not run",
        "llamarig logs alpha",
    ),
]


def test_a_host_that_serves_passes_every_check(host: Host) -> None:
    results = list(examine(box(host)))
    assert [item.name for item in results] == NAMES
    assert [(item.name, item.message) for item in results if item.status is not Status.OK or item.remedy] == []


@pytest.mark.parametrize(("name", "break_it", "message", "remedy"), FAILURES)
def test_a_fault_fails_its_check_with_a_remedy(
    host: Host, name: str, break_it: Break, message: str, remedy: str
) -> None:
    break_it(host)
    found = result(host, name)
    assert found.status is Status.FAIL
    assert message in found.message
    assert remedy in found.remedy


def test_a_unit_that_was_restarted_is_a_warning(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    state = host.units.state("alpha")
    monkeypatch.setattr(host.units, "state", lambda _: replace(state, restarts=3))
    found = result(host, "units")
    assert (found.status, found.message) == (Status.WARN, "llama-alpha.service was restarted 3 times")
    assert found.remedy == "llamarig logs alpha"


def test_a_switch_that_was_cut_off_is_a_warning(host: Host) -> None:
    host.state.write(State("alpha", "beta"))
    found = result(host, "active")
    assert found.status is Status.WARN
    assert "a switch to beta is under way or was cut off" in found.message


def test_little_room_is_a_warning_that_names_each_file_system_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    below(host.root, "/var/lib/docker").mkdir(parents=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 50, 0, 1 << 30))
    found = result(host, "space")
    assert (found.status, found.message) == (Status.WARN, "/ has 1.0 GiB free")
    assert found.remedy


def test_a_host_without_services_is_healthy(host: Host) -> None:
    forget_all(host)
    results = list(examine(box(host)))
    assert [(item.name, item.message) for item in results if item.status is not Status.OK] == []
    assert "runs no service" in next(item.message for item in results if item.name == "active")


@pytest.mark.parametrize("name", NAMES)
def test_a_check_that_breaks_is_a_failed_check_and_the_others_go_on(
    host: Host, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    broken = [name_of(check) for check in CHECKS].index(name)

    def breaks(_: Box) -> CheckResult:
        raise OSError("input/output error")

    breaks.__name__ = CHECKS[broken].__name__
    monkeypatch.setattr(doctor, "CHECKS", (*CHECKS[:broken], breaks, *CHECKS[broken + 1 :]))
    results = list(examine(box(host)))
    assert [item.name for item in results] == NAMES
    (failed,) = [item for item in results if item.status is Status.FAIL]
    assert (failed.name, failed.message) == (name, "the check itself failed: input/output error")
    assert failed.remedy == "llamarig status"


def test_every_check_says_what_holds_and_is_named_after_it() -> None:
    names = [name_of(check) for check in CHECKS]
    assert len(names) == len(set(names))
    assert [name for name in names if name in NAMES] == NAMES
    assert all(check.__doc__ for check in CHECKS)


def name_of(check: Check) -> str:
    return check.__name__.removeprefix("check_").replace("_", "-")


def test_a_warning_leaves_a_host_healthy_and_is_counted(host: Host) -> None:
    (host.root / "run/systemd/timesync/synchronized").unlink()
    said = verdict(box(host), list(examine(box(host))))
    assert (said["healthy"], said["warnings"]) == (True, 1)
    host.units.crash("alpha")
    said = verdict(box(host), list(examine(box(host))))
    assert (said["healthy"], said["warnings"]) == (False, 1)


def test_unreadable_specs_fail_every_check_that_needs_them_and_end_none(host: Host) -> None:
    spec_file(host).write_text("{", encoding="utf-8")
    results = list(examine(box(host)))
    assert [item.name for item in results] == NAMES
    assert all("cannot be read" in item.message for item in results if item.status is Status.FAIL)
