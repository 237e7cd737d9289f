"""Whatever bytes stand in a GGUF file, reading it ends with a model or with one error, soon and in little memory."""

from __future__ import annotations

import contextlib
import json
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llamarig.cli.gguf import Wanted, present
from llamarig.config.attention import kinds
from llamarig.config.shape import Shape, ShapeError
from llamarig.errors import LlamarigError
from llamarig.gguf.error import GgufError
from llamarig.gguf.header import read_header
from llamarig.gguf.model import ModelFile, read_model
from llamarig.gguf.yaml import scalar, shape_lines
from tests.unit.gguf.files import (
    ARRAY,
    CODES,
    METADATA,
    STRING,
    Counted,
    Made,
    Raw,
    file,
    header,
    number,
    numbers,
    texts,
)

WHOLE = file()
HEADER = len(header())
ODD = st.sampled_from(
    [0, 1, 2, 3, 7, 8, 9, 12, 13, 31, 32, 255, 2**16, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]
)
words = st.text(max_size=20) | st.sampled_from(
    ["general.architecture", "llama.block_count", "general.alignment", "\x1b[2J"]
)
plain: st.SearchStrategy[Any] = (
    st.booleans() | st.integers(0, 2**32 - 1) | st.floats(width=32) | words | st.binary(max_size=20)
)
values: st.SearchStrategy[Any] = (
    plain
    | st.sampled_from(sorted(CODES)).flatmap(lambda kind: st.builds(number, st.just(kind), _numbers(kind)))
    | st.sampled_from(sorted(CODES)).flatmap(
        lambda kind: st.builds(numbers, st.just(kind), st.lists(_numbers(kind), max_size=9))
    )
    | st.builds(texts, st.lists(words, max_size=9))
    | st.builds(Raw, st.integers(0, 20), st.binary(max_size=30))
)
tensors = st.builds(
    Made,
    st.text(max_size=20)
    | st.sampled_from(["blk.0.x", "blk.{0-3}.x", "blk.99999.x", "blk.1.nextn.y", "token_embd.weight"]),
    st.sampled_from(["f32", "f16", "q8_0", "q4_k"]) | st.integers(0, 50),
    st.lists(st.sampled_from([0, 1, 32, 64, 256, 2**40]), max_size=5),
    st.none() | st.none() | ODD,
)


def _numbers(kind: str) -> st.SearchStrategy[Any]:
    if kind == "bool":
        return st.booleans()
    if kind.startswith("f"):
        return st.floats(width=32 if kind == "f32" else 64)
    bits = int(kind[1:])
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind[0] == "i" else st.integers(0, 2**bits - 1)


def model_or_error(data: bytes, size: int | None = -1) -> ModelFile | None:
    """Read it; whatever comes of it came soon, and no byte was read twice or from beyond the end."""
    source = Counted(data, size)
    began = time.thread_time()
    model, refused = None, None
    try:
        model = read_model("counted.gguf", lambda _: source)
    except GgufError as error:
        refused = error
    assert model or (refused and refused.remedy and refused.message.isprintable())
    assert time.thread_time() - began < 2
    given_ = [len(data[offset : offset + length]) for offset, length in source.asked]
    assert sum(given_) <= len(data)
    assert len(source.asked) <= len(data) // (1 << 20) + 60
    if model is not None:
        check(model)
    return model


def check(model: ModelFile) -> None:
    """What was read can be computed with, written, and read again."""
    with contextlib.suppress(ShapeError):
        assert len(kinds(model.shape)) == model.shape.metadata["block_count"]
    record = model.shape.to_dict()
    assert json.dumps(record, allow_nan=False)
    written = yaml.safe_load("\n".join(shape_lines(record)))
    assert written["shape"]["metadata"] == record["metadata"]
    try:
        again = Shape.from_dict(written["shape"])
    except ShapeError:  # names that no model has
        return
    assert again.architecture == model.shape.architecture


@settings(max_examples=400)
@given(place=st.integers(0, HEADER - 1), what=st.binary(min_size=1, max_size=12))
def test_overwritten_bytes(place: int, what: bytes) -> None:
    model_or_error(WHOLE[:place] + what + WHOLE[place + len(what) :])


@settings(max_examples=400)
@given(place=st.integers(0, HEADER - 8), odd=ODD, wide=st.booleans())
def test_counts_and_lengths_that_cannot_be(place: int, odd: int, wide: bool) -> None:
    what = struct.pack("<Q", odd) if wide else struct.pack("<I", odd & 0xFFFFFFFF)
    model_or_error(WHOLE[:place] + what + WHOLE[place + len(what) :])


@settings(max_examples=300)
@given(place=st.integers(0, HEADER), cut=st.integers(0, 64), what=st.binary(max_size=64))
def test_bytes_put_in_and_left_out(place: int, cut: int, what: bytes) -> None:
    model_or_error(WHOLE[:place] + what + WHOLE[place + cut :])


@settings(max_examples=200)
@given(data=st.binary(max_size=400), tensors=ODD, keys=ODD, version=st.sampled_from([0, 1, 2, 3, 4, 3 << 24]))
def test_garbage_after_a_good_beginning(data: bytes, tensors: int, keys: int, version: int) -> None:
    model_or_error(b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + data)
    model_or_error(data)


@settings(max_examples=300)
@given(
    metadata=st.dictionaries(words, values, max_size=6),
    made=st.lists(tensors, max_size=4),
    whole=st.booleans(),
)
def test_headers_of_anything(metadata: dict[str, Any], made: list[Made], whole: bool) -> None:
    said = {**METADATA, **metadata} if whole else metadata
    model_or_error(file([(_utf8(key), value) for key, value in said.items()], [_named(tensor) for tensor in made]))


def _utf8(text: str) -> bytes:
    return text.encode(errors="replace")


def _named(tensor: Made) -> Made:
    return Made(_utf8(tensor.name).decode(), tensor.type, tensor.dimensions, tensor.offset)


@settings(max_examples=300)
@given(changes=st.dictionaries(st.sampled_from(sorted(METADATA)), values, min_size=1, max_size=4))
def test_metadata_of_the_wrong_kind_is_an_error_or_says_nothing(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    """Through the whole command: nothing in a file can make it fail otherwise, or steer the terminal."""
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(file({**METADATA, **changes}))
    for tensors_too, shape_too in [(False, False), (True, False), (False, True)]:
        with contextlib.suppress(LlamarigError):
            data, lines = present(str(path), {}, (), Wanted(tensors=tensors_too, shape=shape_too))
            assert json.dumps(data, allow_nan=False)
            assert all(line.isprintable() for line in lines if "TENSOR" not in line)


@settings(max_examples=300)
@given(value=st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_a_value_that_is_written_as_yaml_is_read_as_it_was(value: Any) -> None:
    assert yaml.safe_load(f"{{key: {scalar(value)}}}" if not isinstance(value, str) else f"key: {scalar(value)}") == {
        "key": value
    }
    assert yaml.safe_load(f"[{scalar(value)}]") == [value]


@settings(max_examples=200)
@given(value=st.floats(width=32))
def test_a_32_bit_number_is_still_that_number(value: float) -> None:
    read = read_header(Counted(file({"x": number("f32", value)}, [])))
    if "x" in read.metadata:
        assert struct.pack("<f", read.metadata["x"]) == struct.pack("<f", value)
    else:
        assert value != value or value in {float("inf"), -float("inf")}  # noqa: PLR0124  not a number


def test_a_header_cut_at_any_byte() -> None:
    for length in range(HEADER):
        assert model_or_error(WHOLE[:length]) is None


# Headers that promise much: small on disk, or large and full of what costs most to read.
BOMBS: dict[str, Callable[[], bytes]] = {
    "a promised vocabulary": lambda: file({"x": Raw(ARRAY, struct.pack("<IQ", STRING, 1 << 25))}),
    "promised keys and tensors": lambda: file(counts=(1 << 16, 8192)),
    "empty tokens": lambda: header({"x": texts([""] * (1 << 19))}, []),
    "long tokens": lambda: header({"x": texts(["t" * 200] * (1 << 15))}, []),
    "short lists": lambda: header({f"x{count}": numbers("f32", [0.1] * 4096) for count in range(40)}, []),
    "long keys": lambda: header({f"{count:01000}": 1 for count in range(8192)}, []),
    "tensors": lambda: header({}, [Made(f"x{count}", "f32", (1,)) for count in range(1 << 16)]),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_promises_or_holds_much_takes_little_memory(bomb: str) -> None:
    source = Counted(BOMBS[bomb](), size=1 << 40)
    tracemalloc.start()
    with contextlib.suppress(GgufError):
        read_header(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


def test_a_file_of_nothing_but_holes_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "holes.gguf"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(LlamarigError, match="it begins with"):
        present(str(path), {}, (), Wanted())
