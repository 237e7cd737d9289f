"""Trials of the real engine, in real containers, against candidates that are equal, slow, broken or lack an option."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llamarig.config.spec import Spec, SpecFile
from llamarig.daemon.memory import Judged
from llamarig.lab.candidates import Kind, make_candidate
from llamarig.lab.judge_image import ensure_image
from llamarig.lab.models import MODELS, write_model
from llamarig.runtime import fit_params
from llamarig.runtime.completions import SPEED_PROMPT, Completions
from llamarig.runtime.confinement import Container
from llamarig.runtime.fit_params import DockerJudge
from llamarig.runtime.images import Docker
from llamarig.runtime.trials import LABEL, claim_trial
from llamarig.trial.placement import available_mib
from llamarig.trial.report import Report, Status
from llamarig.trial.server import serving
from llamarig.trial.trial import Trial
from tests.support import ROOT, argv_of, make_spec, variables

REPOSITORY = "llamarig-test-trial"
SERVICES = {"dense": "tiny-dense", "moe": "tiny-moe"}


@dataclass
class Place:
    """Models, the engine that serves, and this machine's docker."""

    models: Path
    engine: str
    docker: Docker

    def spec(self, service: str) -> Spec:
        path = self.models / f"{SERVICES[service]}.gguf"
        # One thread: on a busy machine two of them mostly wait for each other.
        argv = argv_of(variables(service={"server": {"ctx_size": 2048, "threads": 1}}))
        argv[argv.index("--model") + 1] = f"/models/{path.name}"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files = [SpecFile(str(path), path.stat().st_size, digest)]
        return make_spec(service, argv=argv, models_dir=str(self.models), image=self.engine, files=files)

    def trial(self, candidate: str, *services: str, slower: float = 20) -> Trial:
        judge = DockerJudge()
        return Trial(
            candidate=candidate,
            against=self.engine,
            specs=[self.spec(service) for service in services or SERVICES],
            running=[],
            slower_percent=slower,
            docker=self.docker,
            judge=judge,
            old=lambda spec: Judged.of(spec, judge.estimate(spec), 0),
            busy=lambda _: "",
            place=Path,
            available=available_mib,
            say=lambda _: None,
        )

    def tried(self, candidate: str, *services: str, slower: float = 20) -> Report:
        with claim_trial(self.models, self.docker):
            report = self.trial(candidate, *services, slower=slower).run()
        assert self.docker.labelled(LABEL) == []
        return report


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    engine = ensure_image(lambda _: None)
    directory = tmp_path_factory.mktemp("models")
    for path in (directory, *directory.parents):
        if path.is_relative_to(tmp_path_factory.getbasetemp()):
            path.chmod(0o755)
    for model in MODELS[:2]:
        write_model(directory / f"{model.name}.gguf", model)
    command = shutil.which("docker") or pytest.fail("docker is not here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_params, "_DOCKER", command)
        yield Place(directory, engine, Docker(command))


@pytest.fixture
def candidate(place: Place) -> Iterator[Callable[..., str]]:
    made = []

    def make(kind: Kind, **how: object) -> str:
        name = f"{REPOSITORY}:{kind.value}"
        make_candidate(place.engine, kind, name, **how)  # type: ignore[arg-type]
        made.append(name)
        return name

    yield make
    for name in made:
        place.docker.remove_image(name)


def failed(report: Report) -> dict[str, set[str]]:
    """The checks that failed, with the architectures that they failed with."""
    found: dict[str, set[str]] = {}
    for check in report.checks:
        if check.status is Status.FAIL:
            found.setdefault(check.name, set()).add(check.architecture)
    return found


def message(report: Report, name: str) -> str:
    return next(check.message for check in report.checks if check.name == name and check.status is Status.FAIL)


def test_an_equal_engine_passes_and_says_the_same_to_the_last_digit(
    place: Place, candidate: Callable[..., str]
) -> None:
    # How fast an equal one seems depends on what else the machine does.
    report = place.tried(candidate(Kind.EQUAL), slower=75)
    assert failed(report) == {}
    statuses = {(check.name, check.architecture): check.status.value for check in report.checks}
    assert statuses == {
        ("version", ""): "ok",
        ("options", ""): "ok",
        ("ops", ""): "skipped",
        ("memory", ""): "ok",
        **{(name, kind): "ok" for kind in ("llama", "qwen3moe") for name in ("short-prompt", "long-prompt", "speed")},
    }
    figures = {check.name: check.figures for check in report.checks}
    assert (figures["long-prompt"]["kl_largest"], figures["long-prompt"]["places"]) == (0, 96)
    assert figures["long-prompt"]["prompt_tokens"] == [320, 512, 768]
    assert figures["speed"]["generation"]["against"] > 0


def test_an_engine_that_is_broken_from_the_hundredth_token_on_is_found_by_the_long_prompts_alone(
    place: Place, candidate: Callable[..., str]
) -> None:
    report = place.tried(candidate(Kind.BROKEN), slower=100)
    assert failed(report) == {"long-prompt": {"llama", "qwen3moe"}}
    assert "the candidate answers otherwise" in message(report, "long-prompt")


def test_an_engine_that_is_broken_beyond_its_first_batch_is_found(place: Place, candidate: Callable[..., str]) -> None:
    report = place.tried(candidate(Kind.BROKEN, well_up_to=600), "dense", slower=100)
    assert failed(report) == {"long-prompt": {"llama"}}


def test_a_slow_engine_is_found_by_its_speed_alone(place: Place, candidate: Callable[..., str]) -> None:
    report = place.tried(candidate(Kind.SLOW, percent=400), "dense", slower=50)
    assert failed(report) == {"speed": {"llama"}}
    assert "50 % is the most" in message(report, "speed")


def test_an_engine_that_lacks_an_option_is_found_and_the_services_are_named(
    place: Place, candidate: Callable[..., str]
) -> None:
    report = place.tried(candidate(Kind.LACKING), slower=100)
    assert failed(report) == {"options": {""}}
    for service in SERVICES:
        assert f"{service}: --cache-ram is unknown to the candidate" in message(report, "options")


def test_an_engine_that_does_not_come_up_is_told_with_its_own_word(place: Place, candidate: Callable[..., str]) -> None:
    report = place.tried(candidate(Kind.LACKING, option="--ctx-size"), "dense", slower=100)
    assert failed(report).keys() == {"options", "short-prompt"}
    said = message(report, "short-prompt")
    assert said == "llama: the candidate does not serve: it ended with 1: error: invalid argument: --ctx-size"


def test_a_value_that_the_engine_does_not_know_is_its_own_parsers_word(place: Place) -> None:
    trial = place.trial(place.engine, "dense")
    spec = place.spec("dense")
    argv = [*spec.argv, "--cache-type-k", "q3_9"]
    wrong = make_spec("dense", argv=argv, models_dir=spec.models_dir, files=spec.files)
    trial = Trial(**{**{name: getattr(trial, name) for name in trial.__dataclass_fields__}, "specs": [wrong]})
    with claim_trial(place.models, place.docker):
        report = trial.run()
    assert "Unsupported cache type: q3_9" in message(report, "options")


def test_a_servers_speed_is_what_it_says_of_its_tokens(place: Place) -> None:
    spec = place.spec("dense")
    words = ["--model", "/models/tiny-dense.gguf", "--host", "0.0.0.0", "--port", "8080", "--ctx-size", "1024"]  # noqa: S104
    container = Container(
        name="llamarig-trial-speed",
        image=place.engine,
        program="llama-server",
        words=words,
        models_dir=str(place.models),
        memory_mib=2048,
        labels={LABEL: "speed"},
    )
    with serving(place.docker, container, spec, Completions()) as where:
        assert place.docker.labelled(LABEL) == ["llamarig-trial-speed"]
        answer = Completions().generate(where, SPEED_PROMPT, 64, timeout=60)
    assert answer.predicted_per_second is not None
    assert answer.predicted_per_second > 1
    assert place.docker.labelled(LABEL) == []


# A trial in a process of its own, ended as the command is: TERM is Ctrl-C to it.
_ALONE = """
import signal, sys
from pathlib import Path
from llamarig.runtime import fit_params
from llamarig.runtime.images import Docker
from llamarig.runtime.trials import claim_trial
from tests.engine.test_trial import Place
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, interrupt)
models, engine, command, candidate = sys.argv[1:]
fit_params._DOCKER = command
place = Place(Path(models), engine, Docker(command))
try:
    with claim_trial(place.models, place.docker):
        place.trial(candidate, "moe").run()
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
def test_a_trial_that_is_ended_leaves_nothing_and_what_a_killed_one_left_goes_with_the_next(
    place: Place, candidate: Callable[..., str], number: signal.Signals
) -> None:
    name = candidate(Kind.SLOW, percent=300)
    command = [sys.executable, "-c", _ALONE, str(place.models), place.engine, place.docker.command, name]
    alone = subprocess.Popen(command, env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin"})
    ports = [place.docker.command, "ps", "--filter", f"label={LABEL}", "--format", "{{.Ports}}"]
    until = time.monotonic() + 60
    while b"->8080" not in subprocess.run(ports, capture_output=True, check=True).stdout:
        assert time.monotonic() < until
        time.sleep(0.02)
    alone.send_signal(number)
    assert alone.wait(timeout=60) == (130 if number is signal.SIGTERM else -number)
    assert len(place.docker.labelled(LABEL)) == (0 if number is signal.SIGTERM else 1)
    with claim_trial(place.models, place.docker):
        assert place.docker.labelled(LABEL) == []
