"""Compute buffers, compared with what the engine said (benchmarks/compute.py writes compute_recorded.json)."""

import json
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamarig.config.shape import Shape, Tensor
from llamarig.lab.ghosts import published_shape
from llamarig.planning.compute import compute_buffers
from llamarig.planning.layout import HOST, Layout, Settings, assign_units
from llamarig.planning.memory import block_count

MIB = 1 << 20
RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("compute_recorded.json").read_text())
CASES: list[dict[str, Any]] = RECORDED["cases"]
MODELS = sorted({case["model"] for case in CASES})
LOADED = sorted({case["model"] for case in CASES if "blocks" in case})
BARE = Settings(8192)


def layout_of(shape: Shape, case: dict[str, Any]) -> Layout:
    blocks, devices = block_count(shape), case["devices"]
    units = assign_units(blocks, case.get("layers", blocks + 1), case["split"]) if devices else (HOST,) * (blocks + 1)
    experts = tuple(HOST if block < case["bare"] else units[block] for block in range(blocks)) if "bare" in case else ()
    return Layout(devices, units, experts, offloads=False)


def on_one(shape: Shape, **changes: Any) -> Layout:
    """All on one device that takes nothing from the host, but for what is changed."""
    return replace(Layout(1, (0,) * (block_count(shape) + 1), offloads=False), **changes)


def compared(case: dict[str, Any]) -> list[tuple[float, float]]:
    """What is predicted and what the engine said, of each device and of the host, in MiB."""
    shape = published_shape(case["model"], case["mix"], case.get("blocks"))
    found = compute_buffers(shape, layout_of(shape, case), Settings(**case["settings"]))
    assert found.known
    loaded = "blocks" in case
    sizes, host = (found.devices, found.host) if loaded else (found.fitted, found.fitted_host)
    said = case["compute"]
    pairs = [(size / MIB, said.get(f"RPC{number}", 0.0)) for number, size in enumerate(sizes)]
    return [*pairs, (host / MIB, said.get("Host", 0.0))]


@pytest.mark.parametrize("model", MODELS)
def test_what_is_predicted_is_what_the_engine_reserves(model: str) -> None:
    for case in [case for case in CASES if case["model"] == model]:
        for predicted, said in compared(case):
            assert predicted == pytest.approx(said, rel=0.03, abs=32), case["arguments"]


def test_most_of_it_is_exact() -> None:
    off = sorted(abs(predicted - said) for case in CASES for predicted, said in compared(case))
    assert statistics.median(off) < 1  # llama-fit-params says whole MiB
    assert off[int(0.9 * len(off))] < 8


def test_the_record_holds_every_kind_of_case() -> None:
    kinds = Counter(
        kind
        for case in CASES
        for kind in (
            "layers",
            "bare",
            "blocks",
            f"devices {case['devices']}",
            f"flash {case['settings']['flash_attention']}",
        )
        if kind in case or " " in kind
    )
    for kind in ("layers", "bare", "blocks", "devices 0", "devices 1", "devices 2", "devices 4", "flash False"):
        assert kinds[kind] > 4
    assert len(MODELS) > 60
    assert len(LOADED) > 5


def test_logits_are_what_a_whole_batch_of_them_takes_more() -> None:
    shape = published_shape("llama-3.1-8b", "q8_0")
    found = compute_buffers(shape, on_one(shape), BARE)
    assert found.devices[0] + found.logits == found.fitted[0]
    logits = 512 * shape.vocabulary * 4
    assert 0 < found.logits < logits  # one row of them is reserved in any case, beside less of all else
    assert found.logits > logits - found.devices[0]


def test_logits_of_an_output_on_the_host_are_the_hosts() -> None:
    shape = published_shape("llama-3.1-8b", "q8_0")
    found = compute_buffers(shape, on_one(shape, units=(*(0,) * block_count(shape), HOST)), BARE)
    assert found.host + found.logits == found.fitted_host
    assert found.fitted[0] - found.devices[0] < MIB < found.logits


def test_pipeline_parallelism_keeps_four_of_everything_that_crosses() -> None:
    shape = published_shape("llama-3.1-8b", "q8_0")
    blocks = block_count(shape)
    units = (*(0,) * (blocks // 2), *(1,) * (blocks - blocks // 2 + 1))
    overlapping = compute_buffers(shape, on_one(shape, devices=2, units=units), BARE)
    one_by_one = compute_buffers(shape, on_one(shape, devices=2, units=units, experts=units[:-1]), BARE)
    kept_on_host = compute_buffers(shape, on_one(shape, devices=2, units=units), Settings(8192, kv_offload=False))
    assert overlapping.devices[0] > 1.5 * one_by_one.devices[0]
    assert overlapping.host > 2 * one_by_one.host
    assert kept_on_host.host < overlapping.host


def test_the_first_device_makes_room_for_weights_that_the_host_lends_it() -> None:
    shape = published_shape("glm-4.5-air", "q4_k_m")
    experts = (HOST,) * block_count(shape)
    lent = compute_buffers(shape, on_one(shape, experts=experts, offloads=True), BARE)
    left = compute_buffers(shape, on_one(shape, experts=experts), BARE)
    largest = max(tensor.bytes for tensor in shape.tensors if "exps" in tensor.name)
    assert lent.devices[0] > left.devices[0] + largest // 2
    assert lent.host < left.host
    refused = compute_buffers(shape, on_one(shape, experts=experts, offloads=True), Settings(8192, op_offload=False))
    assert refused.host == left.host


def test_small_batches_stay_with_the_weights_of_the_host() -> None:
    shape = published_shape("glm-4.5-air", "q4_k_m")
    experts = (HOST,) * block_count(shape)
    small = Settings(8192, ubatch=16)
    lent = compute_buffers(shape, on_one(shape, experts=experts, offloads=True), small)
    assert lent.host == compute_buffers(shape, on_one(shape, experts=experts), small).host


def test_cuda_unpacks_a_packed_cache_for_attention() -> None:
    shape = published_shape("llama-3.1-8b", "q8_0")
    context = Settings(131072, type_k="q8_0", type_v="q8_0")
    here = compute_buffers(shape, on_one(shape, offloads=True), context).devices[0]
    elsewhere = compute_buffers(shape, on_one(shape), context).devices[0]
    unpacked = 2 * 131072 * 8 * 128 * 2  # keys and values of eight heads of 128, two bytes each
    assert unpacked <= here - elsewhere <= 2 * unpacked  # a block's rest may lie where the next wants to unpack


def test_cuda_keeps_what_experts_made_until_it_is_added_up() -> None:
    shape = published_shape("qwen3-30b-a3b", "q4_k_m")
    wide = Settings(8192, ubatch=2048)
    here = compute_buffers(shape, on_one(shape, offloads=True), wide).fitted[0]
    elsewhere = compute_buffers(shape, on_one(shape), wide).fitted[0]
    made = 8 * 2048 * 2048 * 4  # by eight experts for each of 2048 tokens, four bytes for each of its 2048 elements
    assert here - elsewhere == pytest.approx(made, rel=0.2)


def test_a_model_that_predicts_further_tokens_has_a_second_context() -> None:
    # llama-server --spec-type draft-mtp -c 8192 -ub 512 -np 1 on one device: 80.02 + 72.02 MiB, host 24.02 + 16.02
    shape = published_shape("qwen3.5-35b-a3b-mtp", "q4_k_m")
    found = compute_buffers(shape, on_one(shape), Settings(8192, mtp=True))
    assert found.devices[0] / MIB == pytest.approx(152.04, abs=1)
    assert found.host / MIB == pytest.approx(40.04, abs=1)


def unheard_of(*tensors: Tensor) -> Shape:
    metadata: dict[str, Any] = {"block_count": 2, "embedding_length": 1024, "attention.head_count": 8}
    blocks = tuple(
        Tensor(tensor.name.replace("blk.0", f"blk.{block}"), tensor.type, tensor.dimensions)
        for block in range(2)
        for tensor in tensors
    )
    return Shape("unheard-of", metadata, 32000, (Tensor("token_embd.weight", "q8_0", (1024, 32000)), *blocks))


def test_an_architecture_nobody_named_is_estimated_from_its_widths_and_said_to_be_unknown() -> None:
    mixing = [Tensor(f"blk.0.time_mix_{name}.weight", "q8_0", (1024, 4096)) for name in ("key", "value", "gate")]
    found = compute_buffers(unheard_of(*mixing), Layout(1, (0, 0, 0), offloads=False), BARE)
    assert not found.known
    assert 512 * 3 * 4096 * 4 < found.devices[0] < 512 * MIB
    assert found.uncertainty >= 128 * MIB


def test_a_shape_without_tensors_still_gives_an_estimate() -> None:
    found = compute_buffers(Shape("unheard-of", {}, 1000, ()), Layout(1, (0, 0), offloads=False), BARE)
    assert not found.known


def test_an_unheard_of_architecture_of_usual_tensors_comes_out_as_a_usual_one() -> None:
    shape = published_shape("llama-3.1-8b", "q8_0")
    renamed = Shape("unheard-of", shape.metadata, shape.vocabulary, shape.tensors)
    found = compute_buffers(renamed, on_one(shape), BARE)
    assert found.devices == compute_buffers(shape, on_one(shape), BARE).devices
    assert not found.known
