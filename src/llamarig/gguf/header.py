"""The header of one GGUF file: its metadata and the list of its tensors.

The format is that of ggml's docs/gguf.md, versions 2 and 3; what is refused here is what ``gguf_init_from_reader`` in
llama.cpp's ggml/src/gguf.cpp refuses, and what would cost more time or memory than any real header.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from llamarig.config.shape import TYPE_BLOCKS, MetadataValue, Tensor
from llamarig.gguf.cursor import AGAIN, Cursor
from llamarig.gguf.error import GgufError
from llamarig.gguf.source import Source

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_ALIGNMENT: Final = 32

# Limits far above any published model, and low enough that a hostile header costs a second at most.
_MOST_BYTES: Final = 128 << 20
_MOST_KEYS: Final = 8192
MOST_TENSORS: Final = 1 << 16
_MOST_ENTRIES: Final = 1 << 25
_MOST_ELEMENTS: Final = 1 << 50
_LONGEST_KEY: Final = 1024
_LONGEST_NAME: Final = 64  # GGML_MAX_NAME, with the byte that ends it
_LONGEST_TEXT: Final = 1024
_LONGEST_LIST: Final = 4096
_MOST_KEPT: Final = 1 << 17
_MOST_DIMENSIONS: Final = 4

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_COUNTS: Final = struct.Struct("<QQ")
_ARRAY_HEAD: Final = struct.Struct("<IQ")
_PLACE: Final = struct.Struct("<IQ")
_DIMENSIONS: Final = [struct.Struct(f"<{count}Q") for count in range(_MOST_DIMENSIONS + 1)]
_FLOAT, _BOOL, _STRING, _ARRAY = 6, 7, 8, 9
# Code of a value's type: its letter for struct (gguf.h, enum gguf_type).
_NUMBERS: Final[Mapping[int, str]] = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    _FLOAT: "f",
    _BOOL: "?",
    10: "Q",
    11: "q",
    12: "d",
}
# ggml.h, enum ggml_type; the numbers left out are types that were removed.
_TENSOR_TYPES: Final[Mapping[int, str]] = {
    **dict(enumerate(["f32", "f16", "q4_0", "q4_1"])),
    **dict(enumerate(["q5_0", "q5_1", "q8_0", "q8_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_k"], 6)),
    **dict(enumerate(["iq2_xxs", "iq2_xs", "iq3_xxs", "iq1_s", "iq4_nl", "iq3_s", "iq2_s", "iq4_xs"], 16)),
    **dict(enumerate(["i8", "i16", "i32", "i64", "f64", "iq1_m", "bf16"], 24)),
    **dict(enumerate(["tq1_0", "tq2_0"], 34)),
    **dict(enumerate(["mxfp4", "nvfp4", "q1_0", "q2_0"], 39)),
}
_STRANGERS: Final[Mapping[bytes, tuple[str, str]]] = {
    b"<": ("a web page", "it was saved in place of the model: fetch the file from its download address"),
    b"vers": ("a Git LFS pointer", "run git lfs pull, or fetch the file itself"),
    b"lmgg": ("a model in a format before GGUF", "take a .gguf file of the model"),
    b"fmgg": ("a model in a format before GGUF", "take a .gguf file of the model"),
    b"tjgg": ("a model in a format before GGUF", "take a .gguf file of the model"),
    b"PK": ("a ZIP archive, perhaps a PyTorch model", "take a .gguf file of the model"),
    b"FUGG": ("a big-endian GGUF file", "take a little-endian one: llama.cpp on this machine does"),
}


@dataclass(frozen=True, slots=True)
class Header:
    """What one file says.

    Attributes:
        name: the file, as it was named.
        version: of the format, 2 or 3.
        size: bytes of the file; None where a server does not say.
        data_offset: where tensor data begins.
        metadata: every key with a number, a truth value, a short text, or a short list of numbers.
        counts: how many entries every list has, kept or not.
        keys: every key.
        tensors: in the order of the file.
        revision: as in ``Source``.
        sha256: as in ``Source``.

    """

    name: str
    version: int
    size: int | None
    data_offset: int
    metadata: Mapping[str, MetadataValue]
    counts: Mapping[str, int]
    keys: frozenset[str]
    tensors: tuple[Tensor, ...]
    revision: str | None
    sha256: str | None


def read_header(source: Source) -> Header:
    """Read the header of one file, and nothing after it.

    Raises:
        GgufError: it is no GGUF file, or a damaged one.

    """
    return _Reader(source).header()


class _Reader:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.cursor = Cursor(source, _MOST_BYTES)
        self.metadata: dict[str, MetadataValue] = {}
        self.counts: dict[str, int] = {}
        self.keys: set[str] = set()
        self.kept = 0

    def header(self) -> Header:
        version = self.version()
        tensors, keys = self.unpack(_COUNTS)
        if tensors > MOST_TENSORS or keys > _MOST_KEYS:
            most = f"this reads {MOST_TENSORS} and {_MOST_KEYS} at most"
            raise self.cursor.fault(f"{tensors} tensors and {keys} keys, {most}")
        for number in range(keys):
            self.key(number)
        alignment = int(cast("int", self.metadata.get("general.alignment", _ALIGNMENT)))
        found: dict[str, tuple[Tensor, int]] = {}
        for number in range(tensors):
            tensor, offset = self.tensor(number)
            if tensor.name in found:
                raise self.cursor.fault("there is another tensor of that name before")
            found[tensor.name] = tensor, offset
        begin = -(-self.cursor.position // alignment) * alignment
        self.check_data(list(found.values()), begin, alignment)
        return Header(
            name=self.source.name,
            version=version,
            size=self.source.size,
            data_offset=begin,
            metadata=self.metadata,
            counts=self.counts,
            keys=frozenset(self.keys),
            tensors=tuple(tensor for tensor, _ in found.values()),
            revision=self.source.revision,
            sha256=self.source.sha256,
        )

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.cursor.take(form.size))

    def version(self) -> int:
        magic = self.cursor.take(len(_MAGIC))
        if magic != _MAGIC:
            for start, (what, remedy) in _STRANGERS.items():
                if magic.startswith(start):
                    raise GgufError(f"{self.source.name} is {what}, no GGUF model", remedy)
            why = f"{self.source.name} is no GGUF model: it begins with {magic!r}, not with {_MAGIC!r}"
            raise GgufError(why, "name a .gguf file")
        self.cursor.begin("the version")
        version = int(self.unpack(_U32)[0])
        if version not in _VERSIONS:
            if version and not version & 0xFFFF:
                what, remedy = _STRANGERS[b"FUGG"]
                raise GgufError(f"{self.source.name} is {what}", remedy)
            newest = f"this reads {' and '.join(map(str, _VERSIONS))}"
            raise self.cursor.fault(f"version {version} of the format; {newest}", "take a newer file of the model")
        self.cursor.begin("the numbers of tensors and keys")
        return version

    def text(self, longest: int) -> str:
        length = self.unpack(_U64)[0]
        if length > longest:
            raise self.cursor.fault(f"a name of {length} bytes; {longest} are the most")
        raw = self.cursor.take(length)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.cursor.fault(f"text that is not UTF-8: {raw[:40]!r}") from error

    def key(self, number: int) -> None:
        self.cursor.begin(f"the name of key {number + 1}")
        key = self.text(_LONGEST_KEY)
        self.cursor.begin(f"key {key!r}")
        if not key or key in self.keys:
            raise self.cursor.fault("a key that is there twice" if key else "a key without a name")
        self.keys.add(key)
        kind = self.unpack(_U32)[0]
        if kind == _ARRAY:
            self.array(key)
        elif kind == _STRING:
            length = self.unpack(_U64)[0]
            if length > _LONGEST_TEXT:
                self.cursor.skip(length)
            else:
                # A description in another encoding keeps no model from being loaded.
                with contextlib.suppress(UnicodeDecodeError):
                    self.metadata[key] = self.cursor.take(length).decode()
        elif kind in _NUMBERS:
            self.keep(key, self.numbers(kind, 1)[0])
        else:
            raise self.cursor.fault(f"a value of the unknown type {kind}")
        if key == "general.alignment":
            self.check_alignment(self.metadata.get(key))

    def array(self, key: str) -> None:
        kind, count = self.unpack(_ARRAY_HEAD)
        if kind not in _NUMBERS and kind != _STRING:
            what = "a list of lists" if kind == _ARRAY else f"a list of the unknown type {kind}"
            raise self.cursor.fault(f"{what}, which llama.cpp does not read")
        if count > _MOST_ENTRIES:
            raise self.cursor.fault(f"a list of {count} entries; this reads {_MOST_ENTRIES} at most")
        self.counts[key] = count
        if kind == _STRING:
            self.cursor.skip_strings(count)
        elif count > _LONGEST_LIST:
            self.cursor.skip(count * struct.calcsize(_NUMBERS[kind]))
        else:
            self.kept += count
            if self.kept > _MOST_KEPT:
                raise self.cursor.fault(f"more than {_MOST_KEPT} numbers in short lists, which no model has")
            self.keep(key, self.numbers(kind, count))

    def numbers(self, kind: int, count: int) -> list[Any]:
        form = struct.Struct(f"<{count}{_NUMBERS[kind]}")
        values = list(self.unpack(form))
        return [_shortest(value) for value in values] if kind == _FLOAT else values

    def keep(self, key: str, value: Any) -> None:
        """Keep a value; what is no number (NaN) or none that can be written (infinity) says nothing about a shape."""
        every = value if isinstance(value, list) else [value]
        if all(math.isfinite(number) for number in every):
            self.metadata[key] = cast("MetadataValue", value)

    def check_alignment(self, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value & (value - 1):
            raise self.cursor.fault(f"{value!r} is no power of two")

    def tensor(self, number: int) -> tuple[Tensor, int]:
        self.cursor.begin(f"the name of tensor {number + 1}")
        name = self.text(_LONGEST_NAME - 1)
        self.cursor.begin(f"tensor {name!r}")
        count = self.unpack(_U32)[0]
        if count > _MOST_DIMENSIONS:
            raise self.cursor.fault(f"{count} dimensions; {_MOST_DIMENSIONS} are the most")
        dimensions = self.unpack(_DIMENSIONS[count]) or (1,)
        kind, offset = self.unpack(_PLACE)
        if not all(dimensions) or math.prod(dimensions) > _MOST_ELEMENTS:
            size = "x".join(map(str, dimensions))
            raise self.cursor.fault(f"a tensor of {size} elements, which cannot be")
        if kind not in _TENSOR_TYPES:
            raise self.cursor.fault(f"data of the unknown type {kind}", "take a file that llama.cpp can read")
        block = TYPE_BLOCKS[_TENSOR_TYPES[kind]][0]
        if dimensions[0] % block:
            raise self.cursor.fault(f"rows of {dimensions[0]} elements, which do not fill blocks of {block}")
        return Tensor(name, _TENSOR_TYPES[kind], dimensions), offset

    def check_data(self, tensors: list[tuple[Tensor, int]], begin: int, alignment: int) -> None:
        """Check that tensors lie one after the other, as the engine demands, and within the file."""
        expected, size = 0, self.source.size
        for tensor, offset in tensors:
            if offset != expected:
                why = f"its data is said to begin at {offset}, and that of the tensors before ends at {expected}"
                self.cursor.begin(f"tensor {tensor.name!r}")
                raise self.cursor.fault(f"{why}; llama.cpp takes no gaps and no overlaps")
            end = begin + offset + tensor.bytes
            if size is not None and end > size:
                why = f"it ends at byte {size}, and tensor {tensor.name!r} ends at {end}"
                raise GgufError(f"{self.source.name} is incomplete: {why}", AGAIN)
            expected += -(-tensor.bytes // alignment) * alignment


def _shortest(value: float) -> float:
    """Turn a 32-bit number into the 64-bit one that people would write: 1e-06, not 9.999999974752427e-07."""
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", value):
            return short
    return value
