"""The verbs of ``llamarig engine`` on a host whose units, images and engine are played."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llamarig.cli import waiting
from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.generation import MARK
from llamarig.daemon.memory import Judged
from llamarig.errors import ExitCode
from llamarig.runtime.completions import Completion
from llamarig.runtime.engine import EngineError
from llamarig.runtime.fit_params import Answer, JudgeError
from llamarig.runtime.images import Docker, DockerError, Image
from llamarig.runtime.management import Job
from llamarig.runtime.trials import PLACE
from llamarig.trial.report import Check, Report, Status
from llamarig.trial.trial import Trial
from tests.support import below, make_spec
from tests.unit.cli.conftest import Shell
from tests.unit.daemon.judged import PLANNED, keep, parts, record

OLD, NEW, OTHER = (f"llamarig/llama-cpp:{name}" for name in ("old", "new", "other"))


@dataclass
class PlayedDocker(Docker):
    """Images, what uses them, and what was removed."""

    names: list[str] = field(default_factory=lambda: [NEW, OLD, OTHER])
    used: Mapping[str, list[str]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    trouble: str = ""

    def images(self, repository: str = "llamarig/llama-cpp") -> list[Image]:
        found = [self.image(name) for name in self.names if name.startswith(repository)]
        return [image for image in found if image]

    def image(self, name: str) -> Image | None:
        if self.trouble:
            raise DockerError(self.trouble, "sudo docker info")
        labels = {
            "llamarig.ref": "v1",
            "org.opencontainers.image.revision": "0123456789abcdef",
            "llamarig.backend": "cpu",
        }
        return Image(name, f"sha256:{name}", 512 << 20, labels) if name in self.names else None

    def in_use(self) -> dict[str, list[str]]:
        return {f"sha256:{name}": containers for name, containers in self.used.items()}

    def remove_image(self, name: str) -> None:
        self.removed.append(name)
        self.names.remove(name)

    def labelled(self, label: str) -> list[str]:
        assert label
        return []

    def remove(self, *names: str) -> None:
        assert not names


@dataclass
class PlayedServer:
    """Answers with the speeds that it is told, one after the other; the last one stays."""

    speeds: list[float | None]
    asked: list[tuple[str, int]] = field(default_factory=list)

    def generate(self, spec: Spec, prompt: str, count: int, *, timeout: float) -> Completion:
        assert prompt
        assert timeout > 60
        self.asked.append((spec.service, count))
        speed = self.speeds.pop(0) if len(self.speeds) > 1 else self.speeds[0]
        if speed == 0:
            raise EngineError("the server cut the connection")
        return Completion([], "text", None, speed)


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> PlayedDocker:
    played = PlayedDocker()
    monkeypatch.setattr("llamarig.runtime.images.Docker", lambda: played)
    monkeypatch.setattr("llamarig.runtime.trials.Docker", lambda: played)
    return played


@pytest.fixture
def upgraded(shell: Shell, docker: PlayedDocker, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A host that went from the old to the new engine and serves alpha."""
    monkeypatch.setattr("llamarig.runtime.unit_files.reload_units", lambda: None)
    for image in (OLD, NEW):
        plan(shell, image)
        shell("reconcile")
        docker.used = {image: ["llama-alpha"]}
    return shell


def plan(shell: Shell, image: str) -> None:
    root = shell.host.root
    ports = {"alpha": 8080, "beta": 8080, "gamma": 8090}
    shell.host.provision(*(make_spec(name, image=image, port=port) for name, port in ports.items()), default="alpha")
    below(root, paths.UNITS).mkdir(parents=True, exist_ok=True)
    below(root, f"{paths.UNITS}/llama-alpha.service").write_text(f"{MARK}\n# {image}\n")
    engine = {"schema_version": 1, "default_service": "alpha", "engine": {"image": image}}
    below(root, paths.HOST_FILE).write_text(json.dumps(engine))


def data_of(shell: Shell, *words: str) -> dict[str, Any]:
    body = json.loads(shell("engine", *words, "--json").stdout)
    assert (body["version"], body["command"], body["error"]) == (1, f"engine {words[0]}", None)
    return dict(body["data"])


def refused(shell: Shell, code: ExitCode, *words: str) -> str:
    result = shell("engine", *words)
    assert result.exit_code == code, result.output
    assert "remedy: " in result.stderr
    return result.stderr


def test_a_rollback_without_the_daemon_touches_nothing(upgraded: Shell) -> None:
    before = upgraded.files()
    upgraded.daemon.kill()
    assert "llamarigd does not answer" in refused(upgraded, ExitCode.DAEMON_GONE, "rollback")
    assert upgraded.files() == before


def test_ctrl_c_during_a_rollback_undoes_it(upgraded: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    show, seen = waiting.Showing.show, list[str]()

    def shown(self: waiting.Showing, job: Job) -> None:
        show(self, job)
        seen.append(job["id"])
        if seen.count(job["id"]) == 1 and len(set(seen)) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(waiting.Showing, "show", shown)
    assert "KeyboardInterrupt; alpha serves again" in refused(upgraded, ExitCode.INTERRUPTED, "rollback")
    running = json.loads(below(upgraded.host.root, f"{paths.RUNNING}/alpha.json").read_text())
    assert running["image"] == NEW
    assert json.loads(below(upgraded.host.root, f"{paths.SPECS}/alpha.json").read_text())["image"] == NEW


def test_a_trial_that_is_under_way_is_ended(
    shell: Shell, docker: PlayedDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert docker.removed == []
    assert data_of(shell, "end-trial") == {"changed": False}
    monkeypatch.setattr("llamarig.runtime.trials.end_trial", lambda _: True)
    assert shell("engine", "end-trial").stdout == "the trial of an engine was ended\n"
    assert "end-trial" not in shell("engine", "--help").stdout


@pytest.mark.parametrize("verb", ["list", "trial", "rollback", "prune", "speed"])
def test_every_verb_shows_its_help_with_examples(shell: Shell, verb: str) -> None:
    text = shell("engine", verb, "--help").stdout
    assert "--json" in text
    assert f"sudo llamarig engine {verb}" in text


@pytest.mark.parametrize(
    "words", [("trial", "--image", NEW), ("rollback",), ("prune",), ("speed",)], ids=lambda w: w[0]
)
def test_only_root_may_do_it(shell: Shell, monkeypatch: pytest.MonkeyPatch, words: Sequence[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root may do this" in refused(shell, ExitCode.NOT_ALLOWED, *words)


def test_the_list_says_what_each_engine_is_for(upgraded: Shell) -> None:
    lines = upgraded("engine", "list").stdout.splitlines()
    assert lines[0].split() == ["IMAGE", "SIZE", "REF", "COMMIT", "BACKEND", "FOR"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert rows[NEW].endswith("planned, current, running llama-alpha")
    assert rows[OLD].endswith("before")
    assert rows[OTHER].split()[1:] == ["512", "MiB", "v1", "012345678", "cpu", "-"]
    data = data_of(upgraded, "list")
    assert (data["planned"], data["current"], data["before"], data["engine"]) == (NEW, NEW, OLD, {"image": NEW})


def test_the_list_names_a_planned_engine_that_is_not_here(upgraded: Shell, docker: PlayedDocker) -> None:
    docker.names.remove(NEW)
    assert upgraded("engine", "list").stdout.splitlines()[-1] == f"planned, and not here: {NEW}"
    docker.names.clear()
    assert upgraded("engine", "list").stdout.splitlines()[0] == "there is no engine here"


def test_a_docker_that_does_not_answer_is_told(upgraded: Shell, docker: PlayedDocker) -> None:
    docker.trouble = "Docker refuses: Cannot connect to the Docker daemon"
    for words in (("list",), ("prune",), ("rollback",), ("trial", "--image", OTHER)):
        assert "Cannot connect to the Docker daemon" in refused(upgraded, ExitCode.FAILED, *words)


def test_prune_removes_what_nobody_needs(upgraded: Shell, docker: PlayedDocker) -> None:
    assert upgraded("engine", "prune", "--check").stdout == f"would remove {OTHER}, 512 MiB\n"
    assert docker.removed == []
    assert data_of(upgraded, "prune") == {"changed": True, "removed": [OTHER], "kept": [NEW, OLD]}
    assert docker.removed == [OTHER]
    assert upgraded("engine", "prune").stdout == "every engine here is needed\n"
    assert data_of(upgraded, "prune")["changed"] is False


def test_rollback_serves_with_the_engine_of_before(upgraded: Shell) -> None:
    told = upgraded("engine", "rollback", "--check")
    assert told.stdout == f"would go back from {NEW} to {OLD}: alpha serves\n"
    data = data_of(upgraded, "rollback")
    assert (data["changed"], data["from"], data["to"], data["active"]) == (True, [NEW], OLD, "alpha")
    assert f"{paths.UNITS}/llama-alpha.service" in data["written"]
    running = json.loads(below(upgraded.host.root, f"{paths.RUNNING}/alpha.json").read_text())
    assert running["image"] == OLD
    result = upgraded("engine", "rollback", "--to", OLD)
    assert result.stdout.startswith(f"alpha is served by {OLD} already")
    assert "rollback" in upgraded("history").stdout


def test_a_rollback_without_anything_before_is_refused(shell: Shell, docker: PlayedDocker) -> None:
    assert docker.names
    assert "no generation to go back to" in refused(shell, ExitCode.FAILED, "rollback")


def test_a_rollback_to_an_image_that_is_gone_is_refused(upgraded: Shell, docker: PlayedDocker) -> None:
    docker.names.remove(OLD)
    assert f"no more on this host: {OLD}" in refused(upgraded, ExitCode.FAILED, "rollback")
    assert upgraded.host.serving() == ["alpha"]


def measured(monkeypatch: pytest.MonkeyPatch, *speeds: float | None) -> PlayedServer:
    server = PlayedServer(list(speeds))
    monkeypatch.setattr("llamarig.runtime.completions.Completions", lambda _: server)
    return server


def test_speed_is_the_best_of_three_and_kept_for_its_engine(upgraded: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    server = measured(monkeypatch, 40.0, 52.5, 50.0)
    data = data_of(upgraded, "speed")
    assert (data["image"], data["service"], data["tokens_per_second"]) == (NEW, "alpha", 52.5)
    assert server.asked == [("alpha", 64)] * 3
    assert data["images"] == {NEW: 52.5}
    assert [check["status"] for check in data["checks"]] == ["ok"]
    kept = json.loads(below(upgraded.host.root, "/var/lib/llamarig/engine/speed.json").read_text())
    assert kept["images"][NEW]["alpha"]["tokens_per_second"] == 52.5


def test_speed_against_the_engine_of_before_says_whether_it_is_slower(
    upgraded: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, 50.0)
    upgraded("engine", "speed")
    upgraded("engine", "rollback")
    measured(monkeypatch, 46.0)
    well = upgraded("engine", "speed", "--against", NEW)
    assert well.exit_code == ExitCode.OK
    assert f"46 tokens/s with {OLD}, 50 with {NEW} (-8.0 %, -10 % is the most)" in well.stdout
    monkeypatch.setattr("llamarig.cli.speed._MORE_SECONDS", 0)
    server = measured(monkeypatch, 44.0)
    slow = upgraded("engine", "speed", "--against", NEW, "--json")
    assert slow.exit_code == ExitCode.UNHEALTHY
    body = json.loads(slow.stdout)
    data, error = body["data"], body["error"]
    assert (error["code"], error["remedy"]) == ("worse", "go back: sudo llamarig engine rollback")
    assert f"alpha: 44 tokens/s with {OLD}, 50 with {NEW} (-12.0 %" in error["message"]
    assert (data["slower_percent"], data["against"]) == (12.0, {"image": NEW, "tokens_per_second": 50.0})
    assert [(check["name"], check["status"]) for check in data["checks"]] == [("speed", "fail")]
    assert "engine rollback" in data["checks"][0]["remedy"]
    assert len(server.asked) == 9
    assert upgraded("engine", "speed", "--against", NEW, "--slower", "15").exit_code == ExitCode.OK


def test_a_slow_beginning_is_measured_again(upgraded: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, 50.0)
    upgraded("engine", "speed")
    server = measured(monkeypatch, 30.0, 30.0, 30.0, 49.0)
    assert upgraded("engine", "speed", "--against", NEW).exit_code == ExitCode.OK
    assert len(server.asked) == 4


def test_speed_against_an_engine_that_was_never_measured_is_refused(
    upgraded: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = measured(monkeypatch, 50.0)
    assert f"alpha was never measured with {OLD}" in refused(upgraded, ExitCode.FAILED, "speed", "--against", OLD)
    assert server.asked == []


def test_speed_of_nothing_is_no_failure_and_names_no_image(shell: Shell) -> None:
    assert data_of(shell, "speed")["image"] is None


@pytest.mark.parametrize(("speed", "said"), [(0, "cut the connection"), (None, "does not say how fast it was")])
def test_a_server_that_cannot_be_measured_is_told(
    upgraded: Shell, monkeypatch: pytest.MonkeyPatch, speed: float | None, said: str
) -> None:
    measured(monkeypatch, speed)
    assert said in refused(upgraded, ExitCode.FAILED, "speed")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """The trials that were run; each passes, or does what ``outcome`` says."""
    found: list[Trial] = []

    def run(self: Trial) -> Report:
        found.append(self)
        self.say("short-prompt: …")
        checks = [Check("version", Status.OK, "0.7.0", 0.5), Check("ops", Status.SKIPPED, "no card")]
        if self.slower_percent < 5:
            checks.append(Check("speed", Status.FAIL, "slower by 12 %", 60.2, "llama", "keep the engine"))
        return Report(self.candidate, self.against, self.slower_percent, checks)

    monkeypatch.setattr(Trial, "run", run)
    return found


def test_a_trial_is_held_against_what_serves_with_every_service(upgraded: Shell, tried: list[Trial]) -> None:
    result = upgraded("engine", "trial", "--image", OTHER)
    assert result.exit_code == ExitCode.OK
    (trial,) = tried
    assert (trial.candidate, trial.against, trial.slower_percent) == (OTHER, NEW, 10)
    assert [spec.service for spec in trial.specs] == ["alpha", "beta", "gamma"]
    assert [spec.service for spec in trial.running] == ["alpha"]
    assert "short-prompt: …" in result.stderr
    assert "ok       version: 0.7.0" in result.stdout
    assert result.stdout.splitlines()[-1] == "verdict: as good as the engine that serves"


def test_a_trial_that_failed_names_the_checks_and_exits_so(upgraded: Shell, tried: list[Trial]) -> None:
    words = ("trial", "--image", OTHER, "--slower", "3", "--service", "beta", "--against", OLD)
    result = upgraded("engine", *words)
    assert result.exit_code == ExitCode.UNHEALTHY
    assert "fail     speed: slower by 12 % (60 s)\n         remedy: keep the engine" in result.stdout
    assert result.stdout.splitlines()[-1] == "verdict: worse: speed"
    assert [spec.service for spec in tried[0].specs] == ["beta"]
    assert tried[0].against == OLD
    told = upgraded("engine", *words, "--json")
    assert told.exit_code == ExitCode.UNHEALTHY
    body = json.loads(told.stdout)
    data, error = body["data"], body["error"]
    assert error["message"].splitlines()[1:] == ["speed: slower by 12 %"]
    assert error["remedy"] == "keep the engine"
    assert (data["verdict"], data["failed"], data["candidate"], data["against"]) == ("fail", ["speed"], OTHER, OLD)
    (check,) = [check for check in data["checks"] if check["status"] == "fail"]
    assert (check["name"], check["architecture"], check["remedy"]) == ("speed", "llama", "keep the engine")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--image", "llamarig/llama-cpp:none"), ExitCode.NOT_FOUND, "is not on this host"),
        (("--image", OTHER, "--against", "llamarig/llama-cpp:none"), ExitCode.NOT_FOUND, "is not on this host"),
        (("--image", NEW), ExitCode.FAILED, "is the engine that it would be held against"),
        (("--image", OTHER, "--service", "delta"), ExitCode.NOT_FOUND, "runs no service 'delta'"),
    ],
)
@pytest.mark.usefixtures("tried")
def test_what_cannot_be_tried_is_refused(upgraded: Shell, words: Sequence[str], code: ExitCode, said: str) -> None:
    assert said in refused(upgraded, code, "trial", *words)


@pytest.mark.usefixtures("tried", "docker")
def test_a_host_that_never_served_needs_the_engine_to_hold_it_against(shell: Shell) -> None:
    assert "--against IMAGE" in refused(shell, ExitCode.FAILED, "trial", "--image", OTHER)
    assert shell("engine", "trial", "--image", OTHER, "--against", OLD).exit_code == ExitCode.OK


def test_an_engine_that_last_served_stands_for_one_that_does_not_now(upgraded: Shell, tried: list[Trial]) -> None:
    upgraded("stop")
    upgraded("engine", "trial", "--image", OTHER)
    assert tried[0].against == NEW


def test_a_trial_changes_nothing_on_the_host(upgraded: Shell, tried: list[Trial]) -> None:
    before = upgraded.files()
    upgraded("engine", "trial", "--image", OTHER)
    assert len(tried) == 1
    after = upgraded.files()
    assert after.pop(PLACE.lstrip("/")) == b""
    assert after == before


def test_a_trial_that_is_ended_says_so(upgraded: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(_: Trial) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trial, "run", run)
    assert "the trial was ended, and nothing was changed" in refused(
        upgraded, ExitCode.INTERRUPTED, "trial", "--image", OTHER
    )
    assert below(tmp_path, PLACE).read_text() == ""


def test_a_trial_asks_the_remembered_word_of_the_engine_that_serves(upgraded: Shell, tried: list[Trial]) -> None:
    upgraded("engine", "trial", "--image", OTHER)
    spec = make_spec("alpha", image=NEW)
    keep(upgraded.host.root, spec, record(spec, parts(PLANNED[2])))
    known = tried[0].old(spec)
    assert isinstance(known, Judged)
    assert known.answer is Answer.ESTIMATED
    with pytest.raises(JudgeError):  # there is no Docker here to ask anew
        tried[0].old(make_spec("alpha", image=OLD))
