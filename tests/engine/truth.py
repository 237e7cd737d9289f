"""A case asked of the planner and of the engine, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llamarig.config.records import Strategy
from llamarig.config.shape import Shape
from llamarig.lab.ghosts import published_shape, write_ghost
from llamarig.lab.judge import Judge, Served
from llamarig.planning.compute import compute_buffers
from llamarig.planning.devices import MIB, Device
from llamarig.planning.layout import HOST, Layout, Settings
from llamarig.planning.memory import EXPERTS, Memory, block_count, extra_blocks
from llamarig.planning.placement import place
from llamarig.planning.request import Placement, Request
from tests.engine.cases import Case

HOST_NAME: Final = "Host"
# What the issue allows, of all that a device holds.
SHARE: Final = 0.03
LEAST_MIB: Final = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One device of one case, in MiB."""

    case: str
    kind: str
    strategy: str
    device: str
    predicted: float
    engine: float
    weights_off: float
    cache_off: float
    compute_off: float
    compute: float

    @property
    def off(self) -> float:
        """How much more was predicted than the engine says."""
        return self.predicted - self.engine

    @property
    def allowed(self) -> float:
        """How much it may be off."""
        return max(LEAST_MIB, SHARE * self.engine)


def ghost(directory: Path, case: Case) -> tuple[Path, Shape]:
    """Write a case's model where it is not there yet; return its path and its shape."""
    shape = published_shape(case.model, case.mix, case.short)
    path = directory / case.file
    if not path.exists():
        write_ghost(path, shape, case.model)
    return path, shape


def planned(case: Case, judge: Judge, shape: Shape) -> Placement:
    """Plan a case for the judge's devices."""
    devices = [
        Device(name, judge.buffers[name], memory * MIB, offloads=False)
        for name, memory in zip(judge.devices, case.devices, strict=True)
    ]
    if case.strategy is Strategy.A:
        devices = devices[:1]
    blocks = dict(zip(judge.devices, case.blocks, strict=True)) if case.blocks else None
    return place(case.strategy, Request(devices, shape, case.settings, blocks=blocks))


def arguments(placed: Placement, settings: Settings) -> list[str]:
    """Write what the engine is asked with: the planner's own arguments, and the settings."""
    own = [word for word in placed.argv if word not in {"--fit", "off"}]
    if placed.strategy is not Strategy.CPU:
        own += ["--device", ",".join(f"RPC{number}" for number in placed.devices)]
    own += ["-c", str(settings.context), "-np", str(settings.parallel), "-b", str(settings.batch)]
    own += ["-ub", str(settings.ubatch), "-ctk", settings.type_k, "-ctv", settings.type_v]
    own += ["-fa", "on" if settings.flash_attention else "off"]
    own += ["--swa-full"] * settings.swa_full + ["--no-kv-offload"] * (not settings.kv_offload)
    own += ["--kv-unified"] * settings.unified
    return [*own, "--no-repack"]


def estimated(case: Case, judge: Judge, directory: Path) -> list[Row]:
    """Compare with ``llama-fit-params``, whose compute buffers are larger than a server's (``Compute.fitted``)."""
    path, shape = ghost(directory, case)
    placed = planned(case, judge, shape)
    layout, memory = _known(placed)
    measured = compute_buffers(shape, layout, case.settings)
    said = judge.fit_params(path.name, arguments(placed, case.settings), timeout=300)
    rows = []
    for place_in_server, number in enumerate([*placed.devices, HOST]):
        name = HOST_NAME if number == HOST else f"RPC{number}"
        own = HOST if number == HOST else place_in_server
        part = memory.host if own == HOST else memory.devices[own]
        fitted = measured.fitted_host if own == HOST else measured.fitted[own]
        parts = said[name]
        rows.append(
            Row(
                case=case.name,
                kind=case.kind,
                strategy=placed.strategy.value,
                device=name,
                predicted=(part.total - part.compute + fitted) / MIB,
                engine=parts.total,
                weights_off=part.weights / MIB - parts.model,
                cache_off=part.cache / MIB - parts.context,
                compute_off=fitted / MIB - parts.compute,
                compute=parts.compute,
            )
        )
    return rows


def _known(placed: Placement) -> tuple[Layout, Memory]:
    if placed.layout is None or placed.memory is None:
        msg = "nothing was predicted"
        raise ValueError(msg)
    return placed.layout, placed.memory


def loaded(case: Case, judge: Judge, directory: Path) -> tuple[list[Row], Served, Placement, Shape]:
    """Load a case's model, and compare with what llama-server logs of its buffers."""
    path, shape = ghost(directory, case)
    placed = planned(case, judge, shape)
    _, memory = _known(placed)
    said = judge.serve(path.name, arguments(placed, case.settings), verbose=True)
    rows = []
    for number, part in [*enumerate(memory.devices), (HOST, memory.host)]:
        name = HOST_NAME if number == HOST else f"RPC{placed.devices[number]}"
        engine = said.total(name) - said.output.get(name, 0.0)
        cache = said.cache.get(name, 0.0) + said.state.get(name, 0.0)
        rows.append(
            Row(
                case=case.name,
                kind=case.kind,
                strategy=placed.strategy.value,
                device=name,
                predicted=part.total / MIB,
                engine=engine,
                weights_off=part.weights / MIB - said.model.get(name, 0.0),
                cache_off=part.cache / MIB - cache,
                compute_off=part.compute / MIB - said.compute.get(name, 0.0),
                compute=said.compute.get(name, 0.0),
            )
        )
    return rows, said, placed, shape


def place_of(layout: Layout, placed: Placement, tensor: str, shape: Shape) -> str:
    """Return the device on which the plan put a tensor."""
    found = shape.by_name[tensor].block
    if tensor.startswith("token_embd"):
        return HOST_NAME
    where = layout.units[-1] if found is None else layout.units[found]
    if found is not None and layout.experts and EXPERTS.search(tensor):
        where = layout.experts[found]
    return HOST_NAME if where == HOST else f"RPC{placed.devices[where]}"


def untied(shape: Shape) -> list[str]:
    """Return the tensors whose place the engine's log tells: those of loaded blocks, and of the output."""
    last = block_count(shape) - extra_blocks(shape)
    return [
        tensor.name
        for tensor in shape.tensors
        if (tensor.block is not None and tensor.block < last) or tensor.name.startswith(("output", "token_embd"))
    ]
