"""Specs with a prediction, as the planner would write them."""

from __future__ import annotations

from llamarig.config.spec import DeviceMemory, HostMemory, Memory, Spec
from tests.support import make_spec

LARGE = DeviceMemory("rtx-4090", "GPU-a", 24_564, 612, 768, 18_000, 2048, 300)
SMALL = DeviceMemory("rtx-5070-ti", "GPU-b", 16_303, 3684, 768, 9000, 1024, 200)
HOST = HostMemory(60_000, 300, 0, 150, 1088)


def laid(
    service: str,
    *devices: DeviceMemory,
    host: HostMemory = HOST,
    unknown: tuple[str, ...] = (),
    shape: str = "header",
    **changes: object,
) -> Spec:
    """A service that is laid over these devices."""
    values: dict[str, object] = {
        "strategy": "D",
        "asked": "auto",
        "reason": "experts of 19 of 48 blocks on GPUs",
        "memory_mib": host.limit,
        "gpus": [device.uuid for device in devices],
        "memory": Memory(list(devices), host, shape, 32, 0, list(unknown)),
    }
    return make_spec(service, **values | changes)
