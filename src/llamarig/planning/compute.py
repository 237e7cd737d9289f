"""How large the compute buffers are that llama.cpp allocates, without the engine.

There is no closed formula. The engine builds the graph of one batch, cuts it between backends and lets ggml-alloc find
places; so does this: ``compute_blocks`` builds the graph from the tensors of the blocks, ``compute_graph`` places it.
Of blocks that are alike a few are built on each device, as an allocator that has seen some has room for the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from llamarig.config.attention import known
from llamarig.config.shape import Shape
from llamarig.planning.cells import states
from llamarig.planning.compute_blocks import draft, graph
from llamarig.planning.compute_case import Case, Mode, Placed, block_kinds, fused, number, rows
from llamarig.planning.devices import MIB
from llamarig.planning.layout import HOST, Layout, Settings

# How many blocks before one decide whether it finds the allocator in a state that is new. Measured: with three, all but
# 3 % of what was compared comes out as if every block were built.
_MEMORY: Final = 3


@dataclass(frozen=True, slots=True)
class Compute:
    """Sizes of compute buffers, in bytes.

    Attributes:
        devices: of each device, as llama-server allocates them.
        host: of the host's buffer.
        logits: what ``llama-fit-params`` counts more where the output is, on the host too: it reserves logits for every
            row of a batch, llama-server for one row of each slot.
        fitted: of each device, as ``llama-fit-params --fit-print on`` says them. It measures without the hints that
            keep norms on their layer's device, so that devices after the first get more of what crosses.
        fitted_host: of the host's buffer, as it says it.
        known: whether the architecture is one that was compared with the engine.
        uncertainty: by how many bytes the engine's figure for a device may be larger.

    """

    devices: tuple[int, ...]
    host: int
    logits: int
    fitted: tuple[int, ...]
    fitted_host: int
    known: bool
    uncertainty: int


def device_buffers(shape: Shape, layout: Layout, settings: Settings) -> tuple[int, ...]:
    """Say how large the compute buffer of each device is, and no more: a search asks for many layouts."""
    return _served(shape, layout, settings, _placed(shape, layout, settings))[:-1]


def _served(shape: Shape, layout: Layout, settings: Settings, placed: Sequence[Placed]) -> tuple[int, ...]:
    mode = _mode(layout, settings, min(states(settings), rows(settings)), pinned=HOST not in layout.units)
    return _buffers(shape, layout, settings, placed, mode)


def _mode(layout: Layout, settings: Settings, outputs: int, *, pinned: bool) -> Mode:
    cuda = layout.offloads and layout.devices > 0
    return Mode(outputs, pinned, cuda and settings.op_offload, cuda)


def compute_buffers(shape: Shape, layout: Layout, settings: Settings) -> Compute:
    """Say how large the compute buffers of each device and of the host are (llama_context::sched_reserve)."""
    placed = _placed(shape, layout, settings)
    buffers = _served(shape, layout, settings, placed)
    unpinned = _mode(layout, settings, rows(settings), pinned=False)
    fitted = _buffers(shape, layout, settings, placed, unpinned)
    output = layout.units[-1]
    understood = known(shape.architecture) and not any(each.kind.strange for each in placed)
    largest = max(buffers[:-1], default=0)
    return Compute(
        devices=buffers[:-1],
        host=buffers[-1],
        logits=fitted[output] - buffers[output],
        fitted=fitted[:-1],
        fitted_host=fitted[-1],
        known=understood,
        uncertainty=max(32 * MIB, largest // 32) if understood else max(128 * MIB, largest // 2),
    )


def _buffers(shape: Shape, layout: Layout, settings: Settings, placed: Sequence[Placed], mode: Mode) -> tuple[int, ...]:
    """Return the size of each device's buffer, and of the host's."""
    blocks = tuple((id(each.kind), each.unit, each.experts, each.kept, each.early, each.alike) for each in placed)
    key = ("compute", layout.devices, layout.units[-1], _pipelined(layout, settings), mode, settings, blocks)
    found: tuple[int, ...] | None = shape.cache.get(key)
    if found is None:
        found = shape.cache[key] = _built(shape, layout, settings, placed, mode)
    return found


def _built(shape: Shape, layout: Layout, settings: Settings, placed: Sequence[Placed], mode: Mode) -> tuple[int, ...]:
    host = layout.devices
    layers = [each.kind.layer for each in placed]
    case = Case(
        shape=shape,
        settings=settings,
        mode=mode,
        host=host,
        pipelined=_pipelined(layout, settings),
        windowed=any(layer.window for layer in layers),
        flash=fused(settings, mode, layers),
        value_widths={
            window: max(layer.kv_heads * layer.value_length for layer in layers if layer.window == window)
            for window in {layer.window for layer in layers}
        },
    )
    unit = host if layout.units[-1] == HOST else layout.units[-1]
    trunk = [each for each in placed if not each.kind.layer.mtp]
    try:
        graphs = [graph(case, trunk, unit, rough=False)]
        graphs += [draft(case, each, unit) for each in placed if each.kind.layer.mtp]
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        graphs = [graph(case, placed, unit, rough=True)]
    sizes = [built.buffers(host + 1, pipelined=case.pipelined) for built in graphs]
    return tuple(sum(each) for each in zip(*sizes, strict=True))


def _pipelined(layout: Layout, settings: Settings) -> bool:
    """Say whether batches overlap on several devices (pipeline_parallel in llama_context::llama_context)."""
    return layout.devices > 1 and HOST not in layout.units and not layout.experts and settings.kv_offload


def _placed(shape: Shape, layout: Layout, settings: Settings) -> list[Placed]:
    """Return the blocks to build: of those that are alike, only where they follow something new on their device."""
    blocks = block_kinds(shape)
    if not settings.mtp:
        blocks = blocks[: len(blocks) - number(shape, "nextn_predict_layers")]
    units = [layout.devices if unit == HOST else unit for unit in layout.units]
    experts = [layout.devices if unit == HOST else unit for unit in layout.experts] or units
    pictures = number(shape, "n_deepstack_layers")
    kept: dict[int, int] = {}  # the device of the last cache of each window
    placed: list[Placed] = []
    seen: set[tuple[tuple[int, int, int], ...]] = set()
    recent: tuple[tuple[int, int, int], ...] = ()
    last = len(blocks) - 1
    for index, kind in enumerate(blocks):
        if kind.layer.cached:
            kept[kind.layer.window] = units[index] if settings.kv_offload else layout.devices
        now = (id(kind), units[index], experts[index])
        recent = (*recent[-_MEMORY:], now)
        edge = index in {0, last} or units[index - 1] != units[index] or units[index + 1] != units[index]
        if edge or recent not in seen:
            at = kept.get(kind.layer.window, units[index])
            placed.append(Placed(kind, units[index], experts[index], at, early=index < pictures))
        elif kind.counted:
            twin = max(n for n, each in enumerate(placed) if each.kind is kind and each.unit == units[index])
            placed[twin] = replace(placed[twin], alike=placed[twin].alike + 1)
        seen.add(recent)
    return placed
