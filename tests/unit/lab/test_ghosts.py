from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from llamarig.config.shape import Shape
from llamarig.gguf.model import read_model
from llamarig.gguf.source import FileSource
from llamarig.lab.ghost_mixes import PLAIN, Mix, quantised
from llamarig.lab.ghost_models import Published, per_block, published_models, read_size
from llamarig.lab.ghost_parts import Header
from llamarig.lab.ghost_tensors import architectures, tensors
from llamarig.lab.ghosts import (
    make_ghosts,
    published_model,
    published_shape,
    read_ghost_names,
    shortened,
    usual_ghosts,
    write_ghost,
)
from llamarig.lab.machine import LabError

MODELS = list(published_models().values())
# What llama.cpp prints when it loads these very files ("- type f32: 66 tensors"), from public reports.
LOADED = {
    ("llama-3.1-8b", "q4_k_m"): {"f32": 66, "q4_k": 193, "q6_k": 33},
    ("qwen2.5-coder-32b", "q4_k_m"): {"f32": 321, "q4_k": 385, "q6_k": 65},
    ("llama-3.3-70b", "q4_k_m"): {"f32": 162, "q4_k": 441, "q5_k": 40, "q6_k": 81},
    ("qwen3-30b-a3b", "q4_k_m"): {"f32": 241, "q4_k": 289, "q6_k": 49},
    ("gpt-oss-20b", "mxfp4_moe"): {"f32": 289, "q8_0": 98, "mxfp4": 72},
    ("glm-4.7-flash", "q8_0"): {"f32": 281, "q8_0": 563},
}
# How many tensors it prints where only that is known.
COUNTED = {
    "glm-4.5-air": 803,
    "gemma-4-31b": 833,
    "gemma-4-26b-a4b": 658,
    "qwen3-coder-next": 843,
    "qwen3.5-35b-a3b-mtp": 753,
}
SMALL = Header(
    "llama",
    {
        "block_count": 8,
        "context_length": 2048,
        "embedding_length": 256,
        "feed_forward_length": 512,
        "attention.head_count": 8,
        "attention.head_count_kv": 2,
    },
    vocabulary=1000,
)


def types(header: Header, mix: Mix) -> dict[str, str]:
    return {tensor.name: tensor.type for tensor in quantised(header, tensors(header), mix)}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_model_has_as_many_parameters_as_its_maker_says(model: Published) -> None:
    assert published_shape(model.name, "q8_0").parameters / 1e9 == pytest.approx(model.parameters, rel=0.01)


@pytest.mark.parametrize(
    ("model", "mix"),
    [(model, mix) for model in MODELS for mix in model.sizes],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_quantisation_is_as_large_as_the_published_file(model: Published, mix: str) -> None:
    assert published_shape(model.name, mix).bytes == pytest.approx(model.sizes[mix], rel=0.02)


@pytest.mark.parametrize(("name", "mix"), LOADED)
def test_tensors_have_the_types_that_the_engine_prints_of_the_real_file(name: str, mix: str) -> None:
    assert Counter(tensor.type for tensor in published_shape(name, mix).tensors) == LOADED[name, mix]


@pytest.mark.parametrize("name", COUNTED)
def test_a_model_has_as_many_tensors_as_the_real_file(name: str) -> None:
    assert len(published_shape(name, "q8_0").tensors) == COUNTED[name]


def test_names_are_their_own_and_every_architecture_has_a_model() -> None:
    names = [model.name for model in MODELS]
    assert len(set(names)) == len(names)
    assert {model.header.architecture for model in MODELS} == set(architectures())


@pytest.mark.parametrize("mix", PLAIN)
def test_no_tensor_has_rows_that_its_type_cannot_hold(mix: str) -> None:
    for model in MODELS:
        assert published_shape(model.name, mix).bytes > 0


@pytest.mark.parametrize(
    ("notation", "blocks"),
    [
        ({"period": [1, 2, 3]}, [1, 2, 3, 1, 2]),
        ({7: [0, 3], 9: [4], "rest": 5}, [7, 5, 5, 7, 9]),
        ({False: [1], "rest": True}, [True, False, True, True, True]),
        ({"layout": "M-M*-", "-": 8, "*": 2, "rest": 0}, [0, 8, 0, 2, 8]),
    ],
)
def test_what_blocks_have_each_for_itself_is_written_short(
    notation: dict[object, object], blocks: list[object]
) -> None:
    assert per_block(notation, 5) == blocks


def test_a_layout_that_is_no_letter_for_each_block_is_refused() -> None:
    with pytest.raises(LabError, match="a layout of 3 letters is none of 4 blocks"):
        per_block({"layout": "M-M", "rest": 0}, 4)


@pytest.mark.parametrize(("text", "size"), [("30 GiB", 30 * 2**30), ("84.8 GB", 84_800_000_000)])
def test_sizes_have_units(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["30", "30 G", "thirty GiB", ""])
def test_a_size_without_a_known_unit_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="is no size"):
        read_size(text)


def test_vectors_and_routers_are_never_quantised() -> None:
    header = replace(SMALL, metadata={**SMALL.metadata, "expert_count": 4, "expert_used_count": 2})
    chosen = types(header, PLAIN["q4_k_m"])
    assert {chosen["blk.0.attn_norm.weight"], chosen["output_norm.weight"], chosen["blk.3.ffn_gate_inp.weight"]} == {
        "f32"
    }
    assert chosen["blk.0.attn_q.weight"] == "q4_k"


def test_the_first_and_last_eighth_and_each_third_block_between_are_spared() -> None:
    chosen = types(SMALL, PLAIN["q4_k_m"])
    spared = [block for block in range(8) if chosen[f"blk.{block}.ffn_down.weight"] == "q6_k"]
    assert spared == [0, 3, 6, 7]
    assert [block for block in range(8) if chosen[f"blk.{block}.attn_v.weight"] == "q6_k"] == spared


def test_tied_embeddings_have_the_type_of_the_output() -> None:
    assert types(SMALL, PLAIN["q4_k_m"])["token_embd.weight"] == "q4_k"
    tied = types(replace(SMALL, tied=True), PLAIN["q4_k_m"])
    assert tied["token_embd.weight"] == "q6_k"
    assert "output.weight" not in tied


def test_rows_that_fill_no_block_of_256_have_a_type_with_blocks_of_32() -> None:
    narrow = replace(SMALL, metadata={**SMALL.metadata, "feed_forward_length": 480})
    chosen = types(narrow, PLAIN["q4_k_m"])
    assert (chosen["blk.0.ffn_down.weight"], chosen["blk.1.ffn_down.weight"]) == ("q8_0", "q5_0")
    odd = replace(SMALL, metadata={**SMALL.metadata, "feed_forward_length": 500})
    assert types(odd, PLAIN["q4_k_m"])["blk.0.ffn_down.weight"] == "f16"


def test_a_small_model_keeps_the_first_blocks_and_those_that_predict_further_tokens() -> None:
    whole, small = published_shape("glm-4.5-air", "q8_0"), published_shape("glm-4.5-air", "q8_0", 3)
    assert small.metadata["block_count"] == 4
    assert {tensor.block for tensor in small.tensors} == {None, 0, 1, 2, 3}
    renamed = {tensor.name.replace("blk.46.", "blk.3."): tensor for tensor in whole.tensors if tensor.block == 46}
    last = {tensor.name: tensor for tensor in small.tensors if tensor.block == 3}
    assert {name: tensor.dimensions for name, tensor in last.items()} == {
        name: tensor.dimensions for name, tensor in renamed.items()
    }


def test_a_small_hybrid_keeps_its_lists_as_long_as_its_blocks() -> None:
    header = shortened(published_model("nemotron-3-nano-30b-a3b").header, 7)
    assert header.metadata["attention.head_count_kv"] == [0, 0, 0, 0, 0, 2, 0]
    assert header.metadata["feed_forward_length"] == [0, 1856, 0, 1856, 0, 0, 1856]
    names = {name for name, _ in tensors(header)}
    assert {"blk.0.ssm_in.weight", "blk.5.attn_q.weight", "blk.6.ffn_up_exps.weight"} <= names


@pytest.mark.parametrize(
    ("name", "mix"),
    [
        ("kimi-linear-48b", "q4_k_m"),
        ("gemma-4-26b-a4b", "f16"),
        ("gpt-oss-20b", "mxfp4-f16"),
        ("qwen3-coder-next", "ud-q6_k_xl"),
    ],
)
def test_a_ghost_says_what_its_shape_says_and_takes_no_room(tmp_path: Path, name: str, mix: str) -> None:
    shape, path = published_shape(name, mix), tmp_path / "ghost.gguf"
    write_ghost(path, shape, name)
    read = read_model(str(path), FileSource).shape
    assert (read.architecture, read.vocabulary, read.tensors) == (shape.architecture, shape.vocabulary, shape.tensors)
    assert {key: read.metadata[key] for key in shape.metadata} == shape.metadata
    assert read.metadata["general.name"] == name
    state = path.stat()
    assert state.st_size > shape.bytes
    assert state.st_blocks * 512 < 10 * 2**20


def test_a_shape_survives_the_catalogue() -> None:
    shape = published_shape("qwen3.5-122b-a10b", "ud-q4_k_xl")
    assert shape.source == "published"
    written = Shape.from_dict(shape.to_dict())
    assert (set(written.tensors), written.metadata) == (set(shape.tensors), shape.metadata)


def test_ghosts_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    said: list[str] = []
    wanted = [("mixtral-8x7b", "q4_k_m")]
    (path,) = make_ghosts(tmp_path, wanted, said.append)
    stamp = path.stat().st_mtime_ns
    assert make_ghosts(tmp_path, wanted, said.append) == [path]
    assert path.stat().st_mtime_ns == stamp
    assert len(said) == 1
    assert [made.name for made in tmp_path.iterdir()] == ["mixtral-8x7b.q4_k_m.gguf"]


def test_names_of_ghosts_are_a_model_with_or_without_a_quantisation() -> None:
    assert read_ghost_names(["glm-4.7-flash.q6_k"]) == [("glm-4.7-flash", "q6_k")]
    assert read_ghost_names(["glm-4.7-flash"]) == [("glm-4.7-flash", "q4_k_m"), ("glm-4.7-flash", "q8_0")]
    assert {name for name, _ in usual_ghosts()} == {model.name for model in MODELS}


@pytest.mark.parametrize("words", ["no-such-model", "no-such-model.q8_0", "glm-4.7-flash.q9_9"])
def test_a_name_that_is_no_ghost_is_refused_with_those_that_are(words: str) -> None:
    with pytest.raises(LabError) as error:
        read_ghost_names([words])
    assert error.value.remedy
    assert "q8_0" in error.value.remedy or "glm-4.7-flash" in error.value.remedy


def test_an_architecture_that_nobody_looked_up_is_refused() -> None:
    with pytest.raises(LabError, match="no tensors of architecture 'qwen99'"):
        list(tensors(replace(SMALL, architecture="qwen99")))


def test_metadata_that_lacks_what_tensors_need_is_refused() -> None:
    lacking = {key: value for key, value in SMALL.metadata.items() if key != "feed_forward_length"}
    with pytest.raises(LabError, match="needs feed_forward_length"):
        list(tensors(replace(SMALL, metadata=lacking)))
