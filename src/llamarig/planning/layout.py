"""Where every tensor and every layer's cache of a model goes, computed the way llama.cpp computes it."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

HOST: Final = -1


@dataclass(frozen=True, slots=True)
class Settings:
    """What of a server's settings decides how much memory it takes.

    Attributes:
        context: ``--ctx-size``, in tokens, for all slots together.
        parallel: ``--parallel``, slots.
        unified: ``--kv-unified``, one cache for all slots.
        batch, ubatch: ``--batch-size`` and ``--ubatch-size``, in tokens.
        type_k, type_v: ``--cache-type-k`` and ``-v``, names of tensor types.
        flash_attention: ``--flash-attn``; ``auto`` is on wherever the engine can, and so is taken as on.
        swa_full: ``--swa-full``, layers with a sliding window keep the whole context.
        kv_offload: ``--kv-offload``, the cache lies where its layer does.
        op_offload: ``--op-offload``, a device computes large batches with weights that lie on the host.
        mtp: ``--spec-type draft-mtp``, the layers that predict further tokens are loaded.

    """

    context: int
    parallel: int = 1
    unified: bool = False
    batch: int = 2048
    ubatch: int = 512
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attention: bool = True
    swa_full: bool = False
    kv_offload: bool = True
    op_offload: bool = True
    mtp: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A model laid over devices.

    Attributes:
        devices: how many devices the server sees, in its order.
        units: the device of each block, and of the output after the last block; ``HOST`` for the CPU.
        experts: the device of each block's experts, by ``--override-tensor``; empty where nothing is overridden, which
            differs from overrides that leave them where they are: those end pipeline parallelism.
        offloads: whether the devices' backend computes large batches with weights of the host (CUDA and Vulkan do, RPC
            does not).

    """

    devices: int
    units: tuple[int, ...]
    experts: tuple[int, ...] = ()
    offloads: bool = True


def assign_units(blocks: int, layers: int, split: Sequence[float]) -> tuple[int, ...]:
    """Return the device of each block and of the output, as ``llama_model_base::load_tensors`` decides it.

    Args:
        blocks: ``block_count``, with the layers that predict further tokens.
        layers: ``--gpu-layers``: how many units from the end are on devices; the output is one of them.
        split: ``--tensor-split``, a proportion for each device.

    The engine computes in single precision, and so does this: with counts of units as proportions a unit lands on the
    device that the counts say (llama-model.cpp, ``get_layer_buft_list``).

    """
    units = blocks + 1
    first, on_devices = max(units - layers, 0), min(layers, units)
    total = _single(sum(split))
    borders, running = [], 0.0
    for part in split:
        running = _single(running + part)
        borders.append(_single(running / total) if total else 0.0)
    result = []
    for unit in range(units):
        if unit < first or unit - first >= on_devices or not split:
            result.append(HOST)
            continue
        place = _single((unit - first) / on_devices)
        result.append(min(bisect.bisect_right(borders, place), len(split) - 1))
    return tuple(result)


def _single(number: float) -> float:
    return float(struct.unpack("f", struct.pack("f", number))[0])


def blocks_pattern(blocks: Collection[int]) -> str:
    """Write a regular expression that matches these numbers and no other: ``([8-9]|1[0-2])``. It holds no comma.

    ``--override-tensor`` separates its patterns by commas.
    """
    tens: dict[int, list[int]] = {}
    for block in sorted(blocks):
        tens.setdefault(block // 10, []).append(block % 10)
    return "(" + "|".join(f"{ten or ''}{_digits(last)}" for ten, last in tens.items()) + ")"


def _digits(digits: list[int]) -> str:
    if len(digits) == 1:
        return str(digits[0])
    if digits[-1] - digits[0] == len(digits) - 1:
        return f"[{digits[0]}-{digits[-1]}]"
    return "[" + "".join(map(str, digits)) + "]"
