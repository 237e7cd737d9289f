"""What was learnt the hard way: each lesson is said where it applies, and nowhere else."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from llamarig.planning.intent import plan_host
from tests.support import HOST, problems, variables
from tests.unit.planning.layouts import RTX4090, RTX5070TI, shape

DENSE, MOE = ("qwen3-4b", "q4_k_m"), ("gpt-oss-20b", "mxfp4-f16")
HYBRID = ("qwen3.5-35b-a3b", "q4_k_m")


def intent(model: tuple[str, str] | None = DENSE, *, strategy: str = "A", **server: Any) -> dict[str, Any]:
    """A host with one RTX 4090 and a service with these server options; ``service`` holds other keys of it."""
    extra = server.pop("service", {})
    cards = server.pop("cards", [RTX4090])
    hardware = {
        "memory_mib": 65536,
        "cpu_threads": 16,
        "gpus": [card.model_dump(exclude_none=True) for card in cards if strategy != "cpu"],
    }
    data = variables(host_hardware=hardware, service={"strategy": strategy, "server": server, **extra})
    data["llm_profiles_test"]["small"]["server"] = {}
    if model:
        data["llm_profiles_test"]["small"]["shape"] = shape(*model).to_dict()
    return data


def warned(data: dict[str, Any]) -> list[str]:
    warnings: list[str] = plan_host(HOST, data)["warnings"]
    assert all(warning.startswith("chat: ") for warning in warnings)
    return [warning.removeprefix("chat: ") for warning in warnings]


def test_settings_that_cost_nothing_are_not_spoken_of() -> None:
    assert warned(intent()) == []
    assert warned(intent(MOE)) == []
    assert warned(intent(HYBRID, strategy="auto")) == []


@pytest.mark.parametrize("key", ["batch_size", "ubatch_size"])
def test_fit_chooses_batches_itself(key: str) -> None:
    assert warned(intent(strategy="fit")) == []
    argv = plan_host(HOST, intent(strategy="fit"))["specs"][0]["argv"]
    assert not {"--batch-size", "--ubatch-size", "--gpu-layers", "--tensor-split"} & set(argv)
    said: dict[str, Any] = {key: 512}
    (problem,) = problems(intent(strategy="fit", **said))
    assert problem.key == f"server.{key}"
    assert "7 %" in problem.message
    assert f"{key}: null" in problem.remedy
    assert plan_host(HOST, intent(strategy="fit", **dict.fromkeys(said)))["specs"]


@pytest.mark.parametrize("flash", [False, "off", "0", "disabled"])
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_quantised_values_need_flash_attention(flash: bool | str, kind: str) -> None:
    (problem,) = problems(intent(flash_attn=flash, cache_type_v=kind, cache_type_k=kind))
    assert problem.key == "server.cache_type_v"
    assert "flash_attn: auto" in problem.remedy
    assert plan_host(HOST, intent(flash_attn=flash, cache_type_k="q8_0"))["specs"]
    assert plan_host(HOST, intent(flash_attn="auto", cache_type_v=kind))["specs"]
    assert plan_host(HOST, intent(flash_attn=True, cache_type_v=kind))["specs"]


def test_an_engine_must_say_whether_it_works() -> None:
    (problem,) = problems(intent(slots=False))
    assert problem.key == "server.slots"
    assert "could not tell one that hangs" in problem.message
    assert plan_host(HOST, intent(slots=True))["specs"]


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_nothing_would_end_the_engine(batch: int) -> None:
    (problem,) = problems(intent(batch_size=batch, ubatch_size=None))
    assert problem.key == "server.batch_size"


def test_a_larger_ubatch_is_said_to_cost_memory() -> None:
    assert warned(intent(ubatch_size=512)) == []
    assert warned(intent(ubatch_size=256)) == []
    (warning,) = warned(intent(ubatch_size=2048))
    assert warning.startswith("ubatch_size 2048 costs ")
    assert warning.endswith(" MiB more on the devices than 512")
    two = warned(
        intent(
            MOE,
            strategy="C",
            cards=[RTX4090, RTX5070TI],
            ubatch_size=2048,
            service={"blocks": {"rtx-4090": 12, "rtx-5070-ti": 12}},
        )
    )
    assert any("ubatch_size 2048 costs " in warning and ", " in warning for warning in two)


def test_a_context_beyond_the_trained_one_is_spoken_of() -> None:
    assert warned(intent(("qwen3-32b", "q4_k_m"), ctx_size=8192)) == []
    (warning,) = warned(intent(("qwen3-32b", "q4_k_m"), strategy="cpu", ctx_size=65536))
    assert warning == "ctx_size gives a slot 65536 tokens, and the model was trained for 40960"
    assert warned(intent(("qwen3-32b", "q4_k_m"), strategy="cpu", ctx_size=65536, parallel=2)) == []


def test_slots_that_share_a_short_context_are_spoken_of() -> None:
    assert warned(intent(ctx_size=32768, parallel=4)) == []
    assert warned(intent(ctx_size=8192, parallel=4, kv_unified=True)) == []
    (warning,) = warned(intent(ctx_size=8192, parallel=4))
    assert warning == "ctx_size 8192 is shared by 4 slots: a conversation has 2048 tokens"


def test_shifting_the_context_cannot_work_on_recurrent_layers() -> None:
    assert warned(intent(DENSE, context_shift=True)) == []
    assert warned(intent(HYBRID, strategy="auto", context_shift=False)) == []
    (warning,) = warned(intent(HYBRID, strategy="auto", context_shift=True))
    assert "context_shift cannot work on recurrent layers" in warning


@pytest.mark.parametrize("strategy", ["B", "C", "D"])
def test_a_strategy_for_several_cards_over_one_is_spoken_of(strategy: str) -> None:
    model = DENSE if strategy == "B" else MOE
    assert warned(intent(model, strategy="A")) == []
    assert f"strategy {strategy} over one card is strategy A with more words" in warned(
        intent(model, strategy=strategy)
    )


def test_experts_on_the_cpu_although_they_fit_are_spoken_of() -> None:
    (warning,) = warned(intent(MOE, strategy="D", service={"blocks": {"rtx-4090": 20}}))
    assert "although all fit" in warning


def test_what_the_prediction_does_not_hold_is_said_by_name() -> None:
    assert "not predicted: lora" in warned(intent(lora=["a.gguf", "b.gguf"]))
    spec = plan_host(HOST, intent(lora="a.gguf"))["specs"][0]
    assert spec["memory"]["unknown"] == ["lora"]


def test_without_a_shape_it_is_said_that_nothing_is_predicted() -> None:
    (warning,) = warned(intent(None))
    assert "no memory is predicted" in warning


def test_a_lesson_is_said_wherever_the_setting_comes_from() -> None:
    of_profile, of_fleet = intent(strategy="fit"), intent(strategy="fit")
    of_profile["llm_profiles_test"]["small"]["server"] = {"ubatch_size": 1024}
    of_fleet["llm_server_defaults"] = {"ubatch_size": 1024}
    assert problems(of_fleet)[0].key == "server.ubatch_size"
    # What a profile recommends is taken away by the strategy's layer, which lies over it.
    assert warned(of_profile) == []
    mended = copy.deepcopy(of_fleet)
    mended["llm_services"][0]["server"] = {"ubatch_size": None}
    assert warned(mended) == []
