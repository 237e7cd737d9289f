"""GGUF headers for tests, written byte by byte: with whatever in them a test wants to be wrong."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamarig.config.shape import TYPE_BLOCKS

CODES = {
    "u8": (0, "B"),
    "i8": (1, "b"),
    "u16": (2, "H"),
    "i16": (3, "h"),
    "u32": (4, "I"),
    "i32": (5, "i"),
    "f32": (6, "f"),
    "bool": (7, "?"),
    "u64": (10, "Q"),
    "i64": (11, "q"),
    "f64": (12, "d"),
}
STRING, ARRAY = 8, 9
TENSOR_TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "q4_k": 12, "q6_k": 14}

TOKENS = ["a", "b", "", "<|end|>", "ä"]
METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "A small one",
    "general.file_type": 15,
    "general.license": "mit",
    "llama.block_count": 2,
    "llama.context_length": 4096,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": [2, 1],
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.use_it": True,
    "llama.flags": [True, False],
    "llama.scales": [0.5, 1e-6],
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [1, 1, 1, 3, 1],
    "tokenizer.chat_template": "{{ messages }}",
}


@dataclass(frozen=True)
class Made:
    """One tensor of a file that is made: by default it lies where it should."""

    name: str
    type: str | int = "f32"
    dimensions: Sequence[int] = (64,)
    offset: int | None = None


TENSORS = (
    Made("token_embd.weight", "q8_0", (64, 5)),
    Made("blk.0.attn_norm.weight"),
    Made("blk.1.attn_norm.weight"),
    Made("blk.0.ffn_up.weight", "f16", (64, 128)),
    Made("blk.1.ffn_up.weight", "f16", (64, 128)),
)


@dataclass(frozen=True)
class Raw:
    """A value given as the bytes that stand after its type."""

    code: int
    body: bytes = field(repr=False, default=b"")


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def number(kind: str, value: Any) -> Raw:
    """A number of this type of the format."""
    code, letter = CODES[kind]
    return Raw(code, struct.pack(f"<{letter}", value))


def numbers(kind: str, values: Sequence[Any]) -> Raw:
    """A list of numbers of this type of the format."""
    code, letter = CODES[kind]
    return Raw(ARRAY, struct.pack("<IQ", code, len(values)) + struct.pack(f"<{len(values)}{letter}", *values))


def texts(values: Sequence[str | bytes]) -> Raw:
    return Raw(ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values)))


def value(of: Any) -> bytes:
    """A value as the usual writers write it."""
    if isinstance(of, Raw):
        raw = of
    elif isinstance(of, str | bytes):
        raw = Raw(STRING, text(of))
    elif isinstance(of, list):
        kinds = {type(entry) for entry in of}
        raw = texts(of) if str in kinds else numbers(_kind(of[0]), of)
    else:
        raw = number(_kind(of), of)
    return struct.pack("<I", raw.code) + raw.body


def _kind(of: Any) -> str:
    return "bool" if isinstance(of, bool) else "f32" if isinstance(of, float) else "i32" if of < 0 else "u32"


def header(
    metadata: Mapping[str, Any] | Sequence[tuple[Any, Any]] = METADATA,
    tensors: Sequence[Made] = TENSORS,
    *,
    version: int = 3,
    magic: bytes = b"GGUF",
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A header up to the first byte of data."""
    return _whole(metadata, tensors, version, magic, counts, alignment)[0]


def file(
    metadata: Mapping[str, Any] | Sequence[tuple[Any, Any]] = METADATA,
    tensors: Sequence[Made] = TENSORS,
    *,
    version: int = 3,
    magic: bytes = b"GGUF",
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file; its tensors hold zeros."""
    begin, data = _whole(metadata, tensors, version, magic, counts, alignment)
    return begin + bytes(data)


def _whole(
    metadata: Mapping[str, Any] | Sequence[tuple[Any, Any]],
    tensors: Sequence[Made],
    version: int,
    magic: bytes,
    counts: tuple[int, int] | None,
    alignment: int,
) -> tuple[bytes, int]:
    pairs = list(metadata.items()) if isinstance(metadata, Mapping) else list(metadata)
    said = counts or (len(tensors), len(pairs))
    out = bytearray(magic + struct.pack("<IQQ", version, *said))
    for key, of in pairs:
        out += text(key) + value(of)
    end = 0
    for tensor in tensors:
        kind = TENSOR_TYPES[tensor.type] if isinstance(tensor.type, str) else tensor.type
        out += text(tensor.name) + struct.pack(
            f"<I{len(tensor.dimensions)}Q", len(tensor.dimensions), *tensor.dimensions
        )
        out += struct.pack("<IQ", kind, end if tensor.offset is None else tensor.offset)
        end += -(-_bytes(tensor) // alignment) * alignment
    out += bytes(-len(out) % alignment)
    return bytes(out), end


def _bytes(tensor: Made) -> int:
    if not isinstance(tensor.type, str):
        return 0
    block, size = TYPE_BLOCKS[tensor.type]
    elements = 1
    for length in tensor.dimensions:
        elements *= length
    return elements // block * size if elements < 1 << 30 else 0


def split(
    folder: Path, parts: int = 3, stem: str = "model", metadata: Mapping[str, Any] = METADATA, **wrong: Any
) -> list[Path]:
    """A model split as llama-gguf-split does it: metadata in the first part, tensors in all; ``wrong`` keys replace."""
    paths = []
    for place in range(parts):
        own: dict[str, Any] = dict(metadata) if place == 0 else {"general.architecture": "llama"}
        own |= {"split.no": number("u16", place), "split.count": number("u16", parts)}
        own |= {"split.tensors.count": number("i32", len(TENSORS))} if place == 0 else {}
        own |= wrong.get(f"part{place + 1}", {})
        path = folder / f"{stem}-{place + 1:05d}-of-{parts:05d}.gguf"
        path.write_bytes(file(own, TENSORS[place::parts]))
        paths.append(path)
    return paths


class Counted:
    """Bytes as a source that counts what is read of it."""

    name: str = "counted.gguf"
    revision: str | None = None
    sha256: str | None = None

    def __init__(self, data: bytes, size: int | None = -1) -> None:
        self.data = data
        self.size: int | None = len(data) if size == -1 else size
        self.asked: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        return self.data[offset : offset + length]

    def close(self) -> None:
        pass
