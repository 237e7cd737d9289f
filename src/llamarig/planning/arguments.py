"""From counts of blocks to a layout, and on to exact llama-server arguments, each proved against the shape."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llamarig.config.shape import Shape
from llamarig.planning import fill, memory
from llamarig.planning.layout import HOST, Layout, assign_units, blocks_pattern
from llamarig.planning.memory import EXPERTS, EXPERTS_PATTERN
from llamarig.planning.request import PlacementError, Request


def laid_out(request: Request, shape: Shape, counts: fill.Counts, *, overrides: bool) -> Layout:
    """Write counts as the device of each block; prove that the engine's own arithmetic gives the same.

    Raises:
        PlacementError: it does not.

    """
    units, experts = [HOST] * counts.host, [HOST] * counts.host
    for number, (full, bare) in enumerate(zip(counts.full, counts.bare, strict=True)):
        units += [number] * (full + bare)
        experts += [number] * full + [HOST] * bare
    units.append(last_with_blocks(counts.units))
    layers = len(units) - counts.host
    if tuple(units) != assign_units(memory.block_count(shape), layers, proportions(counts)):
        msg = f"cannot be laid out as blocks {counts.units}: the engine's rounding puts them elsewhere"
        raise PlacementError(msg, "name other blocks, or strategy: fit")
    return Layout(
        len(request.devices),
        tuple(units),
        tuple(experts) if overrides else (),
        all(device.offloads for device in request.devices),
    )


def proportions(counts: fill.Counts) -> list[int]:
    """Return the units of each device: its blocks, and on the last device the output."""
    result = list(counts.units)
    result[last_with_blocks(result)] += 1
    return result


def last_with_blocks(counts: Sequence[int]) -> int:
    """Return the last device that has any blocks: the output lies there too."""
    return max((number for number, count in enumerate(counts) if count), default=0)


def override_tensor(shape: Shape, layout: Layout, buffers: Sequence[str], *, mtp: bool = False) -> str:
    """Write ``--override-tensor`` for a layout's experts; prove that each pattern matches what it is meant for.

    The engine takes the first pattern that matches, and says nothing of one that matches nothing.

    Raises:
        PlacementError: the names of the shape's tensors are not those of a model.

    """
    held = memory.weights(shape, mtp=mtp).experts
    patterns = []
    for device in [*range(layout.devices), HOST]:
        blocks = tuple(block for block, where in enumerate(layout.experts) if where == device and held[block])
        if blocks:
            patterns.append(f"{_proved(shape, blocks)}={buffers[device] if device != HOST else 'CPU'}")
    return ",".join(patterns)


def _proved(shape: Shape, blocks: tuple[int, ...]) -> str:
    """Return the pattern for the experts of these blocks, tried on every tensor of the shape once."""
    key = ("pattern", blocks)
    if key not in shape.cache:
        pattern = rf"blk\.{blocks_pattern(blocks)}\.{EXPERTS_PATTERN}"
        matched = {tensor.name for tensor in shape.tensors if re.search(pattern, tensor.name)}
        wanted = set(blocks)
        meant = {tensor.name for tensor in shape.tensors if tensor.block in wanted and EXPERTS.search(tensor.name)}
        if matched != meant:
            msg = f"has tensors of unusual names: {', '.join(sorted(matched ^ meant)[:3])}"
            raise PlacementError(msg, "llamarig gguf FILE|URL --shape reads the shape anew; or strategy: fit")
        shape.cache[key] = pattern
    found: str = shape.cache[key]
    return found
