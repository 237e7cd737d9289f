"""What each layer keeps. Windows and lengths were compared with what llama.cpp 0.7.0 prints for bare headers."""

from __future__ import annotations

from typing import Any

import pytest

from llamarig.config.attention import Layer, UnknownArchitectureError, architectures, kinds, known
from llamarig.config.shape import Shape, ShapeError

LETTERS = {"full": "f", "window": "w", "recurrent": "r", "mla": "m", "none": "."}
BASE: dict[str, Any] = {
    "block_count": 14,
    "embedding_length": 512,
    "feed_forward_length": 1024,
    "context_length": 4096,
    "attention.head_count": 8,
    "attention.head_count_kv": 2,
}
WINDOW = {"attention.sliding_window": 128}
THIRDS = {**WINDOW, "attention.sliding_window_pattern": [layer % 3 != 1 for layer in range(14)]}
SSM = {"ssm.conv_kernel": 4, "ssm.inner_size": 256, "ssm.state_size": 16, "ssm.group_count": 2}
MLA = {"attention.key_length": 576, "attention.value_length": 512, "attention.head_count_kv": 1}
MLA |= {"attention.key_length_mla": 192, "attention.value_length_mla": 128}
EVERY_FOURTH_ATTENDS = {"attention.head_count_kv": [0 if layer % 4 else 2 for layer in range(14)]}


def shape(architecture: str, **changes: Any) -> Shape:
    metadata = {key: value for key, value in {**BASE, **changes}.items() if value is not None}
    return Shape(architecture, metadata, 1000, ())


def letters(architecture: str, **changes: Any) -> str:
    return "".join(LETTERS[layer.kind] for layer in kinds(shape(architecture, **changes)))


@pytest.mark.parametrize(
    ("architecture", "changes", "expected"),
    [
        ("llama", {}, "f" * 14),
        ("qwen3moe", {}, "f" * 14),
        ("phi3", WINDOW, "f" * 14),
        ("deci", EVERY_FOURTH_ATTENDS, "f...f...f...f."),
        ("gpt-oss", WINDOW, "wfwfwfwfwfwfwf"),
        ("gemma2", {}, "wfwfwfwfwfwfwf"),
        ("gemma3", WINDOW, "wwwwwfwwwwwfww"),
        ("gemma3", {}, "f" * 14),
        ("gemma3n", WINDOW, "wwwwfwwwwfwwww"),
        ("gemma4", THIRDS, "wfwwfwwfwwfwwf"),
        ("mimo2", THIRDS, "wfwwfwwfwwfwwf"),
        ("step35", THIRDS, "wfwwfwwfwwfwwf"),
        ("cohere2", WINDOW, "wwwfwwwfwwwfww"),
        ("cohere2moe", WINDOW, "fwwwfwwwfwwwfw"),
        ("laguna", WINDOW, "fwwwfwwwfwwwfw"),
        ("laguna", {}, "f" * 14),
        ("afmoe", WINDOW, "wwwfwwwfwwwfww"),
        ("olmo2", {"attention.sliding_window": 0}, "f" * 14),
        ("olmo2", WINDOW, "wwwfwwwfwwwfww"),
        ("plamo3", WINDOW, "wwwwwwwfwwwwww"),
        ("llama4", {}, "wwwfwwwfwwwfww"),
        ("llama4", {"attention.sliding_window": 0}, "f" * 14),
        ("smallthinker", WINDOW, "fwwwfwwwfwwwfw"),
        ("exaone4", WINDOW, "f" * 14),
        ("exaone4", {**WINDOW, "block_count": 64}, "wwwf" * 16),
        ("gpt-oss", THIRDS, "wfwwfwwfwwfwwf"),
        ("gpt-oss", {**WINDOW, "attention.sliding_window_pattern": 3}, "wwfwwfwwfwwfww"),
        ("gpt-oss", {**WINDOW, "attention.sliding_window_pattern": 0}, "w" * 14),
        ("gpt-oss", {**WINDOW, "nextn_predict_layers": 2}, "wfwfwfwfwfwfff"),
        ("qwen3next", SSM, "rrrfrrrfrrrfrr"),
        ("qwen35moe", {**SSM, "nextn_predict_layers": 2}, "rrrfrrrfrrrfff"),
        ("qwen35", {**SSM, "full_attention_interval": 2}, "rfrfrfrfrfrfrf"),
        ("qwen35", {**SSM, "attention.recurrent_layers": [layer != 5 for layer in range(14)]}, "rrrrrfrrrrrrrr"),
        ("minimax-01", {}, "rrrrrrrfrrrrrr"),
        ("jamba", {**SSM, **EVERY_FOURTH_ATTENDS}, "frrrfrrrfrrrfr"),
        ("granitehybrid", {**SSM, **EVERY_FOURTH_ATTENDS}, "frrrfrrrfrrrfr"),
        ("falcon-h1", SSM, "f" * 14),
        ("lfm2", {"shortconv.l_cache": 3, **EVERY_FOURTH_ATTENDS}, "frrrfrrrfrrrfr"),
        ("lfm2", {"shortconv.l_cache": 3, **WINDOW, **EVERY_FOURTH_ATTENDS}, "wrrrwrrrwrrrwr"),
        ("mamba2", {**SSM, "attention.head_count": 0, "attention.head_count_kv": 0}, "r" * 14),
        ("rwkv7", {"wkv.head_size": 64, "attention.head_count": 0, "attention.head_count_kv": None}, "r" * 14),
        ("deepseek2", MLA, "m" * 14),
        ("mistral4", MLA, "m" * 14),
        ("deepseek2", {}, "f" * 14),
        ("kimi-linear", {**MLA, **EVERY_FOURTH_ATTENDS, "kda.head_dim": 128}, "mrrrmrrrmrrrmr"),
        ("dots3note", {**MLA, **THIRDS}, "m" * 14),
        ("bert", {}, "f" * 14),
    ],
)
def test_each_layer_is_of_the_kind_that_the_engine_makes_it(
    architecture: str, changes: dict[str, Any], expected: str
) -> None:
    assert letters(architecture, **changes) == expected


def test_a_nemotron_block_is_attention_or_state_or_feed_forward() -> None:
    feed_forward = [1024 if layer % 3 == 1 else 0 for layer in range(14)]
    kv_heads = [2 if layer % 6 == 2 else 0 for layer in range(14)]
    changes = {**SSM, "feed_forward_length": feed_forward, "attention.head_count_kv": kv_heads}
    assert letters("nemotron_h", **changes) == "r.fr.rr.fr.rr."


def test_a_layer_says_what_its_cache_holds_for_each_token() -> None:
    lengths = {"attention.key_length": 80, "attention.value_length": 72}
    swa = {"attention.key_length_swa": 48, "attention.value_length_swa": 40}
    window, full = kinds(shape("gemma3", **WINDOW, **lengths, **swa))[4:6]
    assert window == Layer(4, "window", kv_heads=2, key_length=48, value_length=40, window=128, cached=True)
    assert full == Layer(5, "full", kv_heads=2, key_length=80, value_length=72, cached=True)


def test_a_head_is_the_embedding_divided_by_the_heads_where_the_file_is_silent() -> None:
    assert kinds(shape("llama"))[0] == Layer(0, "full", kv_heads=2, key_length=64, value_length=64, cached=True)


def test_kv_heads_are_heads_where_the_file_is_silent() -> None:
    assert kinds(shape("llama", **{"attention.head_count_kv": None}))[0].kv_heads == 8


def test_mla_keeps_one_key_and_no_value() -> None:
    assert kinds(shape("deepseek2", **MLA))[0] == Layer(0, "mla", kv_heads=1, key_length=576, cached=True)


def test_mla_can_have_a_window() -> None:
    layers = kinds(shape("dots3note", **MLA, **THIRDS, **{"attention.key_length_swa": 320}))
    assert [(layer.key_length, layer.window) for layer in layers[:3]] == [(320, 128), (576, 0), (320, 128)]


def test_a_fixed_window_is_what_the_engine_takes_whatever_the_file_says() -> None:
    assert {layer.window for layer in kinds(shape("llama4", **{"attention.sliding_window": 77}))} == {0, 8192}
    assert {layer.window for layer in kinds(shape("smallthinker", **WINDOW))} == {0, 4096}


def test_an_mtp_layer_is_left_out_of_the_cache() -> None:
    layers = kinds(shape("glm4moe", nextn_predict_layers=1))
    assert [(layer.mtp, layer.cached) for layer in layers[-2:]] == [(False, True), (True, False)]


def test_an_mtp_layer_of_a_hybrid_without_a_filter_of_layers_stays_in_the_cache() -> None:
    changes: dict[str, Any] = {**MLA, "kda.head_dim": 128, "nextn_predict_layers": 1}
    changes["attention.head_count_kv"] = [*([0] * 13), 1]
    last = kinds(shape("bailingmoe3", **changes))[-1]
    assert (last.kind, last.mtp, last.cached, last.state_elements) == ("mla", True, True, 0)


def test_layers_that_reuse_a_cache_have_none_of_their_own() -> None:
    gemma3n = kinds(shape("gemma3n", **WINDOW, block_count=30))
    assert [layer.number for layer in gemma3n if layer.cached] == list(range(20))
    gemma4 = kinds(shape("gemma4", **THIRDS, **{"attention.shared_kv_layers": 5}))
    assert [layer.number for layer in gemma4 if layer.cached] == list(range(9))


def test_an_encoder_keeps_no_cache() -> None:
    assert not any(layer.cached for layer in kinds(shape("bert")))
    assert not any(layer.cached for layer in kinds(shape("gemma-embedding", **WINDOW)))


@pytest.mark.parametrize(
    ("architecture", "changes", "conv", "state"),
    [
        # convolution over inputs and groups; state of each input
        ("qwen3next", SSM, 3 * (256 + 2 * 2 * 16), 16 * 256),
        ("mamba", {**SSM, "ssm.group_count": None}, 3 * 256, 16 * 256),
        ("mamba2", SSM, 3 * (256 + 2 * 2 * 16), 16 * 256),
        ("falcon-h1", SSM, 3 * (256 + 2 * 2 * 16), 16 * 256),
        # shifted tokens; a matrix for each head
        ("rwkv6", {"wkv.head_size": 64}, 2 * 512, 512 * 64),
        ("rwkv7", {"wkv.head_size": 64, "token_shift_count": 1}, 512, 512 * 64),
        # short convolution
        ("lfm2", {"shortconv.l_cache": 3, "attention.head_count_kv": 0}, 512 * 2, 0),
        # convolutions of query, key and value; a matrix for each head
        ("kimi-linear", {**MLA, **EVERY_FOURTH_ATTENDS, "kda.head_dim": 128, "ssm.conv_kernel": 4}, 0, 0),
        ("kimi-k3", {**MLA, "attention.head_count_kv": 0, "kda.head_dim": 128}, 3 * 3 * 8 * 128, 128 * 128 * 8),
        # a matrix for each head
        ("minimax-01", {}, 0, 64 * 64 * 8),
        ("llama", {}, 0, 0),
    ],
)
def test_a_recurrent_layer_keeps_a_state_for_each_sequence(
    architecture: str, changes: dict[str, Any], conv: int, state: int
) -> None:
    first = kinds(shape(architecture, **changes))[0]
    assert (first.conv_elements, first.state_elements) == (conv, state)


def test_the_published_qwen3_next_has_the_state_that_the_engine_logs() -> None:
    published = {"block_count": 48, "embedding_length": 2048, "attention.head_count": 16, "ssm.inner_size": 4096}
    published |= {"ssm.conv_kernel": 4, "ssm.state_size": 128, "ssm.group_count": 16}
    layers = [layer for layer in kinds(shape("qwen3next", **published)) if layer.kind == "recurrent"]
    assert len(layers) == 36
    assert layers[0].conv_elements + layers[0].state_elements == 3 * (4096 + 2 * 16 * 128) + 128 * 4096


def test_a_qwen4_layer_with_an_ngram_module_keeps_its_history_too() -> None:
    ple = {"ple.layers": [1], "ple.conv_kernel": 4, "ple.ngram_size": 3, "hyper_connection.count": 2}
    indexer = {"attention.indexer.key_length": 128}
    layers = kinds(shape("qwen4exp", **SSM, **ple, **indexer))
    assert layers[1].conv_elements - layers[0].conv_elements == 3 * 3 * 2 * 512
    assert [layer.index_key_length for layer in layers[:4]] == [0, 0, 0, 128]


@pytest.mark.parametrize(
    ("architecture", "changes", "owners"),
    [
        ("deepseek32", {"nextn_predict_layers": 1}, list(range(13))),
        ("glm-dsa", {}, list(range(14))),
        ("glm-dsa", {"context_length": 1 << 20}, [0, 1, 2, 6, 10]),
        ("glm-dsa", {"attention.indexer.types": [1, 0] * 7}, [0, 2, 4, 6, 8, 10, 12]),
        ("dots3note", {**THIRDS, "attention.indexer.types": [0, 1, 0, 0, 1]}, [1, 4]),
        ("hy_v4", {}, []),
        ("hy_v4", {"attention.indexer.top_k": 9, "attention.indexer.types": [1] * 3 + [0] * 11}, [0, 1, 2]),
    ],
)
def test_an_indexer_keeps_one_key_for_each_token(architecture: str, changes: dict[str, Any], owners: list[int]) -> None:
    layers = kinds(shape(architecture, **{**MLA, "attention.indexer.key_length": 128, **changes}))
    assert [layer.number for layer in layers if layer.index_key_length == 128] == owners
    assert not any(layer.index_value_length for layer in layers)


def test_the_indexer_of_minimax_m3_keeps_a_value_too_after_the_dense_blocks() -> None:
    changes = {"attention.indexer.key_length": 32, "attention.value_length": 96, "leading_dense_block_count": 3}
    layers = kinds(shape("minimax-m3", **changes))
    assert [(layer.index_key_length, layer.index_value_length) for layer in layers[2:4]] == [(0, 0), (32, 96)]


def test_the_indexer_of_glm5_next_keeps_three_vectors() -> None:
    changes = {**MLA, **EVERY_FOURTH_ATTENDS, "kda.head_dim": 128, "attention.indexer.key_length": 64}
    assert [layer.index_key_length for layer in kinds(shape("glm5-next", **changes))[:2]] == [192, 0]


@pytest.mark.parametrize("architecture", ["deepseek4", "clip", "eagle3", "k2-horizon", "", "LLAMA"])
def test_an_architecture_that_is_not_described_is_said_to_be_unknown(architecture: str) -> None:
    assert not known(architecture)
    with pytest.raises(UnknownArchitectureError, match=r"is not known: .*; ask the engine"):
        kinds(shape(architecture))


def test_every_described_architecture_can_be_read() -> None:
    needs = {**THIRDS, "attention.indexer.types": [1] * 14}
    for architecture in architectures():
        assert known(architecture)
        layers = kinds(shape(architecture, **needs))
        assert [layer.number for layer in layers] == list(range(14)), architecture


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("llama", {"block_count": None}, "needs block_count"),
        ("llama", {"block_count": 0}, "block_count is 0"),
        ("llama", {"block_count": 2**32}, "takes 1 to 512"),
        ("llama", {"block_count": "many"}, "no number from 0 up"),
        ("llama", {"block_count": True}, "no number from 0 up"),
        ("llama", {"embedding_length": -1}, "no number from 0 up"),
        ("llama", {"attention.head_count_kv": [2, 2]}, "2 entries for 14 layers"),
        ("llama", {"attention.head_count_kv": [-1] * 14}, "no list of numbers"),
        ("llama", {"attention.head_count_kv": [0.5] * 14}, "no list of numbers"),
        ("llama", {"nextn_predict_layers": 15}, "of 14 blocks"),
        ("gpt-oss", {}, "needs attention.sliding_window"),
        ("gpt-oss", {"attention.sliding_window": 0}, "has layers with a window"),
        ("gemma4", WINDOW, "a list with an entry for each layer"),
        ("deepseek2", {**MLA, "attention.value_length_mla": None}, "one is missing"),
        ("qwen35", {**SSM, "full_attention_interval": 0}, "from 1 up"),
        ("glm-dsa", {**MLA, "attention.indexer.types": [1]}, "1 entries for 14 layers"),
    ],
)
def test_metadata_that_contradicts_itself_is_refused(architecture: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        kinds(shape(architecture, **changes))
