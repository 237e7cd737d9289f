from __future__ import annotations

import os
import signal

import pytest

from llamarig.config import paths
from llamarig.daemon.state import State
from llamarig.errors import ExitCode
from tests.support import below
from tests.unit.cli.conftest import Shell
from tests.unit.daemon.fakes import Fault

CHANGING = [("switch", "alpha"), ("reconcile",), ("stop",)]


def test_switch_says_what_serves_and_what_it_answers(shell: Shell) -> None:
    result = shell("switch", "alpha")
    assert result.exit_code == ExitCode.OK
    assert result.stdout.startswith("alpha serves at http://127.0.0.1:8080")
    assert "it answers: 'alpha answers" in result.stdout
    assert "starting alpha" in result.stderr


def test_switch_as_json_is_one_envelope_and_no_progress(shell: Shell) -> None:
    result = shell("switch", "alpha", "--json")
    assert result.stderr == ""
    data = shell.json("switch", "beta")["data"]
    assert (data["active"], data["previous"], data["changed"]) == ("beta", "alpha", True)
    assert set(data["phases"]) >= {"stop", "load", "completion"}


def test_a_failed_switch_says_why_what_serves_and_the_last_words_of_the_engine(shell: Shell) -> None:
    shell("switch", "alpha")
    shell.host.faults["beta"] = Fault.EXITS
    result = shell("switch", "beta")
    assert result.exit_code == ExitCode.FAILED
    assert "llamarig switch: beta did not start" in result.stderr
    assert "alpha serves again" in result.stderr
    assert "last lines of its log:\n    beta says goodbye" in result.stderr
    assert "remedy: llamarig logs beta" in result.stderr


def test_a_failed_switch_as_json_says_what_serves(shell: Shell) -> None:
    shell("switch", "alpha")
    shell.host.faults["beta"] = Fault.EXITS
    error = shell.json("switch", "beta")["error"]
    assert (error["code"], error["serving"], error["log_lines"]) == ("switch", "alpha", ["beta says goodbye"])
    assert shell("switch", "beta", "--json").exit_code == ExitCode.FAILED


@pytest.mark.parametrize("words", CHANGING, ids=" ".join)
def test_a_second_command_is_refused_while_one_is_at_work(shell: Shell, words: tuple[str, ...]) -> None:
    with shell.host.state.lock():
        result = shell(*words)
        assert result.exit_code == ExitCode.BUSY
        assert "remedy: wait for it: llamarig status" in result.stderr
        assert shell.json(*words)["error"]["code"] == "busy"


@pytest.mark.parametrize("words", CHANGING, ids=" ".join)
def test_only_root_may_change_what_serves(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = shell(*words)
    assert result.exit_code == ExitCode.NOT_ALLOWED
    assert "remedy: sudo llamarig" in result.stderr
    assert shell.json(*words)["error"]["code"] == "notallowed"
    assert shell.host.units.changes == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_or_a_kill_goes_back_like_ctrl_c(shell: Shell, number: signal.Signals) -> None:
    shell("switch", "alpha")
    health = shell.host.engine.health

    def killed_while_beta_loads(spec: object) -> str:
        if getattr(spec, "service", None) == "beta":
            signal.raise_signal(number)
        return health(spec)  # type: ignore[arg-type]

    shell.host.engine.health = killed_while_beta_loads  # type: ignore[method-assign]
    result = shell("switch", "beta")
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "interrupted by Ctrl-C; alpha serves again" in result.stderr
    assert shell.host.serving() == ["alpha"]


def test_reconcile_starts_the_default_service_and_then_has_nothing_to_do(shell: Shell) -> None:
    assert shell.json("reconcile")["data"]["changed"] is True
    assert shell.json("reconcile")["data"]["changed"] is False
    assert shell.host.serving() == ["alpha"]


def test_switch_check_says_what_would_happen_and_does_nothing(shell: Shell) -> None:
    assert shell("switch", "beta", "--check").stdout == "would switch to beta\n"
    assert shell.json("switch", "beta", "--check")["data"]["changed"] is True
    assert shell.host.units.changes == []


def test_reconcile_of_a_host_with_warnings_is_done(shell: Shell) -> None:
    below(shell.host.root, "/run/systemd/timesync/synchronized").unlink()
    assert shell("reconcile", "--json").exit_code == ExitCode.OK
    doctor = shell.json("reconcile")["data"]["doctor"]
    assert (doctor["healthy"], doctor["warnings"]) == (True, 1)


def test_reconcile_check_says_what_would_happen_and_does_nothing(shell: Shell) -> None:
    data = shell.json("reconcile", "--check")["data"]
    assert (data["changed"], data["message"]) == (True, "would start alpha")
    assert shell.host.units.changes == []


def test_reconcile_of_a_host_without_services_says_so(shell: Shell) -> None:
    for path in below(shell.host.root, paths.SPECS).iterdir():
        path.unlink()
    below(shell.host.root, paths.HOST_FILE).unlink()
    assert shell("reconcile").stdout == "this host runs no service\n"
    data = shell.json("reconcile")["data"]
    assert (data["active"], data["changed"], data["doctor"]["healthy"]) == (None, False, True)


def test_reconcile_with_a_damaged_host_file_is_told_in_a_sentence(shell: Shell) -> None:
    below(shell.host.root, paths.HOST_FILE).write_text("{", encoding="utf-8")
    result = shell("reconcile")
    assert result.exit_code == ExitCode.FAILED
    assert "host.json cannot be read" in result.stderr


def test_stop_says_how_to_start_again(shell: Shell) -> None:
    shell("switch", "alpha")
    assert shell("stop").stdout == "alpha is stopped; start it again with: llamarig switch alpha\n"
    assert shell.host.units.running() == []


def test_stop_of_nothing_is_no_error_and_no_change(shell: Shell) -> None:
    assert shell("stop").stdout == "nothing was active\n"
    assert shell.json("stop")["data"] == {"stopped": None, "changed": False}
    assert shell.host.state.read() == State()
