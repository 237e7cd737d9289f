"""A model in GGUF files: what their headers say together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from llamarig.config.shape import MetadataValue, Shape, Tensor
from llamarig.gguf.error import GgufError, MissingFileError
from llamarig.gguf.file_types import FILE_TYPES
from llamarig.gguf.header import MOST_TENSORS, Header, read_header
from llamarig.gguf.source import Opener

# Of general.*, what a shape says too: it tells one file of a model from another.
_IN_SHAPE: Final = ("general.name", "general.size_label", "general.file_type", "general.quantized_by")
_PART: Final = re.compile(r"-(\d{5})-of-(\d{5})\.gguf(?=$|[?@])")
_GUESSED: Final = 1024  # LLAMA_FTYPE_GUESSED
_MOST_PARTS: Final = 1024


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a model.

    Attributes:
        name: its path or address.
        bytes: its size; None where a server does not say.
        data_offset: where tensor data begins in it.
        tensors: how many tensors it holds.
        revision: the commit of the hub's repository; None for other places.
        sha256: of the whole file as the hub says it; None for other places.

    """

    name: str
    bytes: int | None
    data_offset: int
    tensors: int
    revision: str | None
    sha256: str | None


@dataclass(frozen=True)
class ModelFile:
    """A model as its files describe it.

    Attributes:
        shape: what memory and placement depend on.
        parts: its files, in order.
        version: of the format.
        general: texts, numbers and truth values below ``general.``, as they are.
        tokenizer: ``tokenizer.ggml.model``; None where there is none.
        chat_template: whether it brings one.
        notes: what a person should know about how it was read.

    """

    shape: Shape
    parts: tuple[Part, ...]
    version: int
    general: Mapping[str, MetadataValue]
    tokenizer: str | None
    chat_template: bool
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int | None:
        """Size of all files together; None where that of one is not known."""
        sizes = [part.bytes for part in self.parts]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def quantisation(self) -> str | None:
        """``general.file_type`` in llama.cpp's words; None where the file does not say or the words are not known."""
        number = self.general.get("general.file_type")
        return FILE_TYPES.get(number & ~_GUESSED) if isinstance(number, int) else None

    @cached_property
    def bytes_by_type(self) -> dict[str, int]:
        """Bytes of tensors of each type, most first."""
        found: dict[str, int] = {}
        for tensor in self.shape.tensors:
            found[tensor.type] = found.get(tensor.type, 0) + tensor.bytes
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @property
    def tied_embeddings(self) -> bool:
        """Whether the output matrix is the embedding matrix."""
        return "token_embd.weight" in self.shape.by_name and "output.weight" not in self.shape.by_name

    @property
    def mtp_layers(self) -> int:
        """How many multi-token prediction layers the files hold."""
        return len({tensor.block for tensor in self.shape.tensors if ".nextn." in tensor.name})


def read_model(name: str, open_source: Opener) -> ModelFile:
    """Read the headers of a model: of one file, or of every part of a split model, whichever part is named.

    Raises:
        GgufError: a file is no GGUF model, is damaged, is missing, or does not belong to the others.

    """
    header = _read(name, open_source)
    count = _number(header, "split.count", 1)
    if count <= 1:
        return _model([header], ())
    headers, notes = _parts(header, count, open_source)
    return _model(headers, notes)


def _read(name: str, open_source: Opener) -> Header:
    source = open_source(name)
    try:
        return read_header(source)
    finally:
        source.close()


def _number(header: Header, key: str, default: int | None = None) -> int:
    value = header.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise GgufError(f"{header.name}: {key} is {value!r}, no number from 0 up", "split the model again")
    return value


def _parts(named: Header, count: int, open_source: Opener) -> tuple[list[Header], tuple[str, ...]]:
    """Read every part of a split model, the first one first, as llama.cpp finds them: by their names."""
    place = _number(named, "split.no")
    said = _PART.search(named.name)
    if said is None or (int(said[1]), int(said[2])) != (place + 1, count):
        ending = _ending(place, count)
        why = f"{named.name} is part {place + 1} of {count}, and its name does not end in {ending}"
        raise GgufError(why, "give every part the name it was split under: llama.cpp finds them by it")
    if count > _MOST_PARTS:
        raise GgufError(f"{named.name} is one of {count} parts; this reads {_MOST_PARTS} at most", "merge the model")
    headers, found = [], 0
    for number in range(count):
        name = named.name[: said.start()] + _ending(number, count) + named.name[said.end() :]
        try:
            header = named if number == place else _read(name, open_source)
        except MissingFileError as error:
            why = f"part {number + 1} of {count} is missing: {error.message}"
            raise GgufError(why, "fetch every part into one directory") from error
        if (_number(header, "split.no"), _number(header, "split.count")) != (number, count):
            why = f"{name} is not part {number + 1} of {count}: split.no and split.count say otherwise"
            raise GgufError(why, "fetch this part again")
        headers.append(header)
        found += len(header.tensors)
        if found > MOST_TENSORS:
            raise GgufError(f"{named.name}: more than {MOST_TENSORS} tensors in its parts", "name another model")
    expected = _number(headers[0], "split.tensors.count")
    if expected != found:
        why = f"{headers[0].name} counts {expected} tensors in all parts, and they hold {found}"
        raise GgufError(why, "fetch every part again, all of the same revision")
    note = f"part {place + 1} of {count} was named; llama.cpp loads the model by the first, {headers[0].name}"
    return headers, (note,) if place else ()


def _ending(number: int, count: int) -> str:
    return f"-{number + 1:05d}-of-{count:05d}.gguf"


def _model(headers: list[Header], notes: tuple[str, ...]) -> ModelFile:
    first, metadata = headers[0], headers[0].metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        kind = metadata.get("general.type", "something else")
        why = f"{first.name} says no general.architecture: it is no model but {kind!r}"
        raise GgufError(why, "name the file of the model itself")
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise GgufError(f"{first.name}: a tensor is in two parts", "fetch every part again, all of the same revision")
    prefix = f"{architecture}."
    shaped = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    shaped |= {key: metadata[key] for key in _IN_SHAPE if key in metadata}
    tokenizer = metadata.get("tokenizer.ggml.model")
    return ModelFile(
        shape=Shape(architecture, shaped, _vocabulary(first, shaped, tensors), tensors),
        parts=tuple(
            Part(part.name, part.size, part.data_offset, len(part.tensors), part.revision, part.sha256)
            for part in headers
        ),
        version=first.version,
        general={key: value for key, value in metadata.items() if key.startswith("general.")},
        tokenizer=tokenizer if isinstance(tokenizer, str) else None,
        chat_template="tokenizer.chat_template" in first.keys,
        notes=notes,
    )


def _vocabulary(header: Header, shaped: Mapping[str, MetadataValue], tensors: tuple[Tensor, ...]) -> int:
    said = header.counts.get("tokenizer.ggml.tokens") or shaped.get("vocab_size")
    if isinstance(said, int):
        return max(said, 0)
    rows = [tensor.dimensions[1:2] for tensor in tensors if tensor.name == "token_embd.weight"]
    return rows[0][0] if rows and rows[0] else 0
