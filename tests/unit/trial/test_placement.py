from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamarig.config.spec import Spec
from llamarig.runtime.breakdown import Breakdown, Part
from llamarig.runtime.fit_params import Answer, Estimate, JudgeError
from llamarig.trial.placement import NoRoomError, Placement, available_mib, place, shares_weights
from llamarig.trial.subjects import Subject
from tests.support import after, argv_of, make_spec, variables

CARDS = ["GPU-1", "GPU-2"]
ON_CARDS = Breakdown((Part("CUDA0", 8000, 100, 200), Part("CUDA1", 4000, 50, 100)), Part("Host", 500, 0, 60))
ON_CPU = Breakdown((), Part("Host", 12000, 150, 300))
FITTED = ["--model", "/models/chat.gguf", "--no-repack", "-c", "1024", "-ngl", "20", "-ts", "14,6", "--fit", "off"]


class Judge:
    """The old engine's tool: what it answers with, and what it was asked."""

    def __init__(self, *answers: Estimate | JudgeError) -> None:
        self.answers = list(answers)
        self.asked: list[Spec] = []

    def estimate(self, spec: Spec) -> Estimate:
        self.asked.append(spec)
        answer = self.answers.pop(0)
        if isinstance(answer, JudgeError):
            raise answer
        return answer


def estimated(parts: Breakdown | None, words: list[str], answer: Answer = Answer.ESTIMATED, text: str = "") -> Estimate:
    return Estimate(answer, parts, text, words, [], 0.1)


def subject(**changes: Any) -> Subject:
    server = {"ctx_size": 32768, "cache_type_k": "q8_0", "threads": 8, "parallel": 4, "n_predict": 100}
    argv = argv_of(variables(service={"server": server}))
    argv[argv.index("--model") + 1] = "/models/chat.gguf"
    return Subject(make_spec("chat", argv=argv, **changes), "qwen3moe", 12000, 25, 4096)


def placed(judge: Judge, *, available: int = 64000, shared: bool = False, **changes: Any) -> Placement:
    return place(subject(**changes), "engine:old", judge, available, shared=shared)


def test_the_old_engine_is_asked_what_fits_beside_what_runs_with_the_services_own_settings() -> None:
    judge = Judge(estimated(ON_CARDS, FITTED))
    placed(judge, gpus=CARDS)
    (asked,) = judge.asked
    assert (asked.image, asked.gpus) == ("engine:old", CARDS)
    for option, value in (
        ("--model", "/models/chat.gguf"),
        ("--ctx-size", "1024"),
        ("--parallel", "1"),
        ("--fit", "on"),
        ("--fit-target", "512"),
        ("--cache-type-k", "q8_0"),
        ("--threads", "8"),
        ("--flash-attn", after(asked.argv, "--flash-attn")),
        ("--load-mode", "mmap"),
    ):
        assert after(asked.argv, option) == value
    assert not {"--gpu-layers", "--port", "--host", "--predict", "--device"} & set(asked.argv)


def test_both_engines_get_the_layout_as_plain_arguments() -> None:
    found = placed(Judge(estimated(ON_CARDS, FITTED)), gpus=CARDS)
    words = list(found.words)
    assert (after(words, "--gpu-layers"), after(words, "--tensor-split"), after(words, "--fit")) == (
        "20",
        "14,6",
        "off",
    )
    assert "--no-repack" not in words
    assert (found.gpus, found.layers, found.text) == (("GPU-1", "GPU-2"), 20, "20 of 25 layers on the cards")


def test_all_layers_are_said_as_a_number_that_engines_of_every_age_take() -> None:
    found = placed(Judge(estimated(ON_CARDS, ["-c", "1024", "-ngl", "-1"])), gpus=CARDS)
    assert after(list(found.words), "--gpu-layers") == "999"
    assert found.text == "25 of 25 layers on the cards"


def test_experts_on_the_cpu_are_told_and_reach_llama_bench_in_its_own_grammar() -> None:
    override = r"blk\.3\.ffn_down.*=CUDA1,blk\.(4|5)\.ffn_(up|down|gate)_(ch|)exps=CPU"
    words = ["-ngl", "25", "-ts", "12,13", "-ot", override]
    found = placed(Judge(estimated(ON_CARDS, words)), gpus=CARDS)
    assert found.text == "25 of 25 layers on the cards, experts of some of them on the CPU"
    bench = found.bench_words()
    assert after(bench, "--override-tensor") == override.replace(",", ";")
    assert (after(bench, "--tensor-split"), after(bench, "--n-gpu-layers")) == ("12/13", "25")
    assert (after(bench, "--cache-type-k"), after(bench, "--threads")) == ("q8_0", "8")
    assert not {"--ctx-size", "--parallel", "--fit", "--load-mode", "--offline", "--gpu-layers"} & set(bench)


def test_switches_reach_llama_bench_with_the_value_that_says_them() -> None:
    words = ("--model", "m", "--no-kv-offload", "--no-op-offload", "--no-repack", "--swa-full", "--device", "none")
    bench = Placement((), words, 0, 1, "").bench_words()
    assert bench == [
        *("--model", "m", "--no-kv-offload", "1", "--no-op-offload", "1", "--repack", "0", "--device", "none")
    ]


@pytest.mark.parametrize(
    "answer",
    [
        estimated(None, [], Answer.NO_LAYOUT, "failed to fit params to free device memory"),
        JudgeError("chat: no container starts: unknown device", "sudo llamarig doctor"),
    ],
    ids=["no layout", "not asked"],
)
def test_without_room_on_the_cards_everything_is_on_the_cpu_and_why_is_told(answer: Estimate | JudgeError) -> None:
    found = placed(Judge(answer, estimated(ON_CPU, [])), gpus=CARDS)
    assert (found.gpus, found.layers) == ((), 0)
    assert (after(list(found.words), "--device"), after(list(found.words), "--gpu-layers")) == ("none", "0")
    assert found.text.startswith("on the CPU: ")


def test_a_service_without_cards_is_tried_without_cards() -> None:
    judge = Judge(estimated(ON_CPU, []))
    found = placed(judge)
    assert (found.text, found.gpus, judge.asked[0].gpus) == ("on the CPU", (), [])
    assert found.memory_mib == 64000 - 512


def test_a_host_without_the_memory_is_told_with_figures_and_what_to_do() -> None:
    with pytest.raises(NoRoomError, match=r"chat needs 12962 MiB .* 11488 are free") as refused:
        placed(Judge(estimated(ON_CPU, [])), available=12000)
    assert "llamarig stop" in refused.value.remedy


def test_weights_that_the_running_service_maps_are_in_memory_once() -> None:
    found = placed(Judge(estimated(ON_CPU, [])), available=2000, shared=True)
    assert found.text == "on the CPU, weights shared with the service that runs"
    assert "--no-repack" in found.words
    with pytest.raises(NoRoomError):
        placed(Judge(estimated(ON_CPU, [])), available=1000, shared=True)


def test_an_engine_that_gives_no_estimate_at_all_is_an_error() -> None:
    with pytest.raises(JudgeError, match="gives no estimate: GGML_ASSERT"):
        placed(Judge(estimated(None, [], Answer.ENGINE_BUG, "GGML_ASSERT(x) failed")))


def test_files_are_shared_where_a_service_that_runs_maps_them() -> None:
    spec = make_spec("chat", argv=["--model", "/models/chat.gguf", "--load-mode", "mmap"])
    assert shares_weights(spec, [spec])
    assert not shares_weights(spec, [replace(spec, argv=["--model", "/models/chat.gguf", "--load-mode", "none"])])
    assert not shares_weights(spec, [make_spec("other", argv=spec.argv)])
    assert not shares_weights(spec, [])


def test_what_is_available_is_the_kernels_word(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  32000000 kB\nMemFree: 1 kB\nMemAvailable:  20480000 kB\n")
    assert available_mib(tmp_path) == 20000
