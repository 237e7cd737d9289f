"""Devices as a server sees them, and how much of each a model may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llamarig.config.records import Gpu

MIB: Final = 1 << 20
# What the driver keeps for itself: an RTX 4090 of 24564 MiB offers CUDA 24080, an RTX 4080 SUPER keeps 434 MiB
# (nvmlDeviceGetMemoryInfo_v2, reserved).
DRIVER_MIB: Final = 484
# A process's CUDA context, cuBLAS workspace and pools; llama.cpp's own breakdown does not have them. Four layouts that
# the dual-GPU seed published (docs/bench-test-results.md of github.com/nerdpudding/llama_cpp) took 594 to 1055 MiB of
# its RTX 4090 beyond weights, cache and compute buffers, 790 on average.
CONTEXT_MIB: Final = 768
# Left free: the margin with which the seeds' headless card ran for months (--fit-target 128).
MARGIN_MIB: Final = 128
# Published memory bandwidth in GB/s. Generating a token reads all active weights once, so this is what ranks cards.
_BANDWIDTH: Final = {
    "RTX 5090": 1792,
    "RTX 4090": 1008,
    "RTX 5080": 960,
    "RTX 3090 Ti": 1008,
    "RTX 3090": 936,
    "RTX 5070 Ti": 896,
    "RTX 4080 SUPER": 736,
    "RTX 4080": 717,
    "RTX 5070": 672,
    "RTX 4070 Ti SUPER": 672,
    "RTX 4070 Ti": 504,
    "RTX 4070 SUPER": 504,
    "RTX 4070": 504,
    "RTX 5060 Ti": 448,
    "RTX 4060 Ti": 288,
    "RTX 3080 Ti": 912,
    "RTX 3080": 760,
    "RTX 3060": 360,
    "RTX PRO 6000": 1792,
    "RTX 6000 Ada": 960,
    "A100": 1555,
    "H100": 3350,
    "H200": 4800,
    "L40S": 864,
    "L4": 300,
    "T4": 320,
}


@dataclass(frozen=True, slots=True)
class Device:
    """One device of a server.

    Attributes:
        name: what the inventory calls it.
        buffer: what ``--override-tensor`` calls its memory: ``CUDA0``; of an RPC device ``RPC0[host:port]``.
        memory: all of it, in bytes.
        kept: bytes that no model may take: the site's reserve, the driver's, the context's, and the margin.
        reserve: the site's part of them.
        bandwidth: GB/s of its memory as published; 0 where nobody said.
        offloads: whether it computes large batches with weights of the host.

    """

    name: str
    buffer: str
    memory: int
    kept: int = 0
    reserve: int = 0
    bandwidth: int = 0
    offloads: bool = True

    @property
    def budget(self) -> int:
        """Bytes that a model may take."""
        return max(self.memory - self.kept, 0)


def cuda_devices(gpus: list[Gpu]) -> list[Device]:
    """Return cards as CUDA counts those that a container sees: in the order of the bus, from 0."""
    return [
        Device(
            name=gpu.name,
            buffer=f"CUDA{number}",
            memory=gpu.memory_mib * MIB,
            kept=(gpu.reserve_mib + DRIVER_MIB + CONTEXT_MIB + MARGIN_MIB) * MIB,
            reserve=gpu.reserve_mib * MIB,
            bandwidth=bandwidth(gpu.model),
        )
        for number, gpu in enumerate(gpus)
    ]


def bandwidth(model: str) -> int:
    """Return the published memory bandwidth of a card in GB/s, 0 where it is not known."""
    if "Laptop" in model:  # a slower chip under the same name
        return 0
    known = [name for name in _BANDWIDTH if f" {name} " in f" {model} "]
    return _BANDWIDTH[max(known, key=len)] if known else 0


def fastest_first(devices: list[Device]) -> list[int]:
    """Return the devices' numbers, the fastest first; of equal ones the larger, then the first."""
    order = sorted(range(len(devices)), key=lambda n: (-devices[n].bandwidth, -devices[n].budget, n))
    if any(not device.bandwidth for device in devices):  # one unknown card cannot be ranked: rank all by size
        order = sorted(range(len(devices)), key=lambda n: (-devices[n].budget, n))
    return order
