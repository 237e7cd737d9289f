"""Ghost models: files with the true header and tensor table of published models, and holes for weights.

The engine takes them wherever it does not read weights: llama-fit-params, ``--fit``, any reader of headers. A file of
400 GB takes a few MB of disk, most of it the vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from llamarig.config.shape import MetadataValue, Shape
from llamarig.lab.ghost_mixes import PLAIN, quantised
from llamarig.lab.ghost_models import Published, published_models
from llamarig.lab.ghost_parts import Header
from llamarig.lab.ghost_tensors import tensors
from llamarig.lab.machine import LabError
from llamarig.lab.models import Say, add_vocabulary

_ALIGNMENT: Final = 32


def published_model(name: str) -> Published:
    """Return a published model by its name.

    Raises:
        LabError: there is none of this name.

    """
    models = published_models()
    if name not in models:
        msg = f"no published model is called {name!r}"
        raise LabError(msg, f"there are {', '.join(models)}")
    return models[name]


def published_shape(name: str, mix: str, blocks: int | None = None) -> Shape:
    """Return the shape that a published model has in one of its quantisations.

    With ``blocks`` it has its first so many only (and those that predict further tokens): small enough to be loaded.

    Raises:
        LabError: there is no such model, or it has no such quantisation.

    """
    model = published_model(name)
    mixes = {**PLAIN, **model.mixes}
    if mix not in mixes:
        msg = f"{name} has no quantisation {mix!r}"
        raise LabError(msg, f"it has {', '.join(mixes)}")
    header = model.header if blocks is None else shortened(model.header, blocks)
    typed = quantised(header, tensors(header), mixes[mix])
    return Shape(header.architecture, dict(header.metadata), header.vocabulary, typed, source="published")


def usual_ghosts() -> list[tuple[str, str]]:
    """Return each published model with the quantisations that somebody runs: those of a known size, or Q4_K_M."""
    return [(model.name, mix) for model in published_models().values() for mix in model.sizes or ["q4_k_m"]]


def read_ghost_names(words: Iterable[str]) -> list[tuple[str, str]]:
    """Read ``glm-4.7-flash.q8_0`` as a model and a quantisation; the usual ones where no quantisation is named.

    Raises:
        LabError: there is no such model, or it has no such quantisation.

    """
    wanted = []
    for word in words:
        if word in published_models():
            wanted += [pair for pair in usual_ghosts() if pair[0] == word]
            continue
        name, _, mix = word.rpartition(".")
        published_shape(name or word, mix)
        wanted.append((name, mix))
    return wanted


def shortened(header: Header, blocks: int) -> Header:
    """Keep the first blocks of a model, and behind them those that predict further tokens."""
    kept = [*range(blocks), *range(header.trunk, header.blocks)]
    metadata = {
        key: [value[block] for block in kept] if isinstance(value, list) and len(value) == header.blocks else value
        for key, value in header.metadata.items()
    }
    return replace(header, metadata=metadata | {"block_count": len(kept)})


def write_ghost(path: Path, shape: Shape, name: str = "ghost") -> None:
    """Write a shape as a GGUF file whose tensor data is a hole."""
    import numpy as np  # noqa: PLC0415  slow to import, and only the lab needs it
    from gguf import GGMLQuantizationType, GGUFWriter  # noqa: PLC0415

    writer = GGUFWriter(path, shape.architecture)
    writer.add_name(name)
    writer.add_quantization_version(2)
    writer.add_file_type(1)
    writer.add_vocab_size(shape.vocabulary)
    for key, value in shape.metadata.items():
        if not key.startswith("general."):
            _add(writer, f"{shape.architecture}.{key}", value)
    add_vocabulary(writer, shape.vocabulary)
    for tensor in shape.tensors:
        writer.add_tensor_info(
            tensor.name,
            tuple(reversed(tensor.dimensions)),
            np.dtype(np.float32),
            tensor.bytes,
            raw_dtype=GGMLQuantizationType[tensor.type.upper()],
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    padded = sum(-(-tensor.bytes // _ALIGNMENT) * _ALIGNMENT for tensor in shape.tensors)
    start = -(-path.stat().st_size // _ALIGNMENT) * _ALIGNMENT
    os.truncate(path, start + padded)


def make_ghosts(directory: Path, wanted: Iterable[tuple[str, str]], say: Say) -> list[Path]:
    """Write the ghosts that are not there yet, each of a model and a quantisation; return all their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, mix in wanted:
        path = directory / f"{name}.{mix}.gguf"
        if not path.exists():
            temporary = path.with_suffix(".part")
            write_ghost(temporary, published_shape(name, mix), name)
            temporary.replace(path)
            state = path.stat()
            say(f"made {path.name}, {state.st_size / 2**30:.1f} GiB, {state.st_blocks * 512 / 2**20:.1f} MiB on disk")
        paths.append(path)
    return paths


def _add(writer: Any, key: str, value: MetadataValue) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)
