from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamarig.config.shape import Tensor
from llamarig.gguf.error import GgufError
from llamarig.gguf.model import ModelFile, read_model
from llamarig.gguf.source import FileSource
from tests.unit.gguf.files import METADATA, TENSORS, Made, file, number, split


def model(folder: Path, metadata: dict[str, Any] | None = None, tensors: Any = TENSORS) -> ModelFile:
    path = folder / "model.gguf"
    path.write_bytes(file(METADATA if metadata is None else metadata, tensors))
    return read_model(str(path), FileSource)


def test_a_shape_has_the_metadata_of_its_architecture_without_the_prefix(tmp_path: Path) -> None:
    shape = model(tmp_path).shape
    assert shape.architecture == "llama"
    assert shape.source == "header"
    assert shape.metadata["block_count"] == 2
    assert shape.metadata["attention.head_count_kv"] == [2, 1]
    assert shape.metadata["general.name"] == "A small one"
    assert shape.metadata["general.file_type"] == 15
    assert not {"general.license", "tokenizer.ggml.model", "general.architecture"} & shape.metadata.keys()


def test_an_architecture_whose_name_begins_with_another_ones_keeps_to_its_own_keys(tmp_path: Path) -> None:
    metadata = {"general.architecture": "gemma", "gemma.block_count": 1, "gemma3.block_count": 9}
    assert dict(model(tmp_path, metadata, []).shape.metadata) == {"block_count": 1}


@pytest.mark.parametrize(
    ("changes", "tensors", "expected"),
    [
        ({}, TENSORS, 5),
        ({"tokenizer.ggml.tokens": None, "llama.vocab_size": 77}, TENSORS, 77),
        ({"tokenizer.ggml.tokens": None}, [Made("token_embd.weight", "f16", (64, 99))], 99),
        ({"tokenizer.ggml.tokens": None}, [Made("token_embd.weight", "f16", (64,))], 0),
        ({"tokenizer.ggml.tokens": None}, [], 0),
        ({"llama.vocab_size": 77}, TENSORS, 5),
    ],
)
def test_the_vocabulary_is_counted_by_tokens_then_by_metadata_then_by_rows(
    tmp_path: Path, changes: dict[str, Any], tensors: Any, expected: int
) -> None:
    metadata = {key: value for key, value in {**METADATA, **changes}.items() if value is not None}
    assert model(tmp_path, metadata, tensors).shape.vocabulary == expected


def test_a_model_says_its_file_quantisation_and_template(tmp_path: Path) -> None:
    read = model(tmp_path)
    (part,) = read.parts
    assert part.name == str(tmp_path / "model.gguf")
    assert part.bytes == read.bytes == (tmp_path / "model.gguf").stat().st_size
    assert part.tensors == 5
    assert read.quantisation == "Q4_K - Medium"
    assert read.bytes_by_type == {"f16": 2 * 64 * 128 * 2, "f32": 2 * 64 * 4, "q8_0": 64 * 5 // 32 * 34}
    assert list(read.bytes_by_type) == ["f16", "f32", "q8_0"]
    assert (read.tokenizer, read.chat_template, read.general["general.license"]) == ("gpt2", True, "mit")
    assert (read.version, read.notes) == (3, ())


@pytest.mark.parametrize(
    ("said", "words"),
    [(15, "Q4_K - Medium"), (1024 + 15, "Q4_K - Medium"), (38, "MXFP4 MoE"), (999, None), ("x", None), (None, None)],
)
def test_a_file_type_is_said_in_the_words_of_llama_cpp(tmp_path: Path, said: Any, words: str | None) -> None:
    metadata = {**METADATA, "general.file_type": said}
    if said is None:
        del metadata["general.file_type"]
    assert model(tmp_path, metadata).quantisation == words


def test_embeddings_are_tied_where_there_is_no_output_matrix(tmp_path: Path) -> None:
    assert model(tmp_path).tied_embeddings
    assert not model(tmp_path, tensors=[*TENSORS, Made("output.weight", "f16", (64, 5))]).tied_embeddings
    assert not model(tmp_path, tensors=[Made("blk.0.x")]).tied_embeddings


def test_mtp_layers_are_counted_by_their_tensors(tmp_path: Path) -> None:
    assert model(tmp_path).mtp_layers == 0
    more = [Made("blk.2.nextn.eh_proj.weight"), Made("blk.2.nextn.enorm.weight"), Made("blk.3.nextn.enorm.weight")]
    assert model(tmp_path, tensors=[*TENSORS, *more]).mtp_layers == 2


def test_a_vision_projector_is_read_too(tmp_path: Path) -> None:
    metadata = {"general.architecture": "clip", "general.type": "mmproj", "clip.vision.block_count": 27}
    shape = model(tmp_path, metadata, [Made("v.patch_embd.weight", "f16", (14, 14, 3, 64))]).shape
    assert (shape.architecture, shape.vocabulary) == ("clip", 0)
    assert shape.bytes == 14 * 14 * 3 * 64 * 2
    assert shape.metadata["vision.block_count"] == 27


@pytest.mark.parametrize(
    "metadata", [{}, {"general.architecture": ""}, {"general.architecture": 7}, {"general.type": "imatrix"}]
)
def test_a_file_without_an_architecture_is_no_model(tmp_path: Path, metadata: dict[str, Any]) -> None:
    with pytest.raises(GgufError, match=r"says no general.architecture: it is no model but '(something else|imatrix)'"):
        model(tmp_path, metadata, [])


@pytest.mark.parametrize("named", [1, 2, 3])
def test_every_part_of_a_split_model_is_read_whichever_is_named(tmp_path: Path, named: int) -> None:
    paths = split(tmp_path)
    read = read_model(str(paths[named - 1]), FileSource)
    assert [part.name for part in read.parts] == [str(path) for path in paths]
    assert [part.tensors for part in read.parts] == [2, 2, 1]
    assert {tensor.name for tensor in read.shape.tensors} == {tensor.name for tensor in TENSORS}
    assert read.bytes == sum(path.stat().st_size for path in paths)
    assert read.shape.metadata["block_count"] == 2
    assert read.shape.vocabulary == 5
    note = f"part {named} of 3 was named; llama.cpp loads the model by the first, {paths[0]}"
    assert read.notes == ((note,) if named > 1 else ())


def test_a_first_part_without_tensors_is_read(tmp_path: Path) -> None:
    paths = split(tmp_path, parts=2, part1={"split.tensors.count": number("i32", 2)})
    paths[0].write_bytes(file({**METADATA, "split.no": 0, "split.count": 2, "split.tensors.count": 2}, []))
    assert read_model(str(paths[0]), FileSource).shape.tensors == (
        Tensor("blk.0.attn_norm.weight", "f32", (64,)),
        Tensor("blk.0.ffn_up.weight", "f16", (64, 128)),
    )


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_part_is_named(tmp_path: Path, missing: int) -> None:
    paths = split(tmp_path)
    paths[missing - 1].unlink()
    named = paths[1 if missing == 1 else 0]
    with pytest.raises(
        GgufError, match=f"part {missing} of 3 is missing: there is no file {paths[missing - 1]}"
    ) as caught:
        read_model(str(named), FileSource)
    assert caught.value.remedy == "fetch every part into one directory"


def test_a_renamed_part_is_refused_as_the_engine_refuses_it(tmp_path: Path) -> None:
    first = split(tmp_path)[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(GgufError, match=r"its name does not end in -00001-of-00003.gguf"):
        read_model(str(first), FileSource)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"part2": {"split.no": number("u16", 2)}}, "00002-of-00003.gguf is not part 2 of 3"),
        ({"part2": {"split.count": number("u16", 4)}}, "is not part 2 of 3"),
        ({"part3": {"split.no": "three"}}, "split.no is 'three', no number"),
        ({"part1": {"split.tensors.count": number("i32", 9)}}, "counts 9 tensors in all parts, and they hold 5"),
        ({"part1": {"split.count": number("u16", 65535)}}, "does not end in -00001-of-65535.gguf"),
        ({"part1": {"split.no": number("i32", -1)}}, "split.no is -1"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(GgufError, match=message):
        read_model(str(split(tmp_path, **wrong)[0]), FileSource)


def test_a_model_of_very_many_parts_is_refused_before_they_are_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "model-00001-of-65535.gguf"
    path.write_bytes(file({**METADATA, "split.no": 0, "split.count": 65535}))
    with pytest.raises(GgufError, match="one of 65535 parts; this reads 1024 at most"):
        read_model(str(path), FileSource)


def test_a_tensor_in_two_parts_is_refused(tmp_path: Path) -> None:
    paths = split(tmp_path, parts=2)
    first = {**METADATA, "split.no": 0, "split.count": 2, "split.tensors.count": 4}
    paths[0].write_bytes(file(first, [Made("twice"), Made("once")]))
    paths[1].write_bytes(file({"split.no": 1, "split.count": 2}, [Made("twice"), Made("other")]))
    with pytest.raises(GgufError, match="a tensor is in two parts"):
        read_model(str(paths[0]), FileSource)


def test_a_truncated_part_is_named(tmp_path: Path) -> None:
    last = split(tmp_path)[2]
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(GgufError, match=r"00003-of-00003.gguf is incomplete"):
        read_model(str(tmp_path / "model-00001-of-00003.gguf"), FileSource)


def test_a_name_like_that_of_a_part_means_nothing_without_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "model-00001-of-00003.gguf"
    path.write_bytes(file())
    assert len(read_model(str(path), FileSource).parts) == 1
