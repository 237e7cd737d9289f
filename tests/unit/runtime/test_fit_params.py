"""The judge against a Docker command that plays its part; its answers are those of llama-fit-params 0.7.0."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from llamarig.config.engine_options import RECORDED, parse_help, recorded_options
from llamarig.config.spec import DeviceMemory, HostMemory, Memory, Spec, SpecFile
from llamarig.runtime import fit_params
from llamarig.runtime.breakdown import Breakdown, Part
from llamarig.runtime.fit_params import (
    KEPT_SWITCHES,
    SWITCHES,
    UNSEEN,
    VALUED,
    Answer,
    DockerJudge,
    JudgeError,
    corrected,
    projector_mib,
    question,
    read_estimate,
    run_command,
)
from tests.support import after, argv_of, make_spec, variables
from tests.unit.runtime.test_container_probe import PlayedDocker

UUIDS = ["GPU-1", "GPU-2"]
SAID = "CUDA0 18210 1008 600 \nCUDA1 9489 864 320 \nHost 369 0 64 \n"
ASSERTION = "ggml-backend.cpp:1442: GGML_ASSERT(*cur_backend_id != -1) failed"
MISSING = """\
0.00.008.533 I llama_fit_params: printing estimated memory in MiB to stdout (device, model, context, compute) ...
0.00.008.709 E gguf_init_from_file: failed to open GGUF file '/models/a.gguf' (No such file or directory)
0.00.009.429 E llama_model_load: error loading model: llama_model_loader: failed to load model from /models/a.gguf
"""
BOGUS = """\
error while handling argument "--cache-type-k": Unsupported cache type: bogus

usage:
-ctk,  --cache-type-k TYPE              KV cache data type for K


to show complete usage, run with -h
"""
NO_LAYOUT = """\
0.00.008.1 W common_fit_params: failed to fit params to free device memory
0.00.008.2 E llama_fit_params: failed to fit CLI arguments to free memory, exiting...
"""
FITTED = '-c 8192 -ngl 95 -ts 16,79 -ot "blk\\.15\\.ffn_down.*=CUDA1,blk\\.24\\.ffn_(up|gate)_(ch|)exps=CPU"\n'


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedDocker:
    played = PlayedDocker(tmp_path)
    monkeypatch.setattr(fit_params, "_DOCKER", str(played.path))
    return played


def spec_with(*words: str, **changes: Any) -> Spec:
    return make_spec(argv=["--model", "/models/a.gguf", "--parallel", "1", *words], **changes)


def memory(*computes: int, logits: int = 0) -> Memory:
    cards = [DeviceMemory(f"card{n}", f"GPU-{n}", 24564, 612, 400, 1, 1, size) for n, size in enumerate(computes, 1)]
    return Memory(cards, HostMemory(60000, 1, 1, 1, 1088), "header", 32, logits, [])


def asked(docker: PlayedDocker, image: str = "llamarig/llama-cpp:test") -> list[list[str]]:
    """The words of the tool in each run."""
    return [call[call.index(image) + 1 :] for call in docker.calls if call[0] == "run"]


def test_the_options_that_are_kept_are_known_to_the_tool_and_take_there_what_a_server_takes() -> None:
    text = files("llamarig").joinpath("data", "llama-fit-params-help", f"{RECORDED}.txt").read_text(encoding="utf-8")
    tool, server = parse_help(text), recorded_options()
    for name in VALUED:
        assert tool[name.lstrip("-")].names == server[name.lstrip("-")].names, name
        assert not tool[name.lstrip("-")].is_switch, name
    for name in KEPT_SWITCHES | {"--no-repack"}:
        assert tool[name.lstrip("-")].is_switch, name
    assert "fit-print" in tool
    assert [name for name in UNSEEN if name.lstrip("-") in tool] == []


def test_every_option_of_a_server_without_a_value_is_known_to_have_none() -> None:
    options = {option.name: option for option in recorded_options().values()}
    assert {name for name, option in options.items() if option.is_switch} == (KEPT_SWITCHES | SWITCHES) & set(options)
    assert (KEPT_SWITCHES | SWITCHES) - set(options) == {"--no-kv-offload", "--no-op-offload"}
    negated = [name for name, option in recorded_options().items() if name.startswith("no-")]
    assert [name for name in negated if not recorded_options()[name].is_switch] == []


def test_a_planned_server_is_asked_about_as_it_is() -> None:
    """The planner's own arguments: nothing that decides memory is lost, and nothing else is asked."""
    server = {"ctx_size": 16384, "cache_type_k": "q8_0", "swa_full": True, "kv_offload": False, "parallel": 2}
    argv = argv_of(variables(service={"server": server}))
    words = question(make_spec(argv=argv)).words
    for option in ("--model", "--ctx-size", "--cache-type-k", "--parallel", "--device", "--gpu-layers", "--load-mode"):
        assert after(words, option) == after(argv, option)
    assert {"--swa-full", "--no-kv-offload", "--no-repack"} <= set(words)
    assert after(words, "--fit") == "off"
    assert not {"--port", "--host", "--log-jsonl", "--alias", "--jinja", "--metrics", "--timeout"} & set(words)


def test_a_value_that_looks_like_an_option_stays_a_value() -> None:
    words = question(spec_with("--alias", "--ctx-size", "--jinja", "--ctx-size", "4096", "--temp", "-1")).words
    assert words == ["--model", "/models/a.gguf", "--parallel", "1", "--ctx-size", "4096", "--no-repack"]


@pytest.mark.parametrize("said", [["--parallel", "-1"], []], ids=["-1", "unsaid"])
def test_automatic_slots_are_the_four_that_a_server_makes_of_them(said: list[str]) -> None:
    asked_for = question(make_spec(argv=["--model", "/models/a.gguf", *said, "--ctx-size", "4096"]))
    assert after(asked_for.words, "--parallel") == "4"
    assert asked_for.words.count("--parallel") == 1
    assert asked_for.unseen == ["--kv-unified"]


def test_what_decides_memory_and_the_tool_does_not_know_is_named() -> None:
    several = spec_with("--parallel", "4", "--kv-unified", "--mmproj", "/models/p.gguf", "--spec-type", "draft-mtp")
    assert question(several).unseen == ["--kv-unified", "--mmproj", "--spec-type"]
    assert question(spec_with("--kv-unified", "--spec-type", "none")).unseen == []


def test_the_container_has_what_the_service_has_and_nothing_it_lacks() -> None:
    command = run_command(make_spec(gpus=UUIDS, models_dir="/srv/models"), ["--model", "/models/a.gguf"])
    assert command[:2] == ["/usr/bin/docker", "run"]
    assert [command[n + 1] for n, word in enumerate(command) if word == "--device"] == [
        "nvidia.com/gpu=GPU-1",
        "nvidia.com/gpu=GPU-2",
    ]
    for option, value in (
        ("--network", "none"),
        ("--user", "788:788"),
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--pull", "never"),
        ("--volume", "/srv/models:/models:ro"),
        ("--entrypoint", "llama-fit-params"),
        ("--memory", "2048m"),
        ("--memory-swap", "2048m"),
    ):
        assert after(command, option) == value
    assert "--read-only" in command
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in command
    assert command[-3:] == ["llamarig/llama-cpp:test", "--model", "/models/a.gguf"]


def test_a_service_without_a_card_is_asked_about_without_one() -> None:
    command = run_command(make_spec(), [])
    assert "--device" not in command
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" not in command


def test_an_estimate_is_read_device_by_device(docker: PlayedDocker) -> None:
    docker.does((0, SAID, "0.00.008.3 I llama_fit_params: printing ...", 0))
    estimate = DockerJudge().estimate(spec_with(gpus=UUIDS))
    assert estimate.answer is Answer.ESTIMATED
    assert estimate.parts == Breakdown(
        (Part("CUDA0", 18210, 1008, 600), Part("CUDA1", 9489, 864, 320)), Part("Host", 369, 0, 64)
    )
    assert asked(docker) == [["--model", "/models/a.gguf", "--parallel", "1", "--no-repack", "--fit-print", "on"]]


def test_of_strategy_fit_the_layout_is_asked_for_first_and_then_what_it_takes(docker: PlayedDocker) -> None:
    docker.does((0, FITTED, "", 0), (0, SAID, "", 0))
    estimate = DockerJudge().estimate(spec_with("--fit", "on", "--fit-target", "128,128", "--fit-ctx", "4096"))
    first, second = asked(docker)
    assert after(first, "--fit-target") == "128,128"
    assert "--fit-print" not in first
    assert after(second, "-ts") == "16,79"
    assert after(second, "-ot") == r"blk\.15\.ffn_down.*=CUDA1,blk\.24\.ffn_(up|gate)_(ch|)exps=CPU"
    assert after(second, "--fit") == "off"
    assert not {"--fit-target", "--fit-ctx"} & set(second)
    assert estimate.answer is Answer.ESTIMATED


def test_of_strategy_fit_the_engine_may_find_no_layout(docker: PlayedDocker) -> None:
    docker.does((1, "", NO_LAYOUT, 0))
    estimate = DockerJudge().estimate(spec_with("--fit", "on"))
    assert (estimate.answer, estimate.parts) == (Answer.NO_LAYOUT, None)
    assert "failed to fit CLI arguments to free memory" in estimate.text
    assert len(asked(docker)) == 1


@pytest.mark.parametrize(
    ("code", "errors", "answer", "text"),
    [
        (139, MISSING, Answer.REFUSED, "gguf_init_from_file: failed to open GGUF file '/models/a.gguf'"),
        (1, BOGUS, Answer.REFUSED, 'error while handling argument "--cache-type-k": Unsupported cache type: bogus'),
        # The logger's own thread may be first.
        (1, f"0.1 E cmn  string_parse: malformed\n{BOGUS}", Answer.REFUSED, "Unsupported cache type: bogus"),
        (134, f"0.1 I loading\n{ASSERTION}\nbacktrace ...\n", Answer.ENGINE_BUG, ASSERTION),
        (139, "", Answer.REFUSED, "llama-fit-params says nothing (exit 139)"),
    ],
)
def test_no_estimate_is_told_in_the_engines_own_words(
    docker: PlayedDocker, code: int, errors: str, answer: Answer, text: str
) -> None:
    docker.does((code, "", errors, 0))
    estimate = DockerJudge().estimate(spec_with())
    assert (estimate.answer, estimate.parts) == (answer, None)
    assert text in estimate.text


def test_an_answer_that_lacks_the_host_is_none(docker: PlayedDocker) -> None:
    docker.does((0, "CUDA0 18210 1008 600 \n", "", 0))
    assert DockerJudge().estimate(spec_with()).answer is Answer.REFUSED
    assert read_estimate("Host 1 2 \n") is None
    assert read_estimate("Host 1 2 3\nCUDA0 1 2 3\n") is None


@pytest.mark.parametrize(
    ("outcome", "gpus", "message", "remedy"),
    [
        (
            (125, "", "docker: Error response from daemon: CDI device injection failed: unresolvable GPU-1.\n", 0),
            UUIDS,
            "chat: no container starts: CDI device injection failed: unresolvable GPU-1",
            "checks compute and cdi",
        ),
        ((125, "", "", 0), [], "chat: no container starts: no reason", "sudo docker info"),
        (
            (127, "", 'exec: "llama-fit-params": executable file not found in $PATH: unknown.\n', 0),
            [],
            "llamarig/llama-cpp:test has no llama-fit-params",
            "build the engine's image with it",
        ),
        (
            (134, "", "ggml-cuda.cu:98: CUDA error: out of memory\n", 0),
            UUIDS,
            "cannot use the cards: ggml-cuda.cu:98: CUDA error: out of memory",
            "stop what fills the cards",
        ),
        (
            (0, "Host 9 9 9\n", "ggml_cuda_init: failed to initialize CUDA: unknown error\n", 0),
            UUIDS,
            "failed to initialize CUDA",
            "check compute",
        ),
    ],
)
def test_what_is_not_the_engines_word_on_the_spec_is_an_error_that_may_pass(
    docker: PlayedDocker, outcome: tuple[int, str, str, float], gpus: list[str], message: str, remedy: str
) -> None:
    docker.does(outcome)
    with pytest.raises(JudgeError) as caught:
        DockerJudge().estimate(spec_with(gpus=gpus))
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_an_image_for_cuda_is_no_trouble_where_no_card_was_given(docker: PlayedDocker) -> None:
    docker.does((0, "Host 9 9 9\n", "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device\n", 0))
    assert DockerJudge().estimate(spec_with()).answer is Answer.ESTIMATED


def test_a_judge_that_does_not_answer_is_removed_and_told(docker: PlayedDocker) -> None:
    docker.does((0, "", "", 60))
    with pytest.raises(JudgeError, match=r"chat: llama-fit-params did not answer within 0\.3 s"):
        DockerJudge(0.3).estimate(spec_with())
    assert docker.calls[-1][:2] == ["rm", "--force"]
    assert docker.calls[-1][2] == after(docker.calls[0], "--name")


def test_a_host_without_docker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_params, "_DOCKER", str(tmp_path / "docker"))
    with pytest.raises(JudgeError, match="is not there"):
        DockerJudge().estimate(spec_with())


@pytest.mark.parametrize(
    ("words", "computes"),
    [
        (["--tensor-split", "33,14"], [600, 20]),
        (["--tensor-split", "33,0"], [300, 320]),
        (["--tensor-split", "20,0.5"], [600, 20]),
        (["-ts", "16,79"], [600, 20]),
        (["--split-mode", "none"], [300, 320]),
        ([], [600, 20]),
    ],
)
def test_logits_that_no_server_reserves_are_taken_off_the_device_of_the_output(
    words: list[str], computes: list[int]
) -> None:
    parts = read_estimate(SAID)
    assert parts is not None
    better = corrected(spec_with(*words, memory=memory(600, 320, logits=300)), parts, words)
    assert [part.compute for part in better.devices] == computes
    assert [part.weights for part in better.devices] == [18210, 9489]
    assert better.host == parts.host


def test_no_correction_goes_below_zero() -> None:
    parts = Breakdown((Part("CUDA0", 1, 1, 100),), Part("Host", 1, 1, 100))
    assert corrected(spec_with(memory=memory(1, logits=300)), parts, []).devices[0].compute == 0


def test_where_all_layers_are_on_the_host_the_logits_are_too() -> None:
    parts = Breakdown((), Part("Host", 1, 1, 400))
    assert corrected(spec_with(memory=memory(logits=300)), parts, []).host.compute == 100


def test_without_a_prediction_nobody_knows_the_logits() -> None:
    parts = read_estimate(SAID)
    assert parts is not None
    assert corrected(spec_with(), parts, []) == parts


def test_a_vision_projector_is_added_where_the_server_puts_it() -> None:
    files = [SpecFile("/srv/llamarig/models/a.gguf", 9 << 20, "a"), SpecFile("/srv/llamarig/models/v/p", 7 << 20, "b")]
    spec = spec_with("--mmproj", "/models/v/p", files=files)
    assert projector_mib(spec) == 7
    parts = Breakdown((Part("CUDA0", 1, 1, 1), Part("CUDA1", 1, 1, 1)), Part("Host", 1, 1, 1))
    assert [part.weights for part in corrected(spec, parts, []).devices] == [8, 1]
    on_host = spec_with("--mmproj", "/models/v/p", "--no-mmproj-offload", files=files)
    assert corrected(on_host, parts, []).host.weights == 8
    assert corrected(spec, Breakdown((), parts.host), []).host.weights == 8
    assert projector_mib(spec_with(files=files)) == 0
