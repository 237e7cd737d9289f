from __future__ import annotations

import json
import os
import signal

import pytest

from llamarig.cli import waiting
from llamarig.config import paths
from llamarig.daemon.generation import GenerationStore
from llamarig.daemon.state import State
from llamarig.errors import ExitCode
from llamarig.runtime.connections import UnixConnection
from llamarig.runtime.management import Job
from tests.support import below, make_spec
from tests.unit.cli.conftest import SMALL, Shell, loading
from tests.unit.daemon.fakes import Fault


def under_way(shell: Shell, service: str) -> str:
    """Begin a switch that nobody waits for, and return its job once it loads."""
    name: str = shell.json("switch", service, "--no-wait")["data"]["job"]["id"]
    while shell.daemon.jobs.get(name).phase != "load":
        shell.daemon.jobs.wait(name, 0.01)
    return name


def interrupt_at(monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    """Let somebody type Ctrl-C when a job comes to a phase."""
    show = waiting.Showing.show

    def shown(self: waiting.Showing, job: Job) -> None:
        show(self, job)
        if job["phase"] == phase:
            raise KeyboardInterrupt

    monkeypatch.setattr(waiting.Showing, "show", shown)


def only_look(monkeypatch: pytest.MonkeyPatch, shell: Shell) -> None:
    """Be a user who may not open the socket for everything."""

    class Guarded(UnixConnection):
        def connect(self) -> None:
            if self.path == str(below(shell.host.root, paths.MANAGE_SOCKET)):
                raise PermissionError(13, "Permission denied")
            super().connect()

    monkeypatch.setattr("llamarig.runtime.management.UnixConnection", Guarded)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_switch_says_what_serves_and_what_it_answers(shell: Shell) -> None:
    result = shell("switch", "alpha")
    assert result.exit_code == ExitCode.OK
    assert result.stdout.startswith("alpha serves at http://127.0.0.1:8080")
    assert "it answers: 'alpha answers" in result.stdout
    assert "  completion 0.0 s\n" in result.stderr
    assert shell.host.serving() == ["alpha"]
    assert shell.daemon.asked == [("switch", {"model": "alpha", "now": False, "queue": False}, "cli")]


def test_switch_as_json_is_one_envelope_and_no_progress(shell: Shell) -> None:
    result = shell("switch", "alpha", "--json")
    assert result.stderr == ""
    data = shell.json("switch", "beta")["data"]
    assert (data["active"], data["left"], data["changed"]) == (["beta"], ["alpha"], True)
    assert set(data["phases"]) >= {"stop", "load", "completion"}
    assert (data["job"]["state"], data["job"]["kind"]) == ("succeeded", "switch")


def test_a_service_beside_those_that_serve_leaves_them_alone(shell: Shell) -> None:
    shell("switch", "alpha")
    assert shell.json("switch", "gamma")["data"]["left"] == []
    assert shell.host.serving() == ["alpha", "gamma"]


def test_a_switch_to_what_serves_is_no_change(shell: Shell) -> None:
    shell("switch", "alpha")
    assert shell("switch", "alpha").stdout.startswith("alpha is active already")
    assert shell.json("switch", "alpha")["data"]["changed"] is False


def test_a_failed_switch_says_why_what_serves_and_the_last_words_of_the_engine(shell: Shell) -> None:
    shell("switch", "alpha")
    shell.host.faults["beta"] = Fault.EXITS
    result = shell("switch", "beta")
    assert result.exit_code == ExitCode.FAILED
    assert "llamarig switch: beta did not come up" in result.stderr
    assert "alpha serves again" in result.stderr
    assert "last lines of its log:\n    beta says goodbye" in result.stderr
    assert "remedy: llamarig logs beta" in result.stderr


def test_a_failed_switch_as_json_says_what_serves(shell: Shell) -> None:
    shell("switch", "alpha")
    shell.host.faults["beta"] = Fault.EXITS
    error = shell.json("switch", "beta")["error"]
    assert (error["code"], error["serving"], error["log_lines"]) == ("switch", "alpha", ["beta says goodbye"])
    assert error["job"]["state"] == "failed"
    assert shell("switch", "beta", "--json").exit_code == ExitCode.FAILED


def test_a_second_switch_is_refused_or_waits_as_it_is_asked(shell: Shell) -> None:
    with loading(shell, "alpha") as done:
        first = under_way(shell, "alpha")
        refused = shell("switch", "beta")
        assert refused.exit_code == ExitCode.BUSY
        assert "a switch to 'alpha' is under way" in refused.stderr
        assert shell.json("switch", "beta")["error"]["code"] == "busy"
        second = shell("switch", "beta", "--queue", "--no-wait")
        assert "switch to beta, is queued; llamarig jobs --follow" in second.stdout
        assert "after that: switch to beta" in shell("status").stdout
        done()
    assert shell("jobs", "--follow", shell.daemon.jobs.all()[-1].id).stdout.startswith("beta serves at")
    assert shell.daemon.jobs.get(first).outcome is not None
    assert shell.host.serving() == ["beta"]


def test_who_may_not_manage_is_told_how_to(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    only_look(monkeypatch, shell)
    monkeypatch.setattr("sys.argv", ["llamarig", "switch", "alpha"])
    result = shell("switch", "alpha")
    assert result.exit_code == ExitCode.NOT_ALLOWED
    assert "remedy: sudo llamarig switch alpha; or join the group llamarig" in result.stderr
    assert shell.json("stop")["error"]["code"] == "notallowed"
    monkeypatch.setattr("sys.argv", ["llamarig"])
    assert "remedy: use a key of scope manage; on the host, sudo, or join the group llamarig" in shell("stop").stderr
    assert shell("status").exit_code == ExitCode.OK
    assert shell.host.units.changes == []


def test_ctrl_c_ends_the_wait_and_not_the_switch(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("switch", "alpha")
    with loading(shell, "beta") as done:
        interrupt_at(monkeypatch, "load")
        result = shell("switch", "beta")
        (job,) = [job for job in shell.daemon.jobs.all() if not job.state.is_over]
        assert result.exit_code == ExitCode.INTERRUPTED
        assert f"nobody waits any more, and job {job.id} (switch to beta) goes on" in result.stderr
        assert f"llamarig jobs --follow {job.id} waits again, llamarig cancel {job.id} ends it" in result.stderr
        done()
    assert shell.daemon.jobs.wait(job.id, 20).state.value == "succeeded"
    assert shell.host.serving() == ["beta"]


def test_ctrl_c_as_json_is_an_error_with_the_job(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with loading(shell, "beta"):
        interrupt_at(monkeypatch, "load")
        error = shell.json("switch", "beta")["error"]
        assert (error["code"], error["job"]["service"]) == ("waitended", "beta")


def test_a_switch_that_is_cancelled_goes_back(shell: Shell) -> None:
    shell("switch", "alpha")
    with loading(shell, "beta"):
        name = under_way(shell, "beta")
        result = shell("cancel", name)
        assert result.exit_code == ExitCode.OK
        assert result.stdout == f"job {name} (switch to beta) is cancelled; alpha serves\n"
    assert shell.host.serving() == ["alpha"]
    followed = shell("jobs", "--follow", name)
    assert followed.exit_code == ExitCode.INTERRUPTED
    assert "it was cancelled; alpha serves again" in followed.stderr


def test_a_job_that_is_over_or_unknown_cannot_be_cancelled(shell: Shell) -> None:
    name = shell.json("switch", "alpha")["data"]["job"]["id"]
    late = shell("cancel", name)
    assert late.exit_code == ExitCode.FAILED
    assert f"job {name} is over" in late.stderr
    assert shell("cancel", "nobody").exit_code == ExitCode.NOT_FOUND


def test_jobs_are_listed_and_each_is_told_in_full(shell: Shell) -> None:
    assert shell("jobs").stdout == "there is no job\n"
    assert shell("jobs", "--follow").stdout == "nothing is under way\n"
    shell("switch", "alpha")
    shell.host.faults["beta"] = Fault.EXITS
    failed = shell.json("switch", "beta")["error"]["job"]["id"]
    lines = shell("jobs").stdout.splitlines()
    assert lines[0].split()[:6] == ["ID", "WHAT", "STATE", "PHASE", "TOOK", "BY"]
    assert "switch to alpha  succeeded" in lines[1]
    assert f"{failed}  switch to beta   failed" in lines[2]
    assert "beta did not come up" in lines[2]
    full = shell("jobs", failed).stdout
    assert "what:      switch to beta\n" in full
    assert "error:     beta did not come up" in full
    assert full.endswith("    beta says goodbye\n")
    assert [job["state"] for job in shell.json("jobs")["data"]["jobs"]] == ["succeeded", "failed"]
    assert shell.json("jobs", failed)["data"]["jobs"][0]["id"] == failed
    assert shell("jobs", "nobody").exit_code == ExitCode.NOT_FOUND


@pytest.mark.parametrize("words", [("switch", "alpha"), ("stop",), ("reconcile",), ("jobs",), ("cancel", "1")])
def test_without_the_daemon_nothing_changes_and_that_is_said(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr("llamarig.cli.reconcile._STARTS_SECONDS", 0)
    shell.daemon.kill()
    result = shell(*words)
    assert result.exit_code == ExitCode.DAEMON_GONE
    assert "llamarigd does not answer: it does not run" in result.stderr
    assert "remedy: systemctl status llamarigd" in result.stderr
    assert shell.json(*words)["error"]["code"] == "daemongone"


def test_switch_check_says_what_would_happen_and_does_nothing(shell: Shell) -> None:
    shell("switch", "alpha")
    shell.host.units.changes.clear()
    assert shell("switch", "beta", "--check").stdout == "would switch to beta; alpha would leave\n"
    data = shell.json("switch", "beta", "--check")["data"]
    assert (data["changed"], data["leaves"]) == (True, ["alpha"])
    assert shell.json("switch", "alpha", "--check")["data"]["changed"] is False
    shell.host.provision(make_spec("alpha", memory=SMALL, memory_mib=2048))
    assert shell("switch", "alpha", "--check").stdout == "would switch to alpha\n"
    assert shell("switch", "delta", "--check").exit_code == ExitCode.NOT_FOUND
    pin(shell, "alpha")
    refused = shell("switch", "beta", "--check")
    assert refused.exit_code == ExitCode.FAILED
    assert "beta has room only where alpha stops, which is pinned; nothing was touched" in refused.stderr
    assert "remedy: llamarig stop alpha" in refused.stderr
    assert shell.host.units.changes == []


def pin(shell: Shell, service: str) -> None:
    policy = {"default_service": "alpha", "services": {service: {"pinned": True, "idle_seconds": None}}}
    host = {"schema_version": 1, "default_service": "alpha", "policy": policy}
    below(shell.host.root, paths.HOST_FILE).write_text(json.dumps(host), encoding="utf-8")


def test_now_is_passed_on(shell: Shell) -> None:
    shell("switch", "alpha", "--now")
    assert shell.daemon.asked[0][1]["now"] is True


def test_stop_ends_what_serves_and_says_how_to_start_again(shell: Shell) -> None:
    shell("switch", "alpha")
    shell("switch", "gamma")
    assert shell("stop", "alpha").stdout == "alpha is stopped; start again with: llamarig switch alpha\n"
    assert shell.host.serving() == ["gamma"]
    shell("switch", "alpha")
    assert shell("stop").stdout == "alpha, gamma are stopped; start again with: llamarig switch alpha\n"
    assert shell.host.state.read().stopped


def test_stop_of_nothing_is_no_error_and_no_change(shell: Shell) -> None:
    assert shell("stop").stdout == "nothing was active\n"
    data = shell.json("stop")["data"]
    assert (data["stopped"], data["changed"]) == ([], False)
    assert shell("stop", "delta").exit_code == ExitCode.NOT_FOUND


def test_only_root_may_reconcile(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = shell("reconcile")
    assert result.exit_code == ExitCode.NOT_ALLOWED
    assert "remedy: sudo llamarig" in result.stderr
    assert shell.daemon.asked == []


def test_reconcile_starts_the_default_service_and_then_has_nothing_to_do(shell: Shell) -> None:
    assert shell.json("reconcile")["data"]["changed"] is True
    data = shell.json("reconcile")["data"]
    assert (data["changed"], data["doctor"]["active"]) == (False, "alpha")
    assert shell.host.serving() == ["alpha"]
    assert shell.daemon.asked[0] == ("reconcile", {"adopt": True}, "playbook")


def test_reconcile_does_roots_chores_when_the_new_spec_serves(shell: Shell) -> None:
    key = f"{paths.KEYS}/alpha.key"
    below(shell.host.root, key).parent.mkdir(parents=True)
    below(shell.host.root, key).write_text("secret", encoding="ascii")
    shell.host.provision(make_spec("alpha", memory=SMALL, api_key_file=key))
    shell("reconcile")
    old = shell.host.specs.get("alpha").spec_sha256
    shell.host.provision(make_spec("alpha", memory=SMALL))
    data = shell.json("reconcile")["data"]
    assert f"{paths.VERSIONS}/alpha/{old}" in data["tidied"]
    assert key in data["tidied"]
    generation = GenerationStore(shell.host.root).current()
    assert generation is not None
    assert generation.active == "alpha"


def test_reconcile_of_a_spec_that_does_not_serve_fails_and_tidies_nothing(shell: Shell) -> None:
    shell("reconcile")
    old = shell.host.specs.get("alpha").spec_sha256
    broken = make_spec("alpha", memory=SMALL, memory_mib=2048)
    shell.host.provision(broken)
    shell.host.faults[broken.spec_sha256] = Fault.EXITS
    result = shell("reconcile")
    assert result.exit_code == ExitCode.FAILED
    assert "alpha serves again" in result.stderr
    assert shell.host.versions() == {"alpha": old}
    assert below(shell.host.root, f"{paths.VERSIONS}/alpha/{old}").is_dir()


def test_reconcile_of_a_host_with_warnings_is_done(shell: Shell) -> None:
    below(shell.host.root, "/run/systemd/timesync/synchronized").unlink()
    assert shell("reconcile", "--json").exit_code == ExitCode.OK
    doctor = shell.json("reconcile")["data"]["doctor"]
    assert (doctor["healthy"], doctor["warnings"]) == (True, 1)


def test_reconcile_check_says_what_would_happen_and_does_nothing(shell: Shell) -> None:
    data = shell.json("reconcile", "--check")["data"]
    assert (data["changed"], data["message"]) == (True, "would start alpha")
    assert shell.host.units.changes == []
    shell("switch", "beta")
    assert shell("reconcile", "--check").stdout == "beta serves, as it should\n"
    shell.host.provision(make_spec("beta", memory=SMALL, memory_mib=2048))
    assert shell("reconcile", "--check").stdout == "would start beta with its new spec\n"
    below(shell.host.root, f"{paths.SPECS}/beta.json").unlink()
    assert shell("reconcile", "--check").stdout == "would stop beta and start alpha\n"
    shell.host.state.write(State(stopped=True))
    assert shell("reconcile", "--check").stdout == "nothing serves, as it should\n"


def test_reconcile_of_a_host_without_services_says_so(shell: Shell) -> None:
    for path in below(shell.host.root, paths.SPECS).iterdir():
        path.unlink()
    below(shell.host.root, paths.HOST_FILE).unlink()
    assert shell("reconcile").stdout == "this host runs no service\n"
    data = shell.json("reconcile")["data"]
    assert (data["active"], data["changed"], data["doctor"]["healthy"]) == ([], False, True)


def test_reconcile_with_a_damaged_host_file_is_told_in_a_sentence(shell: Shell) -> None:
    below(shell.host.root, paths.HOST_FILE).write_text("{", encoding="utf-8")
    result = shell("reconcile")
    assert result.exit_code == ExitCode.FAILED
    assert "host.json cannot be read" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_or_a_kill_ends_a_way_back_like_ctrl_c(number: signal.Signals) -> None:
    from llamarig.cli.verb import stop_like_ctrl_c  # noqa: PLC0415

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        stop_like_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
