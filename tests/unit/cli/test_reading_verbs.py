from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from llamarig import __version__
from llamarig.cli.services import label
from llamarig.config import paths
from llamarig.daemon.state import GivenUp, State
from llamarig.daemon.supervisor import View
from llamarig.errors import ExitCode
from tests.support import below, make_spec
from tests.unit.cli.conftest import SMALL, Shell
from tests.unit.daemon.fakes import Fault

UNKNOWN = [("plan", "delta"), ("logs", "delta"), ("switch", "delta"), ("stop", "delta")]


def forget_all(shell: Shell) -> None:
    for path in below(shell.host.root, paths.SPECS).iterdir():
        path.unlink()


def damage(shell: Shell) -> None:
    below(shell.host.root, f"{paths.SPECS}/alpha.json").write_text("{", encoding="utf-8")


def test_list_stars_what_is_active_and_says_what_people_choose_by(shell: Shell) -> None:
    shell("switch", "beta")
    shell("switch", "gamma")
    lines = shell("list").stdout.splitlines()
    assert lines[0].split() == ["SERVICE", "MODEL", "CONTEXT", "SPEED", "URL"]
    assert [part.strip() for part in lines[1].split("  ") if part.strip()] == [
        "alpha",
        "Alpha 7B",
        "4K",
        "~120 tokens/s",
        "http://127.0.0.1:8080",
        "default",
    ]
    assert lines[2].split() == ["*", "beta", "small", "4K", "-", "http://127.0.0.1:8080"]
    assert lines[3].split() == ["*", "gamma", "small", "4K", "-", "http://127.0.0.1:8090"]


def test_list_leaves_out_what_is_for_benchmarks_unless_it_is_asked_for_or_serves(shell: Shell) -> None:
    shell.host.provision(make_spec("bench-alpha", memory=SMALL, bench=True))
    assert "bench-alpha" not in shell("list").stdout
    assert shell("list").stdout.endswith("and 1 for benchmarks: llamarig list --all\n")
    assert "bench-alpha" in shell("list", "--all").stdout
    data = shell.json("list")["data"]
    assert (len(data["services"]), data["hidden"]) == (3, 1)
    shell("switch", "bench-alpha")
    assert "*  bench-alpha" in shell("list").stdout


def test_list_as_json(shell: Shell) -> None:
    shell("switch", "beta")
    services = shell.json("list")["data"]["services"]
    assert [(item["service"], item["active"]) for item in services] == [
        ("alpha", False),
        ("beta", True),
        ("gamma", False),
    ]
    assert services[0]["description"] == "a small one"
    assert (services[0]["context"], services[0]["context_label"], services[0]["default"]) == (4096, "4K", True)


def test_list_works_without_the_daemon(shell: Shell) -> None:
    shell("switch", "beta")
    shell.daemon.kill()
    assert "*  beta" in shell("list").stdout


def test_list_of_another_host_is_its_daemons(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    service = shell.json("list")["data"]["services"][0]
    other = service | {"service": "far", "name": "Far 70B", "is_bench": False, "context": 131_072, "active": True}
    monkeypatch.setenv("LLAMARIG_URL", "http://gpu01.example.com:8081")
    monkeypatch.setattr("llamarig.runtime.management.Management.get", lambda *_: {"services": [other]})
    lines = shell("list").stdout.splitlines()
    assert [part.strip() for part in lines[1].split("  ") if part.strip()][:4] == ["*", "far", "Far 70B", "128K"]
    assert set(shell.json("list")["data"]["services"][0]) == set(service)


def test_list_of_a_host_without_services_says_so(shell: Shell) -> None:
    forget_all(shell)
    assert shell("list").stdout == "this host runs no service\n"
    assert shell.json("list")["data"] == {"services": [], "hidden": 0}


@pytest.mark.parametrize(
    ("tokens", "said"),
    [(None, "-"), (512, "512"), (4096, "4K"), (100_000, "98K"), (131_072, "128K"), (262_144, "256K"), (1 << 20, "1M")],
)
def test_a_context_is_said_as_people_do(tokens: int | None, said: str) -> None:
    assert label(tokens) == said


def test_status_says_what_serves(shell: Shell) -> None:
    shell("switch", "alpha")
    shell("switch", "gamma")
    shell.host.door.in_flight[8090] = 20
    result = shell("status")
    assert result.exit_code == ExitCode.OK
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["SERVICE", "HEALTH", "IN", "FLIGHT", "RESTARTS", "SINCE", "(UTC)", "URL"]
    assert lines[1].split()[:2] == ["gamma", "ok"]
    assert int(lines[1].split()[2]) > 0
    assert lines[2].split()[0] == "alpha"
    assert lines[2].endswith("http://127.0.0.1:8080  default")
    data = shell.json("status")["data"]
    assert (data["daemon"], data["model"], [each["health"] for each in data["active"]]) == (True, "gamma", ["ok", "ok"])


def test_status_says_that_nothing_serves_and_why(shell: Shell) -> None:
    assert shell("status").stdout == "nothing serves\n"
    shell("switch", "alpha")
    shell("stop")
    assert shell("status").stdout == "nothing serves: it was stopped on purpose\n"
    shell.host.state.write(State(given_up={"alpha": GivenUp(3600.0, "it ended 5 times")}))
    assert "given up: alpha, 1970-01-01 01:00:00: it ended 5 times\n" in shell("status").stdout


def test_status_says_what_is_wrong(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("switch", "alpha")
    view = {"alpha": View("hung", "no token for 130 s")}
    monkeypatch.setattr(shell.daemon.board._views, "view", lambda: view)
    monkeypatch.setattr(shell.daemon.board, "_warnings", lambda: ["the API listens on no port"])
    text = shell("status").stdout
    assert "alpha is hung: no token for 130 s\nwarning: the API listens on no port\n" in text


def test_status_says_how_services_stay(shell: Shell) -> None:
    policy = {
        "default_service": "alpha",
        "services": {
            "alpha": {"pinned": True, "idle_seconds": None},
            "gamma": {"pinned": False, "idle_seconds": 1800},
        },
    }
    host = {"schema_version": 1, "default_service": "alpha", "policy": policy}
    below(shell.host.root, paths.HOST_FILE).write_text(json.dumps(host), encoding="utf-8")
    shell("switch", "alpha")
    shell("switch", "gamma")
    lines = shell("status").stdout.splitlines()
    assert lines[1].endswith("leaves after 30 min without a request")
    assert lines[2].endswith("default, pinned")
    shell.host.provision(make_spec("gamma", port=8090, memory=SMALL, memory_mib=2048))
    assert shell("status").stdout.splitlines()[1].endswith("without a request, not with its present spec")


def test_status_without_the_daemon_says_what_the_units_do(shell: Shell) -> None:
    shell("switch", "alpha")
    shell("switch", "gamma")
    shell.daemon.kill()
    shell.host.units.crash("gamma")
    shell.host.units.units["stranger"] = shell.host.units.units["alpha"]
    result = shell("status")
    assert result.exit_code == ExitCode.DAEMON_GONE
    lines = result.stdout.splitlines()
    assert lines[0] == "llamarigd does not answer: it does not run"
    assert lines[2].split()[:3] == ["gamma", "activating", "(auto-restart)"]
    assert lines[3].split()[:4] == ["alpha", "active", "(running)", "ok"]
    assert lines[-1] == "remedy: systemctl status llamarigd"
    assert len(lines) == 5
    data = shell.json("status")["data"]
    assert (data["daemon"], data["model"]) == (False, "gamma")
    assert [(each["service"], each["should_serve"]) for each in data["active"]] == [("gamma", True), ("alpha", True)]


def test_status_without_daemon_and_units_says_so(shell: Shell) -> None:
    shell.daemon.kill()
    assert "no unit of a service runs\n" in shell("status").stdout


def test_version_says_which_release_and_python(shell: Shell) -> None:
    assert shell("version").stdout.startswith(f"llamarig {__version__} (release none: a checkout, Python 3.")
    data = shell.json("version")["data"]
    assert (data["version"], data["release"]) == (__version__, None)


def test_doctor_of_a_host_that_serves_is_healthy(shell: Shell) -> None:
    shell("switch", "alpha")
    result = shell("doctor")
    assert result.exit_code == ExitCode.OK
    assert "ok    daemon: llamarigd 0.1.0\n" in result.stdout
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
    assert "cli  beta did not come up" in lines[2]
    assert [event["outcome"] for event in shell.json("history")["data"]["events"]] == ["ok", "failed"]


def test_history_says_what_each_phase_took(shell: Shell) -> None:
    shell("switch", "alpha")
    assert len(shell("history").stdout.splitlines()) == 2
    lines = shell("history", "--phases").stdout.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("    ")
    assert {"validate 0.0 s", "load 0.0 s", "completion 0.0 s"} <= set(lines[2].strip().split(", "))


def test_history_works_without_the_daemon(shell: Shell) -> None:
    shell("switch", "alpha")
    said = shell("history").stdout
    shell.daemon.kill()
    assert shell("history").stdout == said


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


def test_logs_are_followed_and_go_on_in_the_journal_when_the_daemon_ends(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = []
    monkeypatch.setattr(
        "llamarig.cli.follow.follow_log", lambda service, lines, show: followed.append((service, lines, show("a")))
    )
    assert shell("logs", "beta", "--follow").stdout == "model loaded\nplain words\n"
    assert followed == [("beta", 0, "a")]
    shell.daemon.kill()
    shell("logs", "beta", "--follow", "-n", "7")
    assert followed[1:] == [("beta", 7, "a")]


def test_logs_without_the_daemon_are_the_journals(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("switch", "alpha")
    shell.daemon.kill()
    assert shell("logs").stdout == "model loaded\nplain words\n"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = shell("logs", "beta")
    assert result.stdout == "model loaded\nplain words\n"
    assert "this user may see no log lines: sudo llamarig logs beta" in result.stderr
    assert shell("logs", "delta").exit_code == ExitCode.NOT_FOUND


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
    assert "this host runs no service 'delta'" in result.stderr
    assert "remedy: choose one of: alpha, beta, gamma" in result.stderr
    error = shell.json(*words)["error"]
    assert (error["code"], error["remedy"]) == ("notfound", "choose one of: alpha, beta, gamma")
    assert shell(*words, "--json").exit_code == ExitCode.NOT_FOUND


@pytest.mark.parametrize("words", [("list",), ("plan",), ("plan", "alpha")], ids=" ".join)
def test_a_damaged_spec_is_told_in_a_sentence(shell: Shell, words: tuple[str, ...]) -> None:
    shell("switch", "alpha")
    damage(shell)
    result = shell(*words)
    assert result.exit_code == ExitCode.FAILED
    assert "cannot be read" in result.stderr
    assert "remedy: run playbooks/site.yml" in result.stderr
    assert "cannot be read" in shell.json(*words)["error"]["message"]
