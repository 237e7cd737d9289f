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
from llamarig.config.spec import HostMemory, Memory
from llamarig.daemon.request import Kind, Origin
from llamarig.daemon.state import GivenUp, State, Switching
from llamarig.errors import DaemonGoneError
from llamarig.runtime.door import DoorError, Traffic
from llamarig.runtime.exporter import ExporterError
from llamarig.runtime.specs import SpecStore
from tests.support import below, make_spec
from tests.unit.checks.conftest import FakeDaemon
from tests.unit.daemon.fakes import Fault, Host

SMALL = Memory([], HostMemory(1024, 100, 10, 10, 10), "header", 0, 0, [])
Break = Callable[[Host], object]
# Of a host without cards; what else there is concerns cards, or a firewall, and is left out.
NAMES = [
    *("clock", "reboot", "specs", "models", "space"),
    *("daemon", "active", "given-up", "units", "spec-in-use", "door", "health", "answer"),
]


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
    """A host that serves alpha; beta takes turns with it, gamma has a port of its own."""
    services = (make_spec("alpha"), make_spec("beta"), make_spec("gamma", port=8090))
    result = Host(tmp_path, *services, default="alpha")
    result.switch("alpha")
    (tmp_path / "run/systemd/timesync").mkdir(parents=True)
    (tmp_path / "run/systemd/timesync/synchronized").touch()
    return result


def box(host: Host, daemon: FakeDaemon | None = None) -> Box:
    return Box(SpecStore(host.root), host.state, host.units, host.engine, daemon or FakeDaemon(), host.door)


def result(host: Host, name: str, daemon: FakeDaemon | None = None) -> CheckResult:
    return next(item for item in examine(box(host, daemon)) if item.name == name)


def spec_file(host: Host, service: str = "alpha") -> Path:
    return below(host.root, f"{paths.SPECS}/{service}.json")


def edit(host: Host) -> None:
    data = json.loads(spec_file(host).read_text(encoding="utf-8"))
    spec_file(host).write_text(json.dumps(data | {"memory_mib": 9000}), encoding="utf-8")


def change_spec(host: Host) -> None:
    host.provision(make_spec("alpha", memory_mib=2048))


def start_another(host: Host) -> None:
    """A unit is running with a spec that is neither the present nor the active one."""
    host.units.units["alpha"].spec = make_spec("alpha", memory_mib=4096)
    running = json.dumps(make_spec("alpha", memory_mib=4096).to_dict())
    below(host.root, f"{paths.RUNNING}/alpha.json").write_text(running, encoding="utf-8")


def add_stray(host: Host) -> None:
    host.gate.open("gamma")
    host.units.start("gamma")


def forget_all(host: Host) -> None:
    host.perform(Kind.STOP)
    for path in below(host.root, paths.SPECS).iterdir():
        path.unlink()


def stop(host: Host) -> None:
    host.perform(Kind.STOP, origin=Origin.CLI)


def lose(host: Host) -> None:
    host.state.write(State())


FAILURES: list[tuple[str, Break, str, str]] = [
    ("specs", lambda h: spec_file(h).write_text("{", encoding="utf-8"), "cannot be read", "playbooks/site.yml"),
    ("specs", edit, "edited by hand: alpha", "host_vars"),
    ("models", lambda h: below(h.root, "/srv/llamarig/models/beta.gguf").unlink(), "beta.gguf is missing", "site.yml"),
    ("models", lambda h: below(h.root, "/srv/llamarig/models/beta.gguf").write_bytes(b"GG"), "has 2 bytes", "site.yml"),
    ("active", lose, "no service is active", "llamarig switch"),
    ("active", lambda h: spec_file(h).unlink(), "alpha is active without a spec", "playbooks/site.yml"),
    (
        "units",
        lambda h: h.units.crash("alpha"),
        "llama-alpha.service is activating (auto-restart, exit-code)",
        "llamarig logs",
    ),
    ("units", add_stray, "running beside alpha: gamma", "llamarig stop gamma"),
    ("units", lose, "running although nothing is active: alpha", "llamarig stop"),
    ("spec-in-use", change_spec, "alpha serves with its spec of before", "llamarig history"),
    ("spec-in-use", start_another, "alpha does not run with its present spec", "playbooks/site.yml"),
    ("spec-in-use", lambda h: h.units.stop("alpha"), "alpha does not run with its present spec", "playbooks/site.yml"),
    ("door", lambda h: h.door.close(8080), "port 8080 leads nowhere, not to alpha", "restart llamarigd"),
    ("door", lambda h: h.door.open(8080, "beta"), "port 8080 leads to beta, not to alpha", "restart llamarigd"),
    ("health", lambda h: h.units.stop("alpha"), "alpha at http://127.0.0.1:8080 is down", "llamarig logs alpha"),
    ("health", lambda h: h.faults.update(alpha=Fault.NEVER_LOADS), "is loading", "llamarig logs alpha --follow"),
    ("answer", lambda h: h.faults.update(alpha=Fault.GARBAGE), "one token over and over", "llamarig logs alpha"),
    ("answer", lambda h: h.faults.update(alpha=Fault.HUNG), "no completion within 60 s", "llamarig logs alpha"),
    ("answer", lambda h: h.units.stop("alpha"), "alpha was not asked: it does not run", "llamarig logs alpha"),
    (
        "answer",
        lambda h: h.door.close(8080),
        "alpha was not asked: it does not run, or its port",
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
    host.state.write(State(switching=Switching("beta", "f" * 64, ("alpha",))))
    found = result(host, "active")
    assert found.status is Status.WARN
    assert "a switch to beta is under way or was cut off" in found.message


def test_during_a_switch_what_comes_and_what_leaves_is_no_stray_and_their_port_may_be_closed(host: Host) -> None:
    state = host.state.read()
    host.state.write(replace(state, switching=Switching("beta", "f" * 64, ("alpha",))))
    host.door.close(8080)
    host.units.start("beta")
    assert result(host, "units").status is Status.OK
    assert result(host, "door").status is Status.OK


def test_a_host_that_was_stopped_on_purpose_is_a_warning_that_says_by_whom(host: Host) -> None:
    stop(host)
    found = result(host, "active")
    assert (found.status, found.remedy) == (Status.WARN, "llamarig switch <service>")
    assert found.message == "nothing serves: stopped by cli on 1970-01-01 00:16 UTC"
    assert result(host, "units").message == "nothing runs"
    assert result(host, "answer").message == "nothing is active"
    below(host.root, f"{paths.DAEMON_STATE}/history.jsonl").unlink()
    assert result(host, "active").message == "nothing serves: stopped by somebody"


def test_a_service_that_was_given_up_is_a_warning_with_the_reason(host: Host) -> None:
    state = host.state.read()
    host.state.write(replace(state, given_up={"beta": GivenUp(1.0, "it ended 5 times in 15 minutes")}))
    found = result(host, "given-up")
    assert (found.status, found.message) == (Status.WARN, "beta: it ended 5 times in 15 minutes")
    assert found.remedy == "llamarig logs beta; once it is mended, llamarig switch beta"


def test_a_dead_daemon_fails_its_check_and_the_others_go_on(host: Host) -> None:
    daemon = FakeDaemon()
    daemon.trouble = DaemonGoneError("llamarigd does not answer: it does not run", "systemctl status llamarigd")
    results = list(examine(box(host, daemon)))
    (failed,) = [item for item in results if item.status is Status.FAIL]
    assert (failed.name, failed.remedy) == ("daemon", "systemctl status llamarigd")
    assert failed.message == "llamarigd does not answer: it does not run: what serves goes on, and nothing switches"
    assert [item.name for item in results] == NAMES


@pytest.mark.parametrize(
    ("said", "status", "word"),
    [
        ({"ok": True, "stuck_seconds": 1.5}, Status.OK, "answers"),
        ({"ok": True, "stuck_seconds": 31.0}, Status.WARN, "has not answered llamarig-exporter for 31 s"),
        (ExporterError("it does not answer at 127.0.0.1:9836"), Status.WARN, "nobody measures this host: it does not"),
    ],
)
def test_an_exporter_is_looked_at_and_serving_goes_on_without(
    host: Host, said: dict[str, object] | ExporterError, status: Status, word: str
) -> None:
    def health(_: Path) -> dict[str, object]:
        if isinstance(said, ExporterError):
            raise said
        return said

    results = list(examine(replace(box(host), exporter=health)))
    found = next(item for item in results if item.name == "exporter")
    assert (found.status, word in found.message) == (status, True)
    assert bool(found.remedy) == (status is Status.WARN)
    assert verdict(box(host), results)["healthy"]


def test_a_daemon_of_another_release_than_the_deployed_one_is_a_warning(host: Host) -> None:
    daemon = FakeDaemon()
    link = below(host.root, paths.CURRENT)
    link.parent.mkdir(parents=True)
    link.symlink_to("releases/0123456789ab")
    daemon.agent["release"] = "0123456789ab"
    found = result(host, "daemon", daemon)
    assert (found.status, found.message) == (Status.OK, "llamarigd 0.1.0, release 0123456789ab")
    daemon.agent["release"] = "ba9876543210"
    found = result(host, "daemon", daemon)
    assert found.status is Status.WARN
    assert found.message == "llamarigd is still of release ba9876543210, 0123456789ab is deployed"
    assert "systemctl restart llamarigd" in found.remedy


@pytest.mark.parametrize(("cause", "status"), [(OSError("refused"), Status.FAIL), (PermissionError(), Status.OK)])
def test_a_door_that_does_not_answer_fails_its_check_unless_this_user_may_not_ask_it(
    host: Host, monkeypatch: pytest.MonkeyPatch, cause: OSError, status: Status
) -> None:
    def silent(_: int) -> Traffic:
        raise DoorError("the door does not answer", "systemctl status llamarig-door") from cause

    monkeypatch.setattr(host.door, "traffic", silent)
    assert result(host, "door").status is status


def test_several_active_services_are_all_looked_at(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    without = tuple(check for check in CHECKS if name_of(check) != "memory-plan")
    monkeypatch.setattr(doctor, "CHECKS", without)
    host.provision(make_spec("alpha", memory=SMALL), make_spec("gamma", port=8090, memory=SMALL))
    host.switch("alpha")
    host.switch("gamma")
    results = {item.name: item for item in examine(box(host))}
    assert all(item.status is Status.OK for item in results.values())
    assert results["active"].message == "gamma, alpha"
    assert results["door"].message == "port 8090 leads to gamma, port 8080 leads to alpha"
    assert "gamma 'gamma answers" in results["answer"].message
    said = verdict(box(host), list(results.values()))
    assert (said["active"], said["url"]) == ("gamma", "http://127.0.0.1:8090")
    assert [each["service"] for each in said["services"]] == ["gamma", "alpha"]
    harms: list[tuple[str, Callable[[], object]]] = [
        ("health", lambda: host.faults.update(alpha=Fault.NEVER_LOADS)),
        ("answer", lambda: host.faults.update(alpha=Fault.GARBAGE)),
        ("units", lambda: host.units.crash("alpha")),
    ]
    for name, harm in harms:
        harm()
        found = result(host, name)
        assert (found.status, "alpha" in found.message) == (Status.FAIL, True), name


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
