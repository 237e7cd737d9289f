from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import gguf as reference
import pytest

from llamarig.config.shape import TYPE_BLOCKS, Tensor
from llamarig.gguf.error import GgufError, MissingFileError
from llamarig.gguf.header import _TENSOR_TYPES, Header, read_header
from llamarig.gguf.source import FileSource
from tests.unit.gguf.files import (
    ARRAY,
    METADATA,
    STRING,
    TENSORS,
    TOKENS,
    Counted,
    Made,
    Raw,
    file,
    header,
    number,
    numbers,
    texts,
)

HUGE = 2**64 - 1


def parse(data: bytes) -> Header:
    return read_header(Counted(data))


def refused(data: bytes) -> GgufError:
    with pytest.raises(GgufError) as caught:
        parse(data)
    assert caught.value.message
    assert caught.value.remedy
    return caught.value


def pairs(**changes: Any) -> dict[str, Any]:
    return {**METADATA, **changes}


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_in_use_are_read(version: int) -> None:
    read = parse(file(version=version))
    assert read.version == version
    assert read.metadata["llama.block_count"] == 2
    assert [tensor.name for tensor in read.tensors] == [tensor.name for tensor in TENSORS]


def test_a_header_says_where_data_begins_and_how_long_the_file_is() -> None:
    read = parse(file())
    assert (read.data_offset, read.size) == (len(header()), len(file()))


def test_numbers_texts_truth_values_and_short_lists_are_kept() -> None:
    read = parse(file()).metadata
    assert read["general.name"] == "A small one"
    assert read["llama.use_it"] is True
    assert read["llama.flags"] == [True, False]
    assert read["llama.attention.head_count_kv"] == [2, 1]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("u8", 255),
        ("i8", -128),
        ("u16", 65535),
        ("i16", -32768),
        ("u32", 2**32 - 1),
        ("i32", -(2**31)),
        ("u64", HUGE),
        ("i64", -(2**63)),
        ("f64", 0.1),
        ("bool", True),
        ("f32", 0.5),
    ],
)
def test_every_type_of_number_is_read(kind: str, value: Any) -> None:
    found = parse(file(pairs(**{"x.one": number(kind, value), "x.many": numbers(kind, [value] * 3)}))).metadata
    assert found["x.one"] == value
    assert found["x.many"] == [value] * 3
    assert type(found["x.one"]) is type(value)


def test_a_32_bit_number_is_what_its_writer_wrote() -> None:
    read = parse(file()).metadata
    assert read["llama.attention.layer_norm_rms_epsilon"] == 1e-5
    assert read["llama.scales"] == [0.5, 1e-6]


def test_a_text_in_another_encoding_is_left_out() -> None:
    read = parse(file(pairs(**{"general.description": "groß".encode("latin-1")})))
    assert "general.description" in read.keys
    assert "general.description" not in read.metadata


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_left_out(value: float) -> None:
    read = parse(file(pairs(**{"x.one": value, "x.many": [1.0, value]})))
    assert not {"x.one", "x.many"} & read.metadata.keys()
    assert {"x.one", "x.many"} <= read.keys


def test_the_vocabulary_is_counted_and_not_kept() -> None:
    read = parse(file())
    assert read.counts["tokenizer.ggml.tokens"] == len(TOKENS)
    assert "tokenizer.ggml.tokens" not in read.metadata


def test_long_texts_and_long_lists_are_passed_over() -> None:
    long = {"x.text": "t" * 5000, "x.list": numbers("f32", [0.0] * 5000), "x.after": 7}
    read = parse(file(pairs(**long)))
    assert not {"x.text", "x.list"} & read.metadata.keys()
    assert read.counts["x.list"] == 5000
    assert read.metadata["x.after"] == 7


def test_data_is_never_read() -> None:
    begin = header()
    source = Counted(begin, size=len(file()))
    read_header(source)
    assert source.asked
    assert sum(min(length, len(begin) - offset) for offset, length in source.asked) <= len(begin)


def test_a_long_text_is_hopped_over_and_not_read() -> None:
    data = header(pairs(**{"x.text": "t" * (8 << 20), "x.after": 7}))
    source = Counted(data, size=len(data) + len(file()))
    assert read_header(source).metadata["x.after"] == 7
    assert sum(length for _, length in source.asked) < 4 << 20


def test_strings_that_lie_across_blocks_are_counted_right() -> None:
    tokens = ["x" * (number % 97) for number in range(60_000)]
    assert len(file(pairs(**{"tokenizer.ggml.tokens": tokens}))) > 3 << 20
    read = parse(file(pairs(**{"tokenizer.ggml.tokens": tokens})))
    assert read.counts["tokenizer.ggml.tokens"] == 60_000
    assert read.metadata["tokenizer.ggml.token_type"] == METADATA["tokenizer.ggml.token_type"]


def test_a_source_that_gives_one_byte_at_a_time_is_read_the_same() -> None:
    class Dripping(Counted):
        def read(self, offset: int, length: int) -> bytes:
            return super().read(offset, min(length, 1))

    assert read_header(Dripping(file())) == parse(file())


def test_alignment_is_the_files_own() -> None:
    data = file(pairs(**{"general.alignment": 128}), alignment=128)
    assert parse(data).data_offset % 128 == 0


def test_a_tensor_without_dimensions_is_one_number() -> None:
    assert parse(file(tensors=[Made("x", "f32", ())])).tensors == (Tensor("x", "f32", (1,)),)


def test_a_file_without_tensors_is_a_vocabulary() -> None:
    assert parse(file(tensors=[])).tensors == ()


def test_types_are_those_of_the_reference() -> None:
    """Which does not know the newest of them, and takes q8_1, which no file holds, for what it was in 2023."""
    known = {kind.value: kind.name.lower() for kind in reference.GGMLQuantizationType}
    assert known.items() <= _TENSOR_TYPES.items()
    sizes = {kind.name.lower(): size for kind, size in reference.GGML_QUANT_SIZES.items()}
    del sizes["q8_1"]
    assert sizes.items() <= TYPE_BLOCKS.items()
    assert set(_TENSOR_TYPES.values()) == TYPE_BLOCKS.keys()


def test_the_reference_writer_and_this_reader_agree(tmp_path: Path) -> None:
    path = tmp_path / "made.gguf"
    writer = reference.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_head_count_kv([1, 2, 3])
    writer.add_token_list(["a", "b"])
    writer.add_tensor_info("x", (4, 64), reference.np.dtype("float32"), 4 * 64 * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("ab") as stream:
        stream.write(bytes(2048))
    read = read_header(FileSource(str(path)))
    assert read.tensors == (Tensor("x", "f32", (64, 4)),)
    assert read.metadata["llama.attention.head_count_kv"] == [1, 2, 3]
    assert read.metadata["llama.attention.layer_norm_rms_epsilon"] == 1e-6
    assert read.counts["tokenizer.ggml.tokens"] == 2


@pytest.mark.parametrize(
    ("data", "message", "remedy"),
    [
        (b"", "is empty", "fetch"),
        (b"GGU", "ends at byte 3", "fetch"),
        (b"<!DOCTYPE html><html>", "is a web page", "download address"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer", "git lfs pull"),
        (b"PK\x03\x04archive", "is a ZIP archive", "take a .gguf file"),
        (b"lmgg" + bytes(40), "a format before GGUF", "take a .gguf file"),
        (b'{"error": 1}', "begins with b'{\"er'", "name a .gguf file"),
        (bytes(100), "begins with b'\\x00", "name a .gguf file"),
        (file(version=1), "version 1 of the format; this reads 2 and 3", "a newer file"),
        (file(version=4), "version 4 of the format", "a newer file"),
        (file(version=0), "version 0 of the format", "a newer file"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "a big-endian GGUF file", "little-endian"),
        (b"FUGG" + struct.pack(">IQQ", 3, 0, 0), "a big-endian GGUF file", "little-endian"),
    ],
)
def test_what_is_no_model_is_called_what_it_is(data: bytes, message: str, remedy: str) -> None:
    error = refused(data)
    assert message in error.message
    assert remedy in error.remedy
    assert error.message.startswith("counted.gguf")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (file(counts=(HUGE, 1)), "18446744073709551615 tensors and 1 keys, this reads 65536 and 8192 at most"),
        (file(counts=(1, HUGE)), "1 tensors and 18446744073709551615 keys"),
        (file(counts=(5, 8192)), "the file ends at byte|of the unknown type|is empty|a name of"),
        (file({"x": Raw(STRING, struct.pack("<Q", HUGE))}), "key 'x', at byte 33: the file ends at byte"),
        (file([(b"k" * 2000, 1)]), "the name of key 1, at byte 24: a name of 2000 bytes; 1024 are the most"),
        (file([(b"", 1)]), "a key without a name"),
        (file([("x", 1), ("x", 1)]), "key 'x', at byte 50: a key that is there twice"),
        (file([(b"\xff\xfe", 1)]), "the name of key 1, at byte 24: text that is not UTF-8"),
        (file({"x": Raw(13)}), "a value of the unknown type 13"),
        (file({"x": Raw(ARRAY, struct.pack("<IQ", ARRAY, 1))}), "a list of lists, which llama.cpp does not read"),
        (file({"x": Raw(ARRAY, struct.pack("<IQ", 77, 1))}), "a list of the unknown type 77"),
        (file({"x": Raw(ARRAY, struct.pack("<IQ", STRING, HUGE))}), "a list of 18446744073709551615 entries"),
        (file({"x": Raw(ARRAY, struct.pack("<IQ", 0, HUGE))}), "a list of 18446744073709551615 entries"),
        (file({"x": Raw(ARRAY, struct.pack("<IQ", 10, 1 << 25))}), "the file ends at byte"),
        (file({"x": Raw(ARRAY, struct.pack("<IQQ", STRING, 2, 2**63))}), "the file ends at byte"),
        (file({"x": Raw(ARRAY, struct.pack("<IQQ", STRING, 1, HUGE))}), "the file ends at byte"),
        (file({f"x{n}": numbers("bool", [True] * 4096) for n in range(33)}), "more than 131072 numbers in short lists"),
        (file({"general.alignment": 0}), "key 'general.alignment', at byte 49: 0 is no power of two"),
        (file({"general.alignment": 24}), "24 is no power of two"),
        (file({"general.alignment": "32"}), "'32' is no power of two"),
        (file({"general.alignment": True}), "True is no power of two"),
        (file({}, [Made("n" * 64)]), "a name of 64 bytes; 63 are the most"),
        (file({}, [Made("x"), Made("x")]), "another tensor of that name"),
        (file({}, [Made("x", "f32", (1, 1, 1, 1, 1))]), "tensor 'x', at byte 33: 5 dimensions; 4 are the most"),
        (file({}, [Made("x", "f32", (2**40, 2**40))]), "which cannot be"),
        (file({}, [Made("x", "f32", (HUGE, HUGE, HUGE, HUGE))]), "which cannot be"),
        (file({}, [Made("x", "f32", (64, 0))]), "a tensor of 64x0 elements, which cannot be"),
        (file({}, [Made("x", 4)]), "data of the unknown type 4"),
        (file({}, [Made("x", 43)]), "data of the unknown type 43"),
        (file({}, [Made("x", 2**32 - 1)]), "data of the unknown type 4294967295"),
        (file({}, [Made("x", "q4_k", (64,))]), "rows of 64 elements, which do not fill blocks of 256"),
        (file({}, [Made("x", offset=32)]), "said to begin at 32, and that of the tensors before ends at 0"),
        (file({}, [Made("x"), Made("y", offset=0)]), "tensor 'y'.*said to begin at 0.*ends at 256"),
        (file({}, [Made("x"), Made("y", offset=257)]), "said to begin at 257"),
        (file({}, [Made("x", offset=HUGE)]), "said to begin at 18446744073709551615"),
        (file({}, [Made("x"), Made("y")])[:-1], r"is incomplete: it ends at byte \d+, and tensor 'y' ends at \d+"),
        (file({}, [Made("x", "f32", (1 << 40,))]), "is incomplete"),
    ],
)
def test_a_damaged_or_hostile_header_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(GgufError, match=message):
        parse(data)
    assert refused(data).remedy


def test_a_header_cut_at_any_byte_is_one_error() -> None:
    whole = header()
    for length in range(len(whole)):
        refused(whole[:length])


def test_a_file_cut_within_its_data_is_incomplete() -> None:
    for cut in (1, 100, 5000):
        assert "is incomplete" in refused(file()[:-cut]).message


def test_bytes_after_the_data_do_no_harm() -> None:
    assert parse(file() + b"more").tensors == parse(file()).tensors


def test_where_the_size_is_not_known_data_is_not_missed() -> None:
    assert read_header(Counted(header(), size=None)).size is None


def test_a_header_without_end_is_given_up() -> None:
    class Endless(Counted):
        """One list of texts, each of them empty, for ever."""

        def read(self, offset: int, length: int) -> bytes:
            super().read(offset, length)
            return (self.data + bytes(length))[:length] if not offset else bytes(length)

    begin = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"x"
    source = Endless(begin + struct.pack("<IIQ", ARRAY, STRING, 1 << 25), size=None)
    with pytest.raises(GgufError, match="a header of more than 128 MiB"):
        read_header(source)
    assert sum(length for _, length in source.asked) <= 130 << 20


def test_an_endless_number_of_long_texts_is_given_up_without_reading_them() -> None:
    texts_of = {f"x{count}": "t" * 1_000_000 for count in range(140)}
    data = header(texts_of, [])
    source = Counted(data)
    with pytest.raises(GgufError, match="a header of more than 128 MiB"):
        read_header(source)


@pytest.mark.parametrize("text_list", [[b"\xff"], ["a" * 100_000]])
def test_a_vocabulary_may_hold_any_bytes(text_list: list[Any]) -> None:
    assert parse(file(pairs(**{"tokenizer.ggml.tokens": texts(text_list)}))).counts["tokenizer.ggml.tokens"] == 1


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"there is no file .*nothing.gguf"):
        FileSource(str(tmp_path / "nothing.gguf"))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in [(".", "is a directory"), ("pipe", "is no regular file")]:
        with pytest.raises(GgufError, match=message):
            FileSource(str(tmp_path / name))
    with pytest.raises(GgufError, match="is no regular file"):
        FileSource("/dev/zero")
    with pytest.raises(GgufError, match=r"null (byte|character)"):
        FileSource("a\0b")
    (tmp_path / "plain").touch()
    with pytest.raises(GgufError, match="Not a directory"):
        FileSource(str(tmp_path / "plain" / "x"))
