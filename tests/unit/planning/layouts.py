"""Cards and models to lay over each other, and the engine's own reading of the arguments that come out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

from llamarig.config.records import Gpu, Strategy
from llamarig.config.shape import Shape
from llamarig.lab.ghosts import published_shape
from llamarig.planning.devices import MIB, Device, cuda_devices
from llamarig.planning.layout import HOST, Settings, assign_units
from llamarig.planning.memory import block_count
from llamarig.planning.placement import place
from llamarig.planning.request import Placement, PlacementError, Request
from tests.support import after

GIB = 1024 * MIB
SMALL_CONTEXT = Settings(8192)


def gpu(name: str, memory_mib: int, model: str = "NVIDIA GeForce RTX 4090", reserve_mib: int = 0) -> Gpu:
    """A declared card; its UUID follows from its name."""
    return Gpu(
        name=name,
        uuid=f"GPU-00000000-0000-0000-0000-{name.encode().hex()[-12:]:0>12}",
        model=model,
        memory_mib=memory_mib,
        compute_capability="8.9",
        reserve_mib=reserve_mib,
    )


RTX4090 = gpu("rtx-4090", 24564)
RTX5070TI = gpu("rtx-5070-ti", 16303, "NVIDIA GeForce RTX 5070 Ti")


@cache
def shape(name: str, mix: str = "q8_0") -> Shape:
    """A published model's shape, made once."""
    return published_shape(name, mix)


def device(name: str, mib: int, bandwidth: int = 0, number: int = 0) -> Device:
    """A device of so many MiB, all of which a model may take."""
    return Device(name=name, buffer=f"CUDA{number}", memory=mib * MIB, bandwidth=bandwidth)


def devices(*mib: int, bandwidths: tuple[int, ...] = ()) -> list[Device]:
    """Devices a, b, c and so on, of so many MiB."""
    speeds = bandwidths or (0,) * len(mib)
    return [device(chr(97 + n), size, speeds[n], n) for n, size in enumerate(mib)]


def asked(model: Shape | None, cards: list[Gpu] | list[Device], **changes: Any) -> Request:
    """A request with 8192 tokens of context, unless ``changes`` say otherwise; fields of settings count as changes."""
    seen = [card for card in cards if isinstance(card, Device)]
    seen += cuda_devices([card for card in cards if isinstance(card, Gpu)])
    fields = {key: changes.pop(key) for key in list(changes) if key in Settings.__dataclass_fields__}
    settings = Settings(**{"context": 8192, **fields})
    return Request(seen, model, settings, **{"threads": 8, "advise": False, **changes})


def refusal(strategy: Strategy, request: Request) -> PlacementError:
    """Place what must be refused, and return how it is."""
    try:
        place(strategy, request)
    except PlacementError as error:
        return error
    msg = "it was accepted"
    raise AssertionError(msg)


def blocks_with_experts(placed: Placement) -> Counter[int]:
    """Count the blocks whose experts lie on each device, HOST among them."""
    assert placed.layout is not None
    return Counter(placed.layout.experts or placed.layout.units[:-1])


def weights_by_engine(model: Shape, argv: list[str], buffers: list[str], skipped: int = 0) -> dict[str, int]:
    """Read arguments as the engine does and return the bytes of weights in each buffer, ``CPU`` among them.

    Layers by --gpu-layers and --tensor-split, then for each tensor the first pattern of --override-tensor that is
    found in its name; embeddings stay on the CPU, and without an output matrix are there a second time.
    """
    blocks = block_count(model)
    layers = {"all": blocks + 1}.get(after(argv, "--gpu-layers")) or int(after(argv, "--gpu-layers"))
    split = [float(part) for part in after(argv, "--tensor-split").split(",")] if "--tensor-split" in argv else [1.0]
    units = assign_units(blocks, layers, split)
    rules = overrides(argv)
    held: Counter[str] = Counter()
    for tensor in model.tensors:
        unit = units[blocks] if tensor.block is None else units[tensor.block]
        if tensor.block is not None and tensor.block >= blocks - skipped:
            continue
        where = "CPU" if unit == HOST or tensor.name.startswith("token_embd") else buffers[unit]
        moved = next((buffer for pattern, buffer in rules.items() if re.search(pattern, tensor.name)), where)
        held[moved] += tensor.bytes
    if not any(tensor.name == "output.weight" for tensor in model.tensors) and units[blocks] != HOST:
        held[buffers[units[blocks]]] += sum(t.bytes for t in model.tensors if t.name == "token_embd.weight")
    return dict(held)


def overrides(argv: list[str]) -> Mapping[str, str]:
    """Return the patterns of --override-tensor and their buffers, split where the engine splits them."""
    if "--override-tensor" not in argv:
        return {}
    parts = [part.partition("=") for part in after(argv, "--override-tensor").split(",")]
    return {pattern: buffer for pattern, _, buffer in parts}
