from __future__ import annotations

from dataclasses import replace

import pytest

from llamarig import __version__
from llamarig.config import paths
from llamarig.daemon.state import State
from llamarig.errors import ExitCode
from tests.support import below
from tests.unit.cli.conftest import Shell
from tests.unit.daemon.fakes import Fault

UNKNOWN = [("plan", "gamma"), ("logs", "gamma"), ("switch", "gamma")]


def forget_all(shell: Shell) -> None:
    for path in below(shell.host.root, paths.SPECS).iterdir():
        path.unlink()


def damage(shell: Shell) -> None:
    below(shell.host.root, f"{paths.SPECS}/alpha.json").write_text("{", encoding="utf-8")


def test_list_stars_the_active_service(shell: Shell) -> None:
    shell("switch", "beta")
    lines = shell("list").stdout.splitlines()
    assert lines[0].split() == ["SERVICE", "PROFILE", "STRATEGY", "CONTEXT", "URL"]
    assert lines[1].split() == ["alpha", "small", "cpu", "4096", "http://127.0.0.1:8080"]
    assert lines[2].split() == ["*", "beta", "small", "cpu", "4096", "http://127.0.0.1:8090"]


def test_list_as_json(shell: Shell) -> None:
    shell("switch", "beta")
    services = shell.json("list")["data"]["services"]
    assert [(item["service"], item["active"]) for item in services] == [("alpha", False), ("beta", True)]
    assert services[0]["description"] == "a small one"


def test_list_of_a_host_without_services_says_so(shell: Shell) -> None:
    forget_all(shell)
    assert shell("list").stdout == "this host runs no service\n"
    assert shell.json("list")["data"] == {"services": []}


def test_status_says_what_serves(shell: Shell) -> None:
    shell("switch", "alpha")
    result = shell("status")
    assert result.exit_code == ExitCode.OK
    assert "active:  alpha" in result.stdout
    assert "health:  ok at http://127.0.0.1:8080" in result.stdout
    data = shell.json("status")["data"]
    assert (data["active"], data["health"], data["unit"]["active"]) == ("alpha", "ok", "active")


def test_status_says_that_nothing_serves(shell: Shell) -> None:
    assert shell("status").stdout == "active:  none\n"
    assert shell.json("status")["data"] == {"active": None, "switching_to": None, "unit": None, "health": None}


def test_status_says_which_switch_is_under_way(shell: Shell) -> None:
    shell("switch", "alpha")
    shell.host.state.write(State("alpha", "beta"))
    assert "switch:  to beta is under way" in shell("status").stdout
    assert shell.json("status")["data"]["switching_to"] == "beta"


def test_version_says_which_release_and_python(shell: Shell) -> None:
    assert shell("version").stdout.startswith(f"llamarig {__version__} (release none: a checkout, Python 3.")
    data = shell.json("version")["data"]
    assert (data["version"], data["release"]) == (__version__, None)


def test_doctor_of_a_host_that_serves_is_healthy(shell: Shell) -> None:
    shell("switch", "alpha")
    result = shell("doctor")
    assert result.exit_code == ExitCode.OK
    assert "ok    health: alpha at http://127.0.0.1:8080" in result.stdout
    assert result.stdout.endswith("\nhealthy\n")
    data = shell.json("doctor")["data"]
    assert (data["healthy"], data["active"], data["url"]) == (True, "alpha", "http://127.0.0.1:8080")


def test_doctor_of_a_host_that_fails_says_the_remedy_and_exits_unhealthy(shell: Shell) -> None:
    shell("switch", "alpha")
    shell.host.faults["alpha"] = Fault.GARBAGE
    result = shell("doctor")
    assert result.exit_code == ExitCode.UNHEALTHY
    assert "fail  answer: alpha: the server answers one token over and over\n      remedy: llamarig logs alpha" in (
        result.stdout
    )
    assert shell("doctor", "--json").exit_code == ExitCode.UNHEALTHY
    failed = [item for item in shell.json("doctor")["data"]["checks"] if item["status"] == "fail"]
    assert [item["name"] for item in failed] == ["answer"]


@pytest.mark.parametrize(("restarted", "said"), [(False, "1 warning"), (True, "2 warnings")])
def test_doctor_of_a_host_with_warnings_says_how_many_and_exits_with_a_code_of_its_own(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, restarted: bool, said: str
) -> None:
    shell("switch", "alpha")
    below(shell.host.root, "/run/systemd/timesync/synchronized").unlink()
    state = shell.host.units.state
    monkeypatch.setattr(shell.host.units, "state", lambda name: replace(state(name), restarts=int(restarted)))
    result = shell("doctor")
    assert result.exit_code == ExitCode.WARNINGS
    assert "warn  clock: " in result.stdout
    assert result.stdout.endswith(f"\nhealthy, with {said}\n")
    assert shell("doctor", "--json").exit_code == ExitCode.WARNINGS
    data = shell.json("doctor")["data"]
    assert (data["healthy"], data["warnings"]) == (True, 1 + restarted)


def test_doctor_of_a_host_with_a_damaged_spec_ends_with_a_verdict(shell: Shell) -> None:
    damage(shell)
    assert shell("doctor").exit_code == ExitCode.UNHEALTHY
    assert shell.json("doctor")["data"]["healthy"] is False


def test_history_shows_how_switches_ended(shell: Shell) -> None:
    shell("switch", "alpha")
    shell.host.faults["beta"] = Fault.EXITS
    shell("switch", "beta")
    lines = shell("history").stdout.splitlines()
    assert lines[0].split()[:5] == ["TIME", "(UTC)", "WHAT", "SERVICE", "BEFORE"]
    assert lines[1].split()[2:6] == ["switch", "alpha", "-", "ok"]
    assert lines[2].split()[2:6] == ["switch", "beta", "alpha", "failed"]
    assert "beta did not start" in lines[2]
    assert [event["outcome"] for event in shell.json("history")["data"]["events"]] == ["ok", "failed"]


def test_history_shows_as_many_events_as_were_asked_for(shell: Shell) -> None:
    for service in ("alpha", "beta", "alpha"):
        shell("switch", service)
    assert [e["service"] for e in shell.json("history", "-n", "2")["data"]["events"]] == ["beta", "alpha"]
    assert shell.json("history", "-n", "0")["data"]["events"] == []


def test_history_of_a_new_host_says_that_nothing_happened(shell: Shell) -> None:
    assert shell("history").stdout == "nothing happened yet\n"
    assert shell.json("history")["data"] == {"events": []}


def test_logs_are_the_active_services_and_readable(shell: Shell) -> None:
    shell("switch", "alpha")
    assert shell("logs").stdout == "model loaded\nplain words\n"
    assert shell.json("logs")["data"] == {"service": "alpha", "lines": ["model loaded", "plain words"]}


def test_raw_logs_are_the_engines_own_lines(shell: Shell) -> None:
    assert shell("logs", "beta", "--raw").stdout.startswith('{"type": "log"')


def test_logs_without_a_service_to_show_say_how_to_name_one(shell: Shell) -> None:
    result = shell("logs")
    assert result.exit_code == ExitCode.FAILED
    assert "no service is active" in result.stderr
    assert "remedy: name one: llamarig logs <service>" in result.stderr


@pytest.mark.parametrize("words", UNKNOWN, ids=" ".join)
def test_an_unknown_service_is_not_found(shell: Shell, words: tuple[str, ...]) -> None:
    result = shell(*words)
    assert result.exit_code == ExitCode.NOT_FOUND
    assert result.stdout == ""
    assert "this host runs no service 'gamma'" in result.stderr
    assert "remedy: choose one of: alpha, beta" in result.stderr
    error = shell.json(*words)["error"]
    assert (error["code"], error["remedy"]) == ("notfound", "choose one of: alpha, beta")
    assert shell(*words, "--json").exit_code == ExitCode.NOT_FOUND


@pytest.mark.parametrize("words", [("list",), ("plan",), ("plan", "alpha"), ("status",)], ids=" ".join)
def test_a_damaged_spec_is_told_in_a_sentence(shell: Shell, words: tuple[str, ...]) -> None:
    shell("switch", "alpha")
    damage(shell)
    result = shell(*words)
    assert result.exit_code == ExitCode.FAILED
    assert "cannot be read" in result.stderr
    assert "remedy: run playbooks/site.yml" in result.stderr
    assert "cannot be read" in shell.json(*words)["error"]["message"]
