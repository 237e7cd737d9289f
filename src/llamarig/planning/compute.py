"""How large the compute buffers are that llama.cpp allocates, without the engine.

There is no closed formula. The engine builds the graph of one batch, cuts it between backends and lets ggml-alloc find
places; so does this: ``compute_blocks`` builds the graph from the tensors of the blocks, ``compute_graph`` places it. Blocks
that are alike are built once or twice on each device, since an allocator that has seen one of them has room for the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from llamarig.config.attention import Layer, kinds, known
from llamarig.config.shape import Shape
from llamarig.planning.compute_blocks import TRAITS, Builder, Case, Kind, Placed, Traits, number, rows_of
from llamarig.planning.layout import HOST, Layout, Settings

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Compute:
    """Sizes of compute buffers, in bytes.

    Attributes:
        devices: of each device, as llama-server allocates them.
        host: of the host's buffer.
        logits: what ``llama-fit-params`` counts more on the device of the output: it reserves logits for every row of
            a batch, llama-server for one row of each slot.
        known: whether the architecture is one that was compared with the engine.
        uncertainty: by how many bytes the engine's figure for a device may be larger.

    """

    devices: tuple[int, ...]
    host: int
    logits: int
    known: bool
    uncertainty: int


def compute_buffers(shape: Shape, layout: Layout, settings: Settings) -> Compute:
    """Say how large the compute buffers of each device and of the host are (llama_context::sched_reserve)."""
    placed = _placed(shape, layout, settings)
    rows = rows_of(settings)
    outputs = min(max(settings.parallel, 1), rows)
    served = _buffers(shape, layout, settings, placed, outputs)
    output = layout.units[-1]
    logits = 0
    if output != HOST:
        logits = _buffers(shape, layout, settings, placed, rows)[output] - served[output]
    understood = known(shape.architecture)
    worst = max(served[:-1], default=0)
    uncertainty = max(32 * _MIB, worst // 32) if understood else max(128 * _MIB, worst // 2)
    return Compute(tuple(served[:-1]), served[-1], logits, understood, uncertainty)


def _buffers(
    shape: Shape, layout: Layout, settings: Settings, placed: Sequence[Placed], outputs: int
) -> tuple[int, ...]:
    key = ("compute", layout.devices, layout.units[-1], _pipelined(layout, settings), layout.offloads, settings)
    key = (*key, outputs, tuple((id(each.kind), each.unit, each.experts) for each in placed))
    found: tuple[int, ...] | None = shape.cache.get(key)
    if found is None:
        found = shape.cache[key] = _built(shape, layout, settings, placed, outputs)
    return found


def _built(
    shape: Shape, layout: Layout, settings: Settings, placed: Sequence[Placed], outputs: int
) -> tuple[int, ...]:
    host = layout.devices
    case = Case(
        shape=shape,
        settings=settings,
        outputs=outputs,
        host=host,
        pinned=HOST not in layout.units,
        offloads=layout.offloads and settings.op_offload and layout.devices > 0,
        traits=TRAITS.get(shape.architecture, Traits()),
    )
    builder = Builder(case)
    x = builder.start()
    for index, each in enumerate(placed):
        x = builder.block(each, x, last=index == len(placed) - 1)
    unit = layout.units[-1]
    output = shape.by_name.get("output.weight") or shape.by_name["token_embd.weight"]
    builder.finish(x, host if unit == HOST else unit, {"output": output.bytes}, output.dimensions[1])
    return tuple(builder.graph.buffers(host + 1, pipelined=_pipelined(layout, settings)))


def _pipelined(layout: Layout, settings: Settings) -> bool:
    """Say whether batches overlap on several devices (pipeline_parallel in llama_context::llama_context)."""
    return layout.devices > 1 and HOST not in layout.units and not layout.experts and settings.kv_offload


def _placed(shape: Shape, layout: Layout, settings: Settings) -> list[Placed]:
    """Return the blocks to build: of those that are alike, only where they follow something new on their device."""
    blocks = _kinds(shape)
    if not settings.mtp:
        blocks = blocks[: len(blocks) - number(shape, "nextn_predict_layers")]
    units = [layout.devices if unit == HOST else unit for unit in layout.units]
    experts = [layout.devices if unit == HOST else unit for unit in layout.experts] or units
    placed: list[Placed] = []
    seen: set[tuple[int, ...]] = set()
    previous: tuple[int, int, int] = (-1, -1, -1)
    for index, kind in enumerate(blocks):
        now = (id(kind), units[index], experts[index])
        if index == len(blocks) - 1 or (*previous, *now) not in seen:
            placed.append(Placed(kind, units[index], experts[index]))
        seen.add((*previous, *now))
        previous = now
    return placed


def _kinds(shape: Shape) -> list[Kind]:
    """Return the kind of each block, read once for each shape."""
    found: list[Kind] | None = shape.cache.get("compute_kinds")
    if found is None:
        found = shape.cache["compute_kinds"] = _read_kinds(shape)
    return found


def _read_kinds(shape: Shape) -> list[Kind]:
    layers = _layers(shape)
    widths: list[dict[str, tuple[int, ...]]] = [{} for _ in layers]
    sizes: list[dict[str, int]] = [{} for _ in layers]
    for tensor in shape.tensors:
        block = tensor.block
        if block is not None and block < len(layers):
            name = tensor.name.split(".", 2)[2].removesuffix(".weight")
            widths[block][name] = tensor.dimensions
            sizes[block][name] = tensor.bytes
    groups: dict[tuple[object, ...], list[int]] = {}
    for block, layer in enumerate(layers):
        key = (tuple(sorted(widths[block].items())), layer.kind, layer.window, layer.kv_heads, layer.key_length)
        groups.setdefault(key, []).append(block)
    made: list[Kind | None] = [None] * len(layers)
    for members in groups.values():
        first = members[0]
        largest = {name: max(sizes[block][name] for block in members) for name in sizes[first]}
        kind = Kind(widths[first], largest, layers[first])
        for block in members:
            made[block] = kind
    return [kind for kind in made if kind is not None]


def _layers(shape: Shape) -> list[Layer]:
    """Return what each layer keeps; of an architecture that nobody described, that it attends to everything."""
    if known(shape.architecture):
        if "layers" not in shape.cache:
            shape.cache["layers"] = kinds(shape)
        found: list[Layer] = shape.cache["layers"]
        return found
    metadata: Mapping[str, object] = shape.metadata
    heads = number(shape, "attention.head_count", 1)
    length = number(shape, "attention.key_length", number(shape, "embedding_length") // max(heads, 1))
    value = number(shape, "attention.value_length", length)
    kv_heads = number(shape, "attention.head_count_kv", heads)
    blocks = metadata.get("block_count")
    count = blocks if isinstance(blocks, int) else 1 + max((t.block or 0 for t in shape.tensors), default=0)
    return [Layer(index, "full", kv_heads, length, value, cached=True) for index in range(count)]
