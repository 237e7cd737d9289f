"""The shape of a model: what its GGUF header says about tensors and attention, without a byte of weights.

``gguf/`` reads it from a file, the catalogue can hold it, ``planning/`` computes memory from it.
Plain dataclasses, so that a host can read one without a library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

MetadataValue = bool | int | float | str | list[bool] | list[int] | list[float]

# Elements and bytes of one block of each tensor type (ggml-common.h, ggml.c type_traits).
TYPE_BLOCKS: Final[Mapping[str, tuple[int, int]]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "f64": (1, 8),
    "i8": (1, 1),
    "i16": (1, 2),
    "i32": (1, 4),
    "i64": (1, 8),
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
    "q8_0": (32, 34),
    "q8_1": (32, 36),
    "q2_k": (256, 84),
    "q3_k": (256, 110),
    "q4_k": (256, 144),
    "q5_k": (256, 176),
    "q6_k": (256, 210),
    "q8_k": (256, 292),
    "iq1_s": (256, 50),
    "iq1_m": (256, 56),
    "iq2_xxs": (256, 66),
    "iq2_xs": (256, 74),
    "iq2_s": (256, 82),
    "iq3_xxs": (256, 98),
    "iq3_s": (256, 110),
    "iq4_nl": (32, 18),
    "iq4_xs": (256, 136),
    "tq1_0": (256, 54),
    "tq2_0": (256, 66),
    "mxfp4": (32, 17),
    "nvfp4": (64, 36),
    "q1_0": (128, 18),
    "q2_0": (64, 18),
}
_BLOCK: Final = re.compile(r"^blk\.(\d+)\.(.+)$")
_COMPACT: Final = re.compile(r"^blk\.\{([0-9,-]+)\}\.(.+)$")
_MOST_BLOCKS: Final = 4096
_MOST_TENSORS: Final = 1 << 20
_MOST_ELEMENTS: Final = 1 << 50


class ShapeError(ValueError):
    """A shape that cannot be: the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its type, and its dimensions in ggml's order, the fastest first."""

    name: str
    type: str
    dimensions: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.dimensions)

    @property
    def bytes(self) -> int:
        """How many bytes its data takes, without the padding between tensors.

        Raises:
            ShapeError: a type that is not known, or rows that do not fill whole blocks.

        """
        try:
            block, size = TYPE_BLOCKS[self.type]
        except KeyError:
            msg = f"tensor {self.name} has the unknown type {self.type!r}"
            raise ShapeError(msg) from None
        if not self.dimensions or self.dimensions[0] % block:
            msg = f"tensor {self.name}: rows of {self.dimensions[:1]} do not fill blocks of {block}"
            raise ShapeError(msg)
        return self.elements // block * size

    @property
    def block(self) -> int | None:
        """The number of its block; None for what belongs to the whole model."""
        found = _BLOCK.match(self.name)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Shape:
    """A model's shape.

    Attributes:
        architecture: ``general.architecture``.
        metadata: keys of the architecture without its prefix (``block_count``, ``attention.head_count``), and only
            numbers, words, and lists with an entry for each block; of ``general.*`` what planning reads, as it is.
        vocabulary: how many tokens it knows.
        tensors: every tensor, also those that the engine does not load.
        source: ``header`` when read from a file; ``published`` when put together from what its maker publishes.
        cache: for what planning computes from it more than once.

    """

    architecture: str
    metadata: Mapping[str, MetadataValue]
    vocabulary: int
    tensors: tuple[Tensor, ...]
    source: str = "header"
    cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False, hash=False)

    @cached_property
    def by_name(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return {tensor.name: tensor for tensor in self.tensors}

    @cached_property
    def bytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(tensor.bytes for tensor in self.tensors)

    @cached_property
    def parameters(self) -> int:
        """How many numbers all its tensors hold."""
        return sum(tensor.elements for tensor in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """Write it the way the catalogue holds it; tensors that blocks share stand once, as ``blk.{0-3,7}.name``."""
        groups: dict[tuple[str, str, tuple[int, ...]], list[int]] = {}
        order: list[tuple[str, str, tuple[int, ...]]] = []
        for tensor in self.tensors:
            found = _BLOCK.match(tensor.name)
            key = (f"blk.*.{found[2]}" if found else tensor.name, tensor.type, tensor.dimensions)
            if key not in groups:
                groups[key] = []
                order.append(key)
            if found:
                groups[key].append(int(found[1]))
        tensors = {}
        for name, kind, dimensions in order:
            blocks = groups[name, kind, dimensions]
            written = name.replace("blk.*.", f"blk.{{{format_ranges(blocks)}}}.", 1) if blocks else name
            tensors[written] = f"{kind} {'x'.join(map(str, dimensions))}"
        return {
            "source": self.source,
            "architecture": self.architecture,
            "vocabulary": self.vocabulary,
            "metadata": dict(self.metadata),
            "tensors": tensors,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Shape:
        """Read what ``to_dict`` wrote.

        Raises:
            ShapeError: it is no shape, or one that no model can have.

        """
        if not isinstance(data, dict):
            msg = "a shape is a mapping, as llamarig gguf --shape writes it"
            raise ShapeError(msg)
        unknown = set(data) - {"source", "architecture", "vocabulary", "metadata", "tensors"}
        missing = {"architecture", "vocabulary", "metadata", "tensors"} - set(data)
        if unknown or missing:
            msg = (
                f"a shape has no key {', '.join(sorted(unknown))}"
                if unknown
                else f"it lacks {', '.join(sorted(missing))}"
            )
            raise ShapeError(msg)
        source = data.get("source", "header")
        if source not in {"header", "published"}:
            msg = f"source is header or published, not {source!r}"
            raise ShapeError(msg)
        if not isinstance(data["metadata"], dict) or not isinstance(data["tensors"], dict):
            msg = "metadata and tensors are mappings"
            raise ShapeError(msg)
        vocabulary = data["vocabulary"]
        if isinstance(vocabulary, bool) or not isinstance(vocabulary, int) or vocabulary < 0:
            msg = f"vocabulary is a number of tokens, not {vocabulary!r}"
            raise ShapeError(msg)
        tensors: list[Tensor] = []
        for written, what in data["tensors"].items():
            tensors += _expand(str(written), str(what))
            if len(tensors) > _MOST_TENSORS:
                msg = f"more than {_MOST_TENSORS} tensors"
                raise ShapeError(msg)
        return cls(str(data["architecture"]), dict(data["metadata"]), vocabulary, tuple(tensors), source)


def _expand(written: str, what: str) -> Iterable[Tensor]:
    kind, _, size = what.partition(" ")
    try:
        dimensions = tuple(int(part) for part in size.split("x"))
    except ValueError:
        dimensions = ()
    if not dimensions or min(dimensions) < 1 or math.prod(dimensions) > _MOST_ELEMENTS:
        msg = f"tensor {written}: {what!r} is no type and size as in 'q8_0 4096x1024'"
        raise ShapeError(msg)
    found = _COMPACT.match(written)
    names = [f"blk.{number}.{found[2]}" for number in parse_ranges(found[1])] if found else [written]
    for name in names:
        tensor = Tensor(name, kind, dimensions)
        _ = tensor.bytes  # raises for a type or size that cannot be
        yield tensor


def format_ranges(numbers: Iterable[int]) -> str:
    """Write numbers of blocks as ``0-3,7``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def parse_ranges(text: str) -> list[int]:
    """Read ``0-3,7`` as the numbers it names, in their order.

    Raises:
        ShapeError: it is no such text, or names a block beyond any model's.

    """
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last or last >= _MOST_BLOCKS:
            msg = f"{text!r} names no blocks: ranges as 0-3,7 below {_MOST_BLOCKS}"
            raise ShapeError(msg)
        numbers += range(first, last + 1)
    return numbers
