"""Where every tensor and every layer's cache of a model goes, computed the way llama.cpp computes it."""

from __future__ import annotations

from collections.abc import Mapping
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
        moved: tensors that ``--override-tensor`` puts elsewhere than their block, by name.
        offloads: whether the devices' backend computes large batches with weights of the host (CUDA and Vulkan do, RPC
            does not).

    """

    devices: int
    units: tuple[int, ...]
    moved: Mapping[str, int]
    offloads: bool = True
