"""What ``llamarig gguf`` says of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from llamarig.cli.output import table
from llamarig.config.attention import Layer, kinds
from llamarig.config.shape import Shape, ShapeError, Tensor, format_ranges
from llamarig.gguf.address import HUGGING_FACE, Hub, is_remote
from llamarig.gguf.error import printable
from llamarig.gguf.model import ModelFile, read_model
from llamarig.gguf.source import FileSource, Source

_WORDS = {
    "full": "attends to every token",
    "window": "sliding window",
    "recurrent": "recurrent state",
    "mla": "MLA, one compressed key",
    "none": "no attention",
}
_HEADS = ("kv_heads", "key_length", "value_length")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted beside the summary.

    Attributes:
        tensors: the list of all tensors.
        shape: the record of it.
        profile: a profile of this name; an empty name leaves it to the file, None wants none.
        mmproj: the file of the profile's vision projector.
        quiet: say nothing of progress.

    """

    tensors: bool = False
    shape: bool = False
    profile: str | None = None
    mmproj: str | None = None
    quiet: bool = False


def present(
    name: str, environment: Mapping[str, str], stores: tuple[str, ...], wanted: Wanted
) -> tuple[dict[str, Any], list[str]]:
    """Return what ``llamarig gguf`` says, for programs and for people; ``stores`` are this host's models directories.

    Raises:
        LlamarigError: the file is no GGUF model, is damaged, or cannot be had.

    """
    hub = Hub(environment.get("HF_ENDPOINT") or HUGGING_FACE, environment.get("HF_TOKEN") or None)
    model = read_model(name, _opener(name, hub))
    data = _facts(model)
    lines = _summary(model, data)
    if wanted.tensors:
        data["tensors"] = [_tensor(tensor) for tensor in model.shape.tensors]
        lines += _tensor_table(model.shape)
    if wanted.shape:
        from llamarig.gguf.yaml import shape_lines  # noqa: PLC0415  most commands write no YAML

        data["shape"] = model.shape.to_dict()
        lines = list(shape_lines(data["shape"]))
    if wanted.profile is not None:
        data["profile"], lines = _profile(name, model, hub, stores, wanted)
    return data, lines


def _profile(
    name: str, model: ModelFile, hub: Hub, stores: tuple[str, ...], wanted: Wanted
) -> tuple[dict[str, Any], list[str]]:
    from llamarig.cli.progress import Reading  # noqa: PLC0415
    from llamarig.gguf.draft import Place, draft_profile, local_bytes  # noqa: PLC0415
    from llamarig.gguf.yaml import profile_lines  # noqa: PLC0415

    place, said = Place(hub, stores), wanted.mmproj
    projector = read_model(said, _opener(said, hub)) if said is not None else None
    with Reading(local_bytes(model, projector), quiet=wanted.quiet) as reading:
        draft = draft_profile(name, model, place, name=wanted.profile, projector=projector, progress=reading.more)
    return draft.to_dict(), list(profile_lines(draft))


def _opener(name: str, hub: Hub) -> Any:
    if not is_remote(name):
        return FileSource
    from llamarig.gguf.remote import HttpSource  # noqa: PLC0415  HTTP and TLS take longer to load than a header to read

    def open_source(address: str) -> Source:
        return HttpSource(address, hub)

    return open_source


def _facts(model: ModelFile) -> dict[str, Any]:
    shape, metadata = model.shape, model.shape.metadata
    layers, unknown = _layers(shape)
    return {
        "name": model.general.get("general.name"),
        "license": model.general.get("general.license"),
        "architecture": shape.architecture,
        "parts": [asdict(part) for part in model.parts],
        "bytes": model.bytes,
        "format": model.version,
        "parameters": shape.parameters,
        "tensor_bytes": shape.bytes,
        "quantisation": model.quantisation,
        "bytes_by_type": model.bytes_by_type,
        "blocks": metadata.get("block_count"),
        "mtp_layers": model.mtp_layers,
        "embedding_length": metadata.get("embedding_length"),
        "heads": metadata.get("attention.head_count"),
        "layers": [asdict(layer) for layer in layers],
        "layers_unknown": unknown,
        "experts": {
            "count": metadata.get("expert_count", 0),
            "used": metadata.get("expert_used_count", 0),
            "shared": metadata.get("expert_shared_count", int(_has_shared_expert(shape))),
        },
        "context_length": metadata.get("context_length"),
        "vocabulary": shape.vocabulary,
        "tokenizer": model.tokenizer,
        "chat_template": model.chat_template,
        "tied_embeddings": model.tied_embeddings,
        "notes": list(model.notes),
    }


def _layers(shape: Shape) -> tuple[list[Layer], str | None]:
    try:
        return kinds(shape), None
    except ShapeError as error:
        return [], str(error)


def _has_shared_expert(shape: Shape) -> bool:
    return any("_shexp." in tensor.name for tensor in shape.tensors)


def _summary(model: ModelFile, data: dict[str, Any]) -> list[str]:
    pairs = [*_about_files(model, data), *_about_shape(data), *_about_layers(data)]
    pairs += [("note", note) for note in model.notes]
    width = max(len(word) for word, _ in pairs)
    return [f"{word.ljust(width)}  {printable(said)}" for word, said in pairs if said]


def _about_files(model: ModelFile, data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", str(data["name"] or "-")
    for number, part in enumerate(model.parts, 1):
        word = "file" if len(model.parts) == 1 else f"part {number}"
        yield word, f"{part.name}, {_size(part.bytes)}, {part.tensors} tensors from byte {part.data_offset} on"
        if part.revision:
            yield "revision", part.revision
        if part.sha256:
            yield "sha256", part.sha256
    yield "format", f"GGUF version {model.version}"
    yield "license", str(data["license"] or "")
    yield "architecture", model.shape.architecture
    yield "parameters", _many(data["parameters"])
    total = max(data["tensor_bytes"], 1)
    mix = ", ".join(f"{100 * size / total:.1f} % {kind}" for kind, size in model.bytes_by_type.items())
    yield "quantisation", f"{model.quantisation or 'not said'}; by bytes: {mix or 'no tensors'}"
    yield "tensors", f"{len(model.shape.tensors)}, {_size(data['tensor_bytes'])}"


def _about_shape(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if data["blocks"] is None:
        return
    yield "blocks", f"{data['blocks']}" + (f", of which {data['mtp_layers']} for MTP" if data["mtp_layers"] else "")
    yield "embedding", _said(data["embedding_length"])
    yield "heads", _said(data["heads"])
    experts = data["experts"]
    if experts["count"]:
        shared = f", and {experts['shared']} shared" if experts["shared"] else ""
        yield "experts", f"{_said(experts['count'])}, of which {_said(experts['used'])} for each token{shared}"
    yield "context", f"{_said(data['context_length'])} tokens in training"
    yield "vocabulary", f"{data['vocabulary']} tokens"
    yield "embeddings", "tied: the output matrix is the embedding" if data["tied_embeddings"] else "not tied"
    yield "chat template", "yes" if data["chat_template"] else "none: the engine falls back to its own"


def _about_layers(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if data["layers_unknown"] and data["blocks"] is not None:
        yield "layers", data["layers_unknown"]
    alike: dict[tuple[Any, ...], list[int]] = {}
    for layer in data["layers"]:
        key = tuple((word, value) for word, value in layer.items() if word != "number")
        alike.setdefault(key, []).append(layer["number"])
    for key, numbers in alike.items():
        yield "layers", f"{format_ranges(numbers)}: {_kind(dict(key))}"


def _kind(layer: dict[str, Any]) -> str:
    words = [_WORDS[layer["kind"]] + (f" of {layer['window']} tokens" if layer["window"] else "")]
    if layer["kv_heads"]:
        heads, key, value = (layer[word] for word in _HEADS)
        words.append(f"{heads} KV heads, key {key}" + (f" and value {value}" if value else ""))
    if layer["index_key_length"]:
        words.append(f"indexer key {layer['index_key_length']}")
    if layer["conv_elements"] or layer["state_elements"]:
        words.append(f"state of {4 * (layer['conv_elements'] + layer['state_elements'])} bytes for each sequence")
    if layer["mtp"]:
        words.append("MTP")
    elif layer["kv_heads"] and not layer["cached"]:
        words.append("no cache of its own")
    return ", ".join(words)


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "type": tensor.type,
        "dimensions": list(tensor.dimensions),
        "bytes": tensor.bytes,
    }


def _tensor_table(shape: Shape) -> list[str]:
    rows = [
        (printable(tensor.name), tensor.type, " x ".join(map(str, tensor.dimensions)), str(tensor.bytes))
        for tensor in shape.tensors
    ]
    return ["", *table(("TENSOR", "TYPE", "DIMENSIONS", "BYTES"), rows)]


def _said(value: Any) -> str:
    """Write a value of the metadata; a list with a value for each block as ``4 (3 times), 8``."""
    if value is None:
        return "not said"
    if not isinstance(value, list):
        return str(value)
    runs = [(entry, len(list(run))) for entry, run in groupby(value)]
    return ", ".join(f"{entry} ({times} times)" if times > 1 else str(entry) for entry, times in runs)


def _size(size: int | None) -> str:
    if size is None:
        return "size not said"
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.2f} {unit}"
    return f"{size} bytes"


def _many(number: int) -> str:
    for unit, scale in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return str(number)
