"""Whole trials with a Docker and models that play their part; tests/engine has the real engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llamarig.config.spec import Spec
from llamarig.daemon.memory import Judged
from llamarig.errors import LlamarigError
from llamarig.lab.models import MODELS, write_model
from llamarig.runtime.breakdown import Breakdown, Part
from llamarig.runtime.confinement import Container
from llamarig.runtime.fit_params import Answer, Estimate
from llamarig.runtime.images import Docker, DockerError, Done, Image, Life
from llamarig.trial.report import Check, Report, Status
from llamarig.trial.trial import Trial
from tests.support import ROOT, argv_of, make_spec, variables
from tests.unit.trial.played import PlayedModel, refuses

OLD, NEW = "engine:old", "engine:new"
HELP = (ROOT / "src/llamarig/data/llama-server-help/0.7.0.txt").read_text(encoding="utf-8")
RECORDED = Path(__file__).parent / "recorded"
ON_CPU = Breakdown((), Part("Host", 1, 0, 0))
Answerer = Callable[[Container], Done]


def done(out: str = "", err: str = "", code: int | None = 0) -> Answerer:
    return lambda _: Done(code, out, err, 0.1)


def bench(prompt: float, generation: float) -> Answerer:
    tests = [{"n_gen": 0, "samples_ts": [prompt]}, {"n_gen": 64, "samples_ts": [generation]}]
    return done(json.dumps(tests))


def serves(container: Container) -> Done:
    """llama-server as a program that ends: its help, its version, or its word on arguments."""
    if container.words == ["--help"]:
        return Done(0, HELP, "", 0.1)
    return Done(0, "", "version: 0.7.0 (build 11669, commit 0123456789ab)", 0.1)


@dataclass
class PlayedDocker(Docker):
    """Programs answer as they are told, by image and name; servers run until they are removed."""

    programs: dict[tuple[str, str], Answerer] = field(default_factory=dict)
    labels: dict[str, Mapping[str, str]] = field(default_factory=dict)
    lives: dict[str, Life] = field(default_factory=dict)
    ran: list[Container] = field(default_factory=list)
    served: list[Container] = field(default_factory=list)
    now: str = ""
    ends_while_looked_at: bool = False

    def image(self, name: str) -> Image | None:
        return Image(name, f"sha256:{name}", 1, self.labels.get(name, {}))

    def run(self, container: Container, limit_seconds: float) -> Done:
        assert limit_seconds > 0
        self.ran.append(container)
        usual = {"llama-server": serves, "llama-bench": bench(1000, 100), "cat": done(code=1)}
        missing = done(err="executable file not found in $PATH", code=127)
        answer = self.programs.get((container.image, container.program), usual.get(container.program, missing))
        return answer(container)

    def start(self, container: Container) -> None:
        self.served.append(container)
        self.now = container.image

    def port(self, name: str) -> int:
        assert name == self.served[-1].name
        if self.ends_while_looked_at:
            self.lives[self.now] = Life(running=False, code=1, out_of_memory=False)
            raise DockerError("no public port")
        return 49153

    def life(self, name: str) -> Life:
        assert name == self.served[-1].name
        return self.lives.get(self.now, Life(running=True, code=0, out_of_memory=False))

    def log(self, name: str, lines: int) -> list[str]:
        assert name == self.served[-1].name
        return ["loading", "error: invalid argument: --threads", "usage: llama-server"][-lines:]

    def remove(self, *names: str) -> None:
        self.now = "" if names else self.now


class Servers(PlayedModel):
    """Whichever engine's server runs answers."""

    def __init__(self, docker: PlayedDocker, candidate: PlayedModel) -> None:
        super().__init__()
        self.docker = docker
        self.candidate = candidate

    def health(self, spec: Spec) -> str:
        assert (spec.bind, spec.port, spec.api_key_file) == ("127.0.0.1", 49153, None)
        return "ok"

    def tokenize(self, spec: Spec, text: str, timeout: float) -> list[int]:
        if self.docker.now == OLD:
            return super().tokenize(spec, text, timeout)
        return self.candidate.tokenize(spec, text, timeout)

    def generate(self, *arguments: Any, **more: Any) -> Any:
        if self.docker.now == OLD:
            return super().generate(*arguments, **more)
        return self.candidate.generate(*arguments, **more)


class Judge:
    def estimate(self, spec: Spec) -> Estimate:
        assert spec.image in {OLD, NEW}
        return Estimate(Answer.ESTIMATED, ON_CPU, "", [], [], 0.1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    for model in MODELS[:2]:
        write_model(directory / f"{model.name}.gguf", model)
    return directory


@dataclass
class Host:
    """A host that runs a dense and a MoE model."""

    models: Path
    docker: PlayedDocker = field(default_factory=PlayedDocker)
    candidate: PlayedModel = field(default_factory=PlayedModel)
    said: list[str] = field(default_factory=list)
    available: int = 64000
    busy: str = ""
    gpus: list[str] = field(default_factory=list)

    def spec(self, service: str, model: str) -> Spec:
        argv = argv_of(variables())
        argv[argv.index("--model") + 1] = f"/models/{model}.gguf"
        return make_spec(service, argv=argv, models_dir=str(self.models), image=OLD, gpus=self.gpus)

    def tried(self, slower: float = 10.0) -> Report:
        judge = Judge()
        return Trial(
            candidate=NEW,
            against=OLD,
            specs=[self.spec("dense", "tiny-dense"), self.spec("moe", "tiny-moe")],
            running=[],
            slower_percent=slower,
            docker=self.docker,
            judge=judge,
            old=lambda spec: Judged.of(spec, judge.estimate(spec), 0),
            busy=lambda _: self.busy,
            place=Path,
            available=lambda: self.available,
            say=self.said.append,
            server=Servers(self.docker, self.candidate),
        ).run()


@pytest.fixture
def host(models: Path) -> Host:
    return Host(models)


def found(report: Report, name: str) -> list[Check]:
    return [check for check in report.checks if check.name == name]


def failed(report: Report) -> dict[str, str]:
    assert not report.passed
    return {check.name: check.message for check in report.checks if check.status is Status.FAIL}


def test_an_engine_that_is_as_good_passes_every_check_with_each_architecture(host: Host) -> None:
    report = host.tried()
    assert [(check.name, check.architecture, check.status.value) for check in report.checks] == [
        ("version", "", "ok"),
        ("options", "", "ok"),
        ("ops", "", "skipped"),
        ("memory", "", "ok"),
        *((name, kind, "ok") for kind in ("llama", "qwen3moe") for name in ("short-prompt", "long-prompt", "speed")),
    ]
    said = report.to_dict()
    assert (said["verdict"], said["failed"], said["candidate"], said["against"]) == ("ok", [], NEW, OLD)
    assert {key for check in said["checks"] for key in check} == {
        *("name", "architecture", "status", "message", "remedy", "seconds", "figures")
    }
    json.dumps(said, allow_nan=False)
    assert host.said[0] == f"version: {NEW}"


def test_both_engines_serve_one_after_the_other_with_the_same_arguments(host: Host) -> None:
    host.tried()
    assert [container.image for container in host.docker.served] == [OLD, NEW, OLD, NEW]
    first, second = host.docker.served[:2]
    assert first.words == second.words
    assert (first.publish, first.gpus, first.models_dir) == ("127.0.0.1:", (), str(host.models))
    assert host.docker.now == ""


def test_every_container_can_be_found_again(host: Host) -> None:
    host.tried()
    every = [*host.docker.ran, *host.docker.served]
    assert {container.name.startswith("llamarig-trial-") for container in every} == {True}
    assert all("llamarig.trial" in container.labels for container in every)


def test_llama_bench_runs_in_alternation(host: Host) -> None:
    host.tried()
    ran = [container.image for container in host.docker.ran if container.program == "llama-bench"]
    assert ran == [OLD, NEW] * 4


def test_an_engine_that_does_not_start_is_not_tried_further(host: Host) -> None:
    host.docker.programs[NEW, "llama-server"] = done(err="error while loading shared libraries: libx.so", code=127)
    report = host.tried()
    assert failed(report) == {"version": "it does not start (exit 127): error while loading shared libraries: libx.so"}
    assert len(report.checks) == 1


def test_an_image_that_says_another_commit_than_its_engine_is_refused(host: Host) -> None:
    host.docker.programs[NEW, "cat"] = done(json.dumps({"ref": "v1", "commit": "f" * 40}))
    assert failed(host.tried())["version"].startswith(f"the image says that it is commit {'f' * 40}")
    host.docker.programs[NEW, "cat"] = done(json.dumps({"ref": "v1", "commit": f"0123456789ab{'0' * 28}"}))
    (version,) = found(host.tried(), "version")
    assert version.message == "0.7.0 (build 11669, commit 0123456789ab), ref v1"


def test_an_option_that_the_candidate_lacks_is_named_with_every_service(host: Host) -> None:
    def lacking(container: Container) -> Done:
        text = "\n".join(line for line in HELP.splitlines() if "--cache-ram" not in line)
        return Done(0, text, "", 0.1) if container.words == ["--help"] else serves(container)

    host.docker.programs[NEW, "llama-server"] = lacking
    message = failed(host.tried())["options"]
    assert "dense: --cache-ram is unknown to the candidate" in message
    assert "moe: --cache-ram is unknown to the candidate" in message


def test_a_value_that_the_candidates_parser_refuses_is_its_own_word(host: Host) -> None:
    def picky(container: Container) -> Done:
        if list(container.words[-1:]) == ["--version"] and len(container.words) > 1:
            return Done(
                1, "", 'error while handling argument "--cache-type-k": Unsupported cache type: f16\nusage:', 0.1
            )
        return serves(container)

    host.docker.programs[NEW, "llama-server"] = picky
    assert 'dense: error while handling argument "--cache-type-k"' in failed(host.tried())["options"]


def test_a_candidate_that_needs_more_than_there_is_fails(host: Host) -> None:
    host.available = 400
    report = host.tried()
    assert "MiB of the host's memory to be tried beside what serves" in failed(report)["short-prompt"]
    assert found(report, "speed") == []


def test_memory_that_nobody_could_be_asked_about_is_skipped_with_the_reason(host: Host) -> None:
    host.busy = "rtx4090 has 100 MiB free"
    (memory,) = found(host.tried(), "memory")
    assert (memory.status, "dense not asked: rtx4090 has 100 MiB free" in memory.message) == (Status.SKIPPED, True)


def test_an_engine_that_is_wrong_on_long_prompts_alone_is_found(host: Host) -> None:
    host.candidate = PlayedModel(hears=lambda prompt: prompt[:100] + tuple(token + 1 for token in prompt[100:]))
    report = host.tried()
    assert failed(report).keys() == {"long-prompt"}
    assert {check.status for check in found(report, "short-prompt")} == {Status.OK}
    message = failed(report)["long-prompt"]
    assert message.startswith("qwen3moe: the candidate answers otherwise: ")
    assert "after 320, 512, 768 tokens, on the CPU" in message


def test_an_engine_that_answers_no_prompt_fails_both(host: Host) -> None:
    host.candidate = PlayedModel(says=refuses)
    assert failed(host.tried())["long-prompt"].endswith("the server answers /completion with HTTP 500: no slot")


def test_a_server_that_does_not_come_up_is_told_with_its_last_words(host: Host) -> None:
    host.docker.lives[NEW] = Life(running=False, code=1, out_of_memory=False)
    assert failed(host.tried())["short-prompt"] == (
        "qwen3moe: the candidate does not serve: it ended with 1: error: invalid argument: --threads"
    )
    host.docker.lives[NEW] = Life(running=False, code=137, out_of_memory=True)
    assert failed(host.tried())["short-prompt"].endswith("it was ended because the host's memory ran out")


def test_a_server_that_ends_just_when_its_port_is_asked_for_is_told_with_its_last_words(host: Host) -> None:
    host.docker.ends_while_looked_at = True
    assert failed(host.tried())["short-prompt"].endswith("it ended with 1: error: invalid argument: --threads")


def test_an_old_engine_that_cannot_be_compared_with_is_told_as_such(host: Host) -> None:
    host.docker.lives[OLD] = Life(running=False, code=1, out_of_memory=False)
    assert "the engine that serves cannot be compared with" in failed(host.tried())["short-prompt"]


def test_an_engine_that_is_slower_than_it_may_be_fails_with_by_how_much(host: Host) -> None:
    host.docker.programs[NEW, "llama-bench"] = bench(995, 85)
    report = host.tried()
    assert failed(report)["speed"].startswith("qwen3moe: slower by 15.0 % in generation, 10 % is the most: prompt 995")
    assert host.tried(slower=20).passed


def test_a_bench_without_figures_fails(host: Host) -> None:
    host.docker.programs[NEW, "llama-bench"] = done("[\n", "llama_bench: error: failed to load model", 1)
    assert "llama-bench gives no figures: llama_bench: error: failed to load model" in failed(host.tried())["speed"]
    host.docker.programs[NEW, "llama-bench"] = done(code=None)
    assert "took more than 1800 s" in failed(host.tried())["speed"]


def recorded(name: str, backend: str) -> str:
    return (RECORDED / f"{name}.txt").read_text(encoding="utf-8").replace("BLAS", backend)


@pytest.fixture
def cards(host: Host) -> Host:
    host.gpus = ["GPU-1", "GPU-2"]
    host.docker.programs[NEW, "test-backend-ops"] = done(recorded("right", "CUDA0"))
    return host


def test_operations_are_tested_on_each_card_of_the_services(cards: Host) -> None:
    (ops,) = found(cards.tried(), "ops")
    assert (ops.status, ops.message) == (Status.OK, "88 cases come out on 2 cards as on the CPU")
    ran = [container for container in cards.docker.ran if container.program == "test-backend-ops"]
    assert [list(container.gpus) for container in ran] == [["GPU-1"]] * 4 + [["GPU-2"]] * 4
    assert ran[0].words == ["test", "-o", "MUL_MAT"]


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (
            done(recorded("wrong", "CUDA0"), code=1),
            Status.FAIL,
            "56 of 88 cases are wrong on 2 cards: MUL_MAT(type_a=q4_0",
        ),
        (done(recorded("right", "BLAS")), Status.FAIL, "the candidate sees no device but BLAS, CPU on GPU-1"),
        (done(err="executable file not found", code=127), Status.SKIPPED, "the image has no test-backend-ops"),
        (done(recorded("right", "CUDA0"), code=None), Status.OK, "MUL_MAT was ended after 300 s"),
        (done(recorded("right", "CUDA0"), "illegal memory access", 134), Status.FAIL, "crashed on GPU-1 (exit 134)"),
        (done(recorded("right", "CUDA0"), "CUDA error: out of memory", 134), Status.OK, "no memory free beside what"),
    ],
    ids=["wrong", "no card", "no program", "too long", "crash", "no room"],
)
def test_what_comes_of_the_operations_is_told(cards: Host, answer: Answerer, status: Status, said: str) -> None:
    cards.docker.programs[NEW, "test-backend-ops"] = answer
    (ops,) = found(cards.tried(), "ops")
    assert ops.status is status
    assert said in ops.message


def test_an_engine_that_serves_and_says_no_options_ends_the_trial(host: Host) -> None:
    host.docker.programs[OLD, "llama-server"] = done(code=1)
    with pytest.raises(LlamarigError, match="engine:old does not say its options"):
        host.tried()
