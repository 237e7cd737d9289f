"""What each strategy tells the engine: exact arguments, and that they lay every tensor where the plan says."""

from __future__ import annotations

import re

import pytest

from llamarig.config.records import Strategy
from llamarig.planning.devices import MIB
from llamarig.planning.layout import HOST
from llamarig.planning.memory import EXPERTS, weights
from llamarig.planning.placement import place
from tests.support import after
from tests.unit.planning.layouts import (
    GIB,
    RTX4090,
    RTX5070TI,
    asked,
    blocks_with_experts,
    devices,
    gpu,
    overrides,
    shape,
    weights_by_engine,
)

EXPERTS_OF = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
BOTH = [RTX4090, RTX5070TI]


def test_a_lays_everything_on_the_one_device_that_the_server_sees() -> None:
    placed = place(Strategy.A, asked(shape("gpt-oss-20b", "mxfp4-f16"), [RTX4090]))
    assert placed.argv == ["--split-mode", "none", "--gpu-layers", "all", "--fit", "off"]
    assert (placed.devices, placed.reason) == ((0,), "everything on rtx-4090")
    assert placed.layout is not None
    assert set(placed.layout.units) == {0}
    assert placed.layout.experts == ()


def test_b_splits_whole_blocks_and_counts_the_output_as_one_on_the_last_device() -> None:
    request = asked(shape("qwen3-32b", "q4_k_m"), BOTH, blocks={"rtx-4090": 40, "rtx-5070-ti": 24})
    placed = place(Strategy.B, request)
    assert placed.argv == ["--split-mode", "layer", "--tensor-split", "40,25", "--gpu-layers", "all", "--fit", "off"]
    assert placed.reason == "blocks 40 on rtx-4090, 24 on rtx-5070-ti"


def test_b_leaves_the_first_blocks_on_the_host_by_a_count_of_layers() -> None:
    request = asked(shape("qwen3-32b", "q4_k_m"), BOTH, blocks={"rtx-4090": 40, "rtx-5070-ti": 14})
    placed = place(Strategy.B, request)
    assert placed.argv == ["--split-mode", "layer", "--tensor-split", "40,15", "--gpu-layers", "55", "--fit", "off"]
    assert placed.reason == "blocks 40 on rtx-4090, 14 on rtx-5070-ti; 10 of 64 on the CPU"
    assert placed.layout is not None
    assert placed.layout.units == (HOST,) * 10 + (0,) * 40 + (1,) * 15


def test_c_names_a_range_of_blocks_for_each_device_and_splits_the_same_way() -> None:
    request = asked(shape("glm-4.7-flash"), BOTH, blocks={"rtx-4090": 35, "rtx-5070-ti": 12})
    placed = place(Strategy.C, request)
    # Block 0 is dense, and has nothing for a pattern to match.
    patterns = (
        rf"blk\.([1-9]|1[0-9]|2[0-9]|3[0-4]){EXPERTS_OF}=CUDA0,"
        rf"blk\.(3[5-9]|4[0-6]){EXPERTS_OF}=CUDA1"
    )
    assert placed.argv == [
        *("--split-mode", "layer", "--tensor-split", "35,13", "--gpu-layers", "all"),
        *("--override-tensor", patterns, "--fit", "off"),
    ]
    assert placed.reason == "all experts on GPUs: blocks 35 on rtx-4090, 12 on rtx-5070-ti"


def test_d_names_ranges_of_devices_and_leaves_the_others_experts_on_the_cpu() -> None:
    cards = [RTX4090, gpu("rtx-5070-ti", 16303, "NVIDIA GeForce RTX 5070 Ti", reserve_mib=3072)]
    request = asked(shape("gpt-oss-120b", "mxfp4-f16"), cards, blocks={"rtx-4090": 10, "rtx-5070-ti": 3})
    placed = place(Strategy.D, request)
    split = after(placed.argv, "--tensor-split")
    # Blocks whose experts are on the CPU lie beside those whose are not, wherever there is room.
    assert placed.layout is not None
    first = placed.layout.units.count(0)
    assert split == f"{first},{37 - first}"
    ranges = {
        buffer: re.match(r"blk\\\.\((.*)\)\\\.ffn", pattern) for pattern, buffer in overrides(placed.argv).items()
    }
    assert list(ranges) == ["CUDA0", "CUDA1", "CPU"]
    assert blocks_with_experts(placed) == {0: 10, 1: 3, HOST: 23}
    assert placed.reason == "experts of 13 of 36 blocks on GPUs (10 on rtx-4090, 3 on rtx-5070-ti), others on the CPU"


def test_fit_leaves_each_device_a_margin_of_its_own_and_says_nothing_of_layers() -> None:
    placed = place(Strategy.FIT, asked(shape("glm-4.7-flash"), [RTX4090, gpu("display", 16303, reserve_mib=1000)]))
    assert placed.argv == ["--fit", "on", "--fit-target", "128,1000"]
    assert (placed.layout, placed.memory, placed.devices) == (None, None, (0, 1))


def test_cpu_hides_every_device() -> None:
    placed = place(Strategy.CPU, asked(shape("qwen3-4b", "q4_k_m"), []))
    assert placed.argv == ["--device", "none", "--gpu-layers", "0", "--fit", "off"]
    assert placed.memory is not None
    assert (placed.memory.devices, placed.devices) == ((), ())
    assert placed.memory.host.weights == shape("qwen3-4b", "q4_k_m").bytes


# Model, quantisation, strategy, sizes of devices in MiB, and blocks that a user names.
LAYOUTS = {
    "one card": ("qwen3-4b", "q4_k_m", Strategy.A, (24564,), None),
    "tied embeddings": ("qwen3-4b", "q4_k_m", Strategy.B, (2000, 1500), None),
    "dense over two": ("qwen3-32b", "q4_k_m", Strategy.B, (24564, 16303), None),
    "dense over eight": ("llama-3.3-70b", "q4_k_m", Strategy.B, (8192,) * 8, None),
    "dense, some on the host": ("llama-3.3-70b", "q4_k_m", Strategy.B, (24564, 12000), None),
    "dense, by hand": ("qwen3-32b", "q4_k_m", Strategy.B, (24564, 16303), {"a": 1, "b": 30}),
    "MLA, all experts": ("glm-4.7-flash", "q8_0", Strategy.C, (24564, 16303), None),
    "MLA, all experts by hand": ("glm-4.7-flash", "q8_0", Strategy.C, (24564, 16303), {"a": 30, "b": 17}),
    "MLA, most experts": ("glm-4.7-flash", "q8_0", Strategy.D, (16303, 9000), None),
    "windows, some experts": ("gpt-oss-120b", "mxfp4-f16", Strategy.D, (24564, 12000), None),
    "windows, no experts": ("gpt-oss-120b", "mxfp4-f16", Strategy.D, (12000, 24564), {"a": 0, "b": 0}),
    "windows, eight cards": ("gpt-oss-120b", "mxfp4-f16", Strategy.C, (9000,) * 8, None),
    "one small card": ("qwen3-30b-a3b", "q8_0", Strategy.D, (9000,), None),
    "MTP, all experts": ("glm-4.5-air", "q4_k_m", Strategy.C, (49152, 49152), None),
    "MTP, some experts": ("glm-4.5-air", "q4_k_m", Strategy.D, (24564, 16303), None),
    "hundreds of experts": ("deepseek-v3", "q4_k_m", Strategy.D, (49152, 49152, 49152), None),
}


@pytest.mark.parametrize("case", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_engine_lays_every_tensor_where_the_plan_says(
    case: tuple[str, str, Strategy, tuple[int, ...], dict[str, int] | None],
) -> None:
    name, mix, strategy, sizes, blocks = case
    model, cards = shape(name, mix), devices(*sizes)
    placed = place(strategy, asked(model, cards, blocks=blocks))
    assert placed.memory is not None
    skipped = model.metadata.get("nextn_predict_layers", 0)
    assert isinstance(skipped, int)
    held = weights_by_engine(model, placed.argv, [card.buffer for card in cards], skipped)
    assert [part.weights for part in placed.memory.devices] == [held.get(card.buffer, 0) for card in cards]
    assert placed.memory.host.weights == held["CPU"]


@pytest.mark.parametrize("case", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_pattern_matches_and_no_tensor_is_matched_twice(
    case: tuple[str, str, Strategy, tuple[int, ...], dict[str, int] | None],
) -> None:
    name, mix, strategy, sizes, blocks = case
    model = shape(name, mix)
    placed = place(strategy, asked(model, devices(*sizes), blocks=blocks))
    matches = [{t.name for t in model.tensors if re.search(rule, t.name)} for rule in overrides(placed.argv)]
    assert all(matches)
    together: set[str] = set().union(*matches)
    assert len(together) == sum(map(len, matches))
    loaded = [b for b, size in enumerate(weights(model).experts) if size]
    expected = {t.name for t in model.tensors if t.block in loaded and EXPERTS.search(t.name)}
    assert together == (expected if strategy in {Strategy.C, Strategy.D} else set())
    assert ("--tensor-split" in placed.argv) == (strategy is not Strategy.A)


@pytest.mark.parametrize("case", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_no_device_is_given_more_than_its_budget(
    case: tuple[str, str, Strategy, tuple[int, ...], dict[str, int] | None],
) -> None:
    name, mix, strategy, sizes, blocks = case
    placed = place(strategy, asked(shape(name, mix), devices(*sizes), blocks=blocks))
    assert placed.memory is not None
    assert all(part.total <= size * MIB for part, size in zip(placed.memory.devices, sizes, strict=True))


def test_buffers_are_named_as_the_devices_backend_names_them() -> None:
    model = shape("glm-4.7-flash")
    cards = devices(24564, 16303)
    remote = [type(card)(card.name, f"RPC{n}[127.0.0.1:5040{n}]", card.memory) for n, card in enumerate(cards)]
    placed = place(Strategy.D, asked(model, remote, blocks={"a": 5, "b": 5}))
    assert list(overrides(placed.argv).values()) == ["RPC0[127.0.0.1:50400]", "RPC1[127.0.0.1:50401]", "CPU"]


def test_a_projector_lies_on_the_first_device() -> None:
    model = shape("qwen3-32b", "q4_k_m")
    without = place(Strategy.B, asked(model, BOTH, blocks={"rtx-4090": 30, "rtx-5070-ti": 34}))
    placed = place(Strategy.B, asked(model, BOTH, blocks={"rtx-4090": 30, "rtx-5070-ti": 34}, projector=GIB))
    assert placed.memory is not None
    assert without.memory is not None
    assert [a.weights - b.weights for a, b in zip(placed.memory.devices, without.memory.devices, strict=True)] == [
        GIB,
        0,
    ]
    assert any("projector" in warning for warning in placed.warnings)


def test_a_projector_takes_the_place_of_blocks() -> None:
    model = shape("gpt-oss-120b", "mxfp4-f16")
    bare, seeing = (place(Strategy.D, asked(model, BOTH, projector=size)) for size in (0, 4 * GIB))
    assert blocks_with_experts(bare)[0] - blocks_with_experts(seeing)[0] in {2, 3}


def test_reserved_memory_takes_the_place_of_blocks() -> None:
    model = shape("gpt-oss-120b", "mxfp4-f16")
    counts = []
    for reserve in (0, 2000, 4000, 8000):
        card = gpu("display", 16303, "NVIDIA GeForce RTX 5070 Ti", reserve_mib=reserve)
        counts.append(blocks_with_experts(place(Strategy.D, asked(model, [RTX4090, card])))[1])
    assert counts == sorted(set(counts), reverse=True)


def test_a_layout_that_could_hold_more_blocks_is_accepted_with_a_word_about_it() -> None:
    request = asked(shape("gpt-oss-120b", "mxfp4-f16"), BOTH, blocks={"rtx-4090": 5, "rtx-5070-ti": 2})
    (warning,) = place(Strategy.D, request).warnings
    assert re.fullmatch(r"experts of \d+ blocks would fit .*\(1\d on rtx-4090, \d on rtx-5070-ti\).* names 7", warning)


def test_experts_on_the_cpu_although_all_fit_are_spoken_of() -> None:
    request = asked(shape("glm-4.7-flash"), BOTH, blocks={"rtx-4090": 20, "rtx-5070-ti": 10})
    (warning,) = place(Strategy.D, request).warnings
    assert warning.startswith("experts lie on the CPU although all fit on the GPUs: ")
    assert warning.endswith("choose strategy C")


def test_an_unknown_architecture_is_laid_out_by_blocks_that_somebody_names() -> None:
    known = shape("qwen3-30b-a3b")
    unknown = type(known)("qwen9moe", known.metadata, known.vocabulary, known.tensors)
    placed = place(Strategy.D, asked(unknown, [RTX4090], blocks={"rtx-4090": 20}))
    assert blocks_with_experts(placed) == {0: 20, HOST: 28}
    assert any("qwen9moe" in warning and "cache" in warning for warning in placed.warnings)
    assert placed.memory is not None
    assert placed.memory.unknown
