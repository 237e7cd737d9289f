"""Weights and caches, by the engine's own figures and by formulas worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llamarig.config.shape import Shape, Tensor
from llamarig.planning.cells import cells, element_bytes, streams
from llamarig.planning.devices import MIB
from llamarig.planning.layout import HOST, Layout, Settings
from llamarig.planning.memory import block_count, cache_bytes, extra_blocks, predict, sequence_state, weights
from tests.unit.planning.layouts import shape

LONG = Settings(32768)

# llama-fit-params of llama.cpp 0.7.0 on ghosts, without devices: weights and cache, rounded down to MiB.
RECORDED: list[tuple[str, str, Settings, int, int]] = [
    ("llama-3.1-8b", "q8_0", LONG, 8137, 4096),
    ("llama-3.3-70b", "q4_k_m", LONG, 40543, 10240),
    ("qwen3-32b", "q4_k_m", LONG, 18840, 8192),
    ("qwen3-30b-a3b", "q8_0", LONG, 30973, 3072),
    ("glm-4.5-air", "q4_k_m", LONG, 67175, 5888),
    ("glm-4.7-flash", "q8_0", LONG, 30358, 1692),
    ("deepseek-v3", "q4_k_m", LONG, 385750, 2196),
    ("gpt-oss-20b", "mxfp4-f16", LONG, 13141, 786),
    ("gpt-oss-120b", "mxfp4-f16", LONG, 62328, 1179),
    ("qwen3-next-80b", "q4_k_m", LONG, 46237, 843),
    ("qwen3.5-35b-a3b", "q4_k_m", LONG, 20175, 702),
    ("qwen3.5-35b-a3b-mtp", "q4_k_m", LONG, 20175, 702),
    ("gemma-3-27b", "q4_k_m", LONG, 15773, 3184),
    ("kimi-linear-48b", "q4_k_m", LONG, 28320, 294),
    ("lfm2-8b-a1b", "q4_k_m", LONG, 4808, 384),
    ("falcon-h1-34b", "q4_k_m", Settings(16384), 19382, 2596),
    ("granite-4.0-h-small", "q4_k_m", LONG, 18570, 659),
    ("nemotron-3-nano-30b-a3b", "q4_k_m", replace(LONG, parallel=2), 23371, 287),
    # Slots with a cache of their own, padded each; and shared ones.
    ("llama-3.1-8b", "q8_0", Settings(10000), 8137, 1280),
    ("llama-3.1-8b", "q8_0", Settings(10000, parallel=3), 8137, 1344),
    ("gpt-oss-20b", "mxfp4-f16", replace(LONG, parallel=4), 13141, 840),
    ("gemma-3-27b", "q4_k_m", replace(LONG, parallel=2), 15773, 3808),
    ("qwen3-next-80b", "q4_k_m", replace(LONG, parallel=4), 46237, 1069),
    # Windows: whole ones, with a larger batch, and a context shorter than the window.
    ("gpt-oss-20b", "mxfp4-f16", replace(LONG, swa_full=True), 13141, 1536),
    ("gpt-oss-20b", "mxfp4-f16", replace(LONG, ubatch=2048), 13141, 822),
    ("gpt-oss-20b", "mxfp4-f16", Settings(300), 13141, 24),
    # Types.
    ("llama-3.1-8b", "q8_0", replace(LONG, type_k="q8_0", type_v="q8_0"), 8137, 2176),
    ("llama-3.1-8b", "q8_0", replace(LONG, type_k="q8_0", type_v="q4_0"), 8137, 1664),
    ("llama-3.1-8b", "q8_0", replace(LONG, type_k="q5_1"), 8137, 2816),
    ("qwen3-next-80b", "q4_k_m", Settings(4096, type_k="q8_0", type_v="q8_0"), 46237, 126),
]


@pytest.mark.parametrize(
    ("name", "mix", "settings", "held", "cache"),
    RECORDED,
    ids=[f"{name} {n}" for n, (name, *_) in enumerate(RECORDED)],
)
def test_weights_and_cache_are_what_the_engine_says(
    name: str, mix: str, settings: Settings, held: int, cache: int
) -> None:
    model = shape(name, mix)
    takes = predict(model, Layout(0, (HOST,) * (block_count(model) + 1)), settings)
    assert (takes.host.weights // MIB, takes.host.cache // MIB) == (held, cache)
    assert takes.unknown == ()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(1), (256, 1)),
        (Settings(256), (256, 1)),
        (Settings(257), (512, 1)),
        (Settings(8192, parallel=4), (2048, 4)),
        (Settings(8192, parallel=3), (2816, 3)),
        (Settings(8192, parallel=4, unified=True), (8192, 1)),
        (Settings(100, parallel=8), (256, 8)),
    ],
)
def test_cells_are_padded_and_slots_have_their_own_unless_the_cache_is_unified(
    settings: Settings, expected: tuple[int, int]
) -> None:
    assert (cells(settings), streams(settings)) == expected


def test_rows_of_a_cache_are_counted_in_whole_blocks_of_their_type() -> None:
    assert element_bytes("f16", 1024) == 2048
    assert element_bytes("q8_0", 1024) == 1024 // 32 * 34
    assert element_bytes("q4_0", 1024) == 1024 // 32 * 18


def test_mla_keeps_one_compressed_key_for_each_token_and_no_value() -> None:
    model = shape("glm-4.7-flash")
    assert set(cache_bytes(model, LONG)) == {32768 * (512 + 64) * 2}
    assert cache_bytes(model, replace(LONG, type_k="q8_0", type_v="q8_0"))[0] == 32768 * 576 // 32 * 34


def test_a_window_costs_its_width_and_a_batch_and_every_other_layer_has_one() -> None:
    caches = cache_bytes(shape("gpt-oss-20b", "mxfp4-f16"), LONG)
    row = 2 * 8 * 64 * 2
    assert caches[:2] == ((128 + 512) // 256 * 256 * row + 256 * row, 32768 * row)
    assert caches[::2] == caches[:1] * 12
    # With one cache for all slots, the window of each of them lies in it.
    shared = cache_bytes(shape("gpt-oss-20b", "mxfp4-f16"), replace(LONG, parallel=4, unified=True))
    assert shared[0] == 4 * 128 * row + 512 * row


def test_recurrent_layers_keep_a_state_for_each_slot_whatever_the_context_and_the_type() -> None:
    model = shape("qwen3-next-80b", "q4_k_m")
    state = 4 * (3 * (4096 + 2 * 16 * 128) + 128 * 4096)
    for settings in (LONG, Settings(1024), replace(LONG, type_k="q4_0", type_v="q4_0")):
        assert cache_bytes(model, settings)[0] == state
    assert cache_bytes(model, replace(LONG, parallel=4))[0] == 4 * state
    assert cache_bytes(model, replace(LONG, parallel=4, unified=True))[0] == 4 * state


def test_layers_that_predict_further_tokens_are_loaded_only_where_that_was_asked() -> None:
    model = shape("glm-4.5-air", "q4_k_m")
    assert (block_count(model), extra_blocks(model)) == (47, 1)
    without, loaded = weights(model), weights(model, mtp=True)
    assert (without.experts[-1], without.others[-1]) == (0, 0)
    assert without.skipped == loaded.experts[-1] + loaded.others[-1] > 0
    assert loaded.skipped == 0
    assert cache_bytes(model, LONG)[-1] == 0
    units = (0,) * 48
    more = predict(model, Layout(1, units), replace(LONG, mtp=True)).devices[0].weights
    assert more - predict(model, Layout(1, units), LONG).devices[0].weights == without.skipped


def test_tied_embeddings_lie_on_the_host_and_again_with_the_output() -> None:
    model = shape("qwen3-4b", "q4_k_m")
    (embeddings,) = (tensor for tensor in model.tensors if tensor.name == "token_embd.weight")
    blocks = block_count(model)
    on_device = predict(model, Layout(1, (0,) * (blocks + 1)), LONG)
    assert on_device.host.weights == embeddings.bytes
    assert on_device.devices[0].weights == model.bytes
    on_host = predict(model, Layout(1, (HOST,) * (blocks + 1)), LONG)
    assert on_host.host.weights == model.bytes
    assert on_host.devices[0].weights == 0


def test_every_tensor_that_is_loaded_lies_somewhere_once() -> None:
    for name, mix in (("gpt-oss-120b", "mxfp4-f16"), ("deepseek-v3", "q4_k_m"), ("llama-3.3-70b", "q4_k_m")):
        model = shape(name, mix)
        held = weights(model)
        assert sum(held.experts) + sum(held.others) + held.head + held.input + held.skipped == model.bytes


def test_experts_and_caches_lie_where_the_layout_says() -> None:
    model = shape("gpt-oss-20b", "mxfp4-f16")
    held, caches = weights(model), cache_bytes(model, LONG)
    units = (HOST,) * 2 + (0,) * 10 + (1,) * 13
    experts = (HOST,) * 5 + (1,) * 19
    takes = predict(model, Layout(2, units, experts), LONG)
    assert takes.devices[0].weights == sum(held.others[2:12])
    assert takes.devices[1].weights == sum(held.others[12:]) + sum(held.experts[5:]) + held.head
    assert takes.host.weights == sum(held.others[:2]) + sum(held.experts[:5]) + held.input
    assert [takes.host.cache, *(part.cache for part in takes.devices)] == [
        sum(caches[:2]),
        sum(caches[2:12]),
        sum(caches[12:]),
    ]


def test_a_cache_that_is_not_offloaded_lies_on_the_host() -> None:
    model = shape("gpt-oss-20b", "mxfp4-f16")
    takes = predict(model, Layout(1, (0,) * 25), replace(LONG, kv_offload=False))
    assert takes.devices[0].cache == 0
    assert takes.host.cache == sum(cache_bytes(model, LONG))


def test_a_larger_batch_and_a_longer_context_never_take_less() -> None:
    model = shape("gpt-oss-20b", "mxfp4-f16")
    layout = Layout(1, (0,) * 25)
    for smaller, larger in (
        (Settings(8192), Settings(65536)),
        (Settings(8192), Settings(8192, ubatch=2048)),
        (Settings(8192), Settings(8192, flash_attention=False)),
    ):
        first, second = (predict(model, layout, settings).devices[0] for settings in (smaller, larger))
        assert second.compute >= first.compute
        assert second.cache >= first.cache


def test_what_is_not_known_of_an_architecture_is_said() -> None:
    known = shape("gpt-oss-20b", "mxfp4-f16")
    unknown = Shape("gpt-oss9", known.metadata, known.vocabulary, known.tensors)
    takes = predict(unknown, Layout(1, (0,) * 25), LONG)
    assert takes.devices[0].cache == 0
    assert takes.devices[0].weights == predict(known, Layout(1, (0,) * 25), LONG).devices[0].weights
    assert takes.unknown == ("architecture 'gpt-oss9': its cache and compute buffers",)


def test_blocks_are_counted_by_their_tensors_where_the_header_does_not_say() -> None:
    tensors = tuple(Tensor(f"blk.{n}.attn_q.weight", "f16", (32, 32)) for n in (0, 4, 2))
    assert block_count(Shape("x", {}, 1, tensors)) == 5
    assert block_count(Shape("x", {"block_count": 9}, 1, tensors)) == 9
    assert block_count(Shape("x", {}, 1, ())) == 0


def test_a_checkpoint_is_a_copy_of_states_and_windows_of_one_slot() -> None:
    hybrid, windows, dense = (
        shape("qwen3-next-80b", "q4_k_m"),
        shape("gpt-oss-20b", "mxfp4-f16"),
        shape("qwen3-4b", "q4_k_m"),
    )
    assert sequence_state(hybrid, replace(LONG, parallel=4)) == 36 * cache_bytes(hybrid, LONG)[0]
    assert sequence_state(windows, LONG) == 12 * cache_bytes(windows, LONG)[0]
    assert sequence_state(windows, replace(LONG, swa_full=True)) == 0
    assert sequence_state(dense, LONG) == 0
    assert sequence_state(None, LONG) == 0
