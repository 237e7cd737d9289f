"""The closed set of strategies: each one function that lays a model over devices.

What a layout needs is computed by ``memory``, how many blocks fit is searched by ``fill``, and ``arguments`` writes it
down; here is decided what is laid where, what is refused, and in which words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from llamarig.config.attention import known
from llamarig.config.records import ServerValue, Strategy
from llamarig.config.shape import Shape
from llamarig.planning import fill, memory
from llamarig.planning.arguments import laid_out, last_with_blocks, override_tensor, proportions
from llamarig.planning.compute import device_buffers
from llamarig.planning.devices import MARGIN_MIB, MIB, fastest_first
from llamarig.planning.layout import HOST, Layout, assign_units
from llamarig.planning.memory import Memory
from llamarig.planning.request import DoesNotFitError, Placement, PlacementError, Request

# llama-server's own default, with which the seeds ran the card of a display.
_MOST_MARGIN_MIB: Final = 1024
_LESS: Final = "a smaller quantisation, or more memory"
_LESS_CACHE: Final = (
    "a smaller cache_ram, which limits the prompt cache in the host's memory (engine's default 8192 MiB)"
)


def settings_of(strategy: Strategy, threads: int) -> dict[str, ServerValue]:
    """Return the settings of the strategy's layer."""
    if strategy is Strategy.CPU:
        return {"threads": threads, "threads_batch": threads}
    if strategy is Strategy.D:
        # Experts on the CPU are read from memory of the process: the engine warns of mapped files there.
        return {"threads": threads, "load_mode": "none"}
    if strategy is Strategy.FIT:
        # The engine chooses batches that leave the most room for weights.
        return {"threads": threads, "batch_size": None, "ubatch_size": None}
    return {"threads": threads}


def one_device(request: Request) -> Placement:
    """Strategy A: everything on the one device that the server sees."""
    if len(request.devices) != 1:
        declared = ", ".join(device.name for device in request.devices)
        msg = f"lays a model on one card, and the service may use {len(request.devices)}"
        detect = "declare the host's cards in host_hardware.gpus; llamarig detect writes them"
        raise PlacementError(msg, f"gpus: [<name>], one of: {declared}" if declared else detect)
    device = request.devices[0]
    argv = ["--split-mode", "none", "--gpu-layers", "all", "--fit", "off"]
    placed = Placement(Strategy.A, (0,), argv, f"everything on {device.name}", warnings=_unshaped(request))
    if request.shape is None:
        _at_least(request.files, device.budget, device.name)
        return placed
    blocks = memory.block_count(request.shape)
    return _judged(request, placed, Layout(1, (0,) * (blocks + 1), offloads=device.offloads))


def layers(request: Request) -> Placement:
    """Strategy B: whole blocks over the devices; where they are too small, the first blocks on the host."""
    shape, order = _needs_shape(request, Strategy.B), fastest_first(request.devices)
    blocks = memory.block_count(shape)
    if request.blocks is not None:
        full = _asked(request, shape, tail=True)
        counts = fill.Counts(full, (0,) * len(full), blocks - sum(full))
    else:
        found = _searched(request, shape, lambda costs, budgets: fill.whole(costs, budgets, order), overrides=False)
        if found is None and not request.whole:
            found = _searched(request, shape, lambda costs, budgets: fill.tail(costs, budgets, order), overrides=False)
        if found is None:
            raise _too_large(request, shape, Strategy.B)
        counts = found
    argv = ["--split-mode", "layer", "--tensor-split", ",".join(map(str, proportions(counts)))]
    argv += ["--gpu-layers", str(blocks - counts.host + 1) if counts.host else "all", "--fit", "off"]
    reason = f"blocks {_by_device(request, _with_experts(counts, _real_blocks(shape))) or 'none'}"
    if counts.host:
        reason += f"; {counts.host} of {_real_blocks(shape)} on the CPU"
    placed = Placement(Strategy.B, _all(request), argv, reason)
    return _judged(request, placed, laid_out(request, shape, counts, overrides=False))


def experts_on_devices(request: Request) -> Placement:
    """Strategy C: all experts on the devices, in one range of blocks for each."""
    shape, order = _needs_shape(request, Strategy.C, experts=True), fastest_first(request.devices)
    if request.blocks is not None:
        full = _asked(request, shape)
        left = memory.block_count(shape) - sum(full)
        if left:
            msg = f"blocks leaves out {left} of the model's {_real_blocks(shape)}"
            remedy = f"name all {_real_blocks(shape)}; or strategy D, which leaves the experts of the rest on the CPU"
            raise PlacementError(msg, remedy)
        counts = fill.Counts(full, (0,) * len(full))
    else:
        found = _searched(request, shape, lambda costs, budgets: fill.whole(costs, budgets, order), overrides=True)
        if found is None:
            raise _too_large(request, shape, Strategy.C)
        counts = found
    reason = f"all experts on GPUs: blocks {_by_device(request, counts.full)}"
    return _with_ranges(request, shape, Strategy.C, counts, reason)


def experts_on_host(request: Request) -> Placement:
    """Strategy D: as many blocks' experts on the devices as fit, those of the rest on the CPU."""
    shape, order = _needs_shape(request, Strategy.D, experts=True), fastest_first(request.devices)
    real = _real_blocks(shape)
    most = _searched(request, shape, lambda costs, budgets: fill.partial(costs, budgets, order), overrides=True)
    if request.blocks is not None:
        full = _asked(request, shape)
        if most is not None and full == most.full:
            counts = most  # what the planner itself says can be written down as it is
        else:
            counts = _shared_out(full, memory.block_count(shape), [device.budget for device in request.devices])
    elif most is None:
        raise _too_large(request, shape, Strategy.D)
    else:
        counts = most
    held = _with_experts(counts, real)
    reason = (
        f"experts of {sum(held)} of {real} blocks on GPUs ({_by_device(request, held) or 'none'}), others on the CPU"
    )
    placed = _with_ranges(request, shape, Strategy.D, counts, reason)
    return replace(placed, warnings=[*placed.warnings, *_could_be_faster(request, held, most, real)])


def _could_be_faster(request: Request, held: Sequence[int], most: fill.Counts | None, real: int) -> list[str]:
    best = _with_experts(most, real) if most else held
    if sum(best) <= sum(held):
        return []
    if sum(best) >= real:
        return [f"experts lie on the CPU although all fit on the GPUs: {_by_device(request, best)}; choose strategy C"]
    there = _by_device(request, best)
    return [f"experts of {sum(best)} blocks would fit on the GPUs ({there}), and blocks names {sum(held)}"]


def _with_experts(counts: fill.Counts, real: int) -> tuple[int, ...]:
    """Return how many blocks with experts each device has, without those that are not loaded."""
    block, result = counts.host, []
    for full, bare in zip(counts.full, counts.bare, strict=True):
        result.append(max(min(block + full, real) - block, 0))
        block += full + bare
    return tuple(result)


def _shared_out(full: Sequence[int], blocks: int, budgets: Sequence[int]) -> fill.Counts:
    """Share out the blocks without experts as the engine does by itself: in proportion to the devices' memory."""
    units = assign_units(blocks, blocks + 1, budgets)[:-1]
    wanted = [max(units.count(number) - have, 0) for number, have in enumerate(full)]
    surplus = sum(full) + sum(wanted) - blocks
    for number in range(len(wanted)):
        less = min(wanted[number], max(surplus, 0))
        wanted[number] -= less
        surplus -= less
    return fill.Counts(tuple(full), tuple(wanted))


def engine_places(request: Request) -> Placement:
    """Strategy fit: the engine places at load; each device keeps its own margin."""
    if not request.devices:
        raise PlacementError("needs a card, and the host declares none", "strategy: cpu, or declare host_hardware.gpus")
    if request.host is not None:
        room = sum(device.budget for device in request.devices) + request.host
        _at_least(request.files, room, "the cards and the host together", request.host_extra)
    # What a display holds when the server starts is not free, and counting it again would waste it.
    margins = [str(min(max(MARGIN_MIB, device.reserve // MIB), _MOST_MARGIN_MIB)) for device in request.devices]
    argv = ["--fit", "on", "--fit-target", ",".join(margins)]
    reason = f"the engine places it at load, leaving {', '.join(margins)} MiB free"
    return Placement(Strategy.FIT, _all(request), argv, reason)


def host_only(request: Request) -> Placement:
    """Strategy cpu: no device."""
    if request.devices:
        raise PlacementError("uses no card, and gpus names some", "remove gpus, or choose another strategy")
    # 'none' hides every device; the layer count is said too, so that no default can offload.
    argv = ["--device", "none", "--gpu-layers", "0", "--fit", "off"]
    reason = f"everything on the CPU, {request.threads} threads"
    placed = Placement(Strategy.CPU, (), argv, reason, warnings=_unshaped(request))
    if request.shape is None:
        if request.host is not None:
            _at_least(request.files, request.host, "the host", request.host_extra)
        return placed
    return _judged(request, placed, Layout(0, (HOST,) * (memory.block_count(request.shape) + 1), offloads=False))


def _needs_shape(request: Request, strategy: Strategy, *, experts: bool = False) -> Shape:
    """Return the shape; refuse what this strategy cannot be laid out for."""
    if not request.devices:
        detect = "declare the host's cards in host_hardware.gpus; llamarig detect writes them"
        raise PlacementError("needs a card, and the host declares none", f"{detect}; or strategy: cpu")
    shape = request.shape
    if shape is None:
        msg = "needs the model's shape, and nobody said it"
        raise PlacementError(msg, "llamarig gguf FILE|URL --shape writes it for the profile; or strategy: fit")
    if request.blocks is None and not known(shape.architecture):
        msg = f"the memory model does not know the architecture {shape.architecture!r}"
        raise PlacementError(msg, "strategy: fit lets the engine place it; or name blocks yourself")
    if experts and not any(memory.weights(shape).experts):
        msg = f"places experts, and the model has none: {strategy.value} is for MoE models"
        raise PlacementError(msg, "strategy B lays a dense model over several cards")
    return shape


def _unshaped(request: Request) -> list[str]:
    return [] if request.shape else ["the model's shape is not known, so that no memory is predicted"]


def _at_least(files: int, budget: int, where: str, more: int = 0) -> None:
    if files + more > budget:
        msg = (
            f"does not fit: {where} needs more than {_mib(files + more)} of {_mib(budget)} MiB (the model's files "
            f"{_mib(files)}, else {_mib(more)})"
        )
        raise DoesNotFitError(msg, _LESS_CACHE if more > files else _LESS)


def _all(request: Request) -> tuple[int, ...]:
    return tuple(range(len(request.devices)))


def _asked(request: Request, shape: Shape, *, tail: bool = False) -> tuple[int, ...]:
    """Read a layout of the user's own, of the model's first blocks or with ``tail`` of its last.

    Blocks that predict further tokens go with the last block.
    """
    asked = request.blocks or {}
    names = [device.name for device in request.devices]
    unknown = [name for name in asked if name not in names]
    if unknown:
        msg = f"blocks names {', '.join(unknown)}, which is no card of this service"
        raise PlacementError(msg, f"cards of this service: {', '.join(names)}")
    counts = [asked.get(name, 0) for name in names]
    blocks, real = memory.block_count(shape), _real_blocks(shape)
    if sum(counts) > real:
        msg = f"blocks names {sum(counts)} blocks, and the model has {real}"
        raise PlacementError(msg, f"name at most {real} in all")
    if any(counts) and (tail or sum(counts) == real):
        counts[last_with_blocks(counts)] += blocks - real
    return tuple(counts)


def _real_blocks(shape: Shape) -> int:
    return memory.block_count(shape) - memory.extra_blocks(shape)


_Search = Callable[[fill.Costs, Sequence[int]], fill.Counts | None]


def _searched(request: Request, shape: Shape, search: _Search, *, overrides: bool) -> fill.Counts | None:
    """Search with the compute buffers of a likely layout, then of what was found, until that fits with its own."""
    blocks, devices = memory.block_count(shape), len(request.devices)
    likely = [blocks // devices] * devices
    likely[-1] += blocks - sum(likely)
    counts = fill.Counts(tuple(likely), (0,) * devices)
    costs = _costs(request, shape, laid_out(request, shape, counts, overrides=overrides))
    budgets = [device.budget for device in request.devices]
    while True:
        found = search(costs, budgets)
        if found is None:
            return None
        own = _costs(request, shape, laid_out(request, shape, found, overrides=overrides))
        if fill.fits(own, found, budgets):
            return found
        costs = replace(own, fixed=[max(pair) for pair in zip(costs.fixed, own.fixed, strict=True)])


def _costs(request: Request, shape: Shape, layout: Layout) -> fill.Costs:
    """Return what blocks cost, and the compute buffers of this layout."""
    held = memory.weights(shape, mtp=request.settings.mtp)
    caches = memory.cache_bytes(shape, request.settings) if known(shape.architecture) else (0,) * held.blocks
    if not request.settings.kv_offload:
        caches = (0,) * held.blocks
    computed = device_buffers(shape, layout, request.settings)
    others = [weight + cache for weight, cache in zip(held.others, caches, strict=True)]
    fixed = [size + (request.projector if number == 0 else 0) for number, size in enumerate(computed)]
    return fill.Costs(others, held.experts, held.head, fixed)


def _with_ranges(request: Request, shape: Shape, strategy: Strategy, counts: fill.Counts, reason: str) -> Placement:
    """Name every block whose experts lie somewhere in a pattern, with the split that takes the caches along."""
    layout = laid_out(request, shape, counts, overrides=True)
    split = ",".join(map(str, proportions(counts)))
    argv = ["--split-mode", "layer", "--tensor-split", split, "--gpu-layers", "all"]
    buffers = [device.buffer for device in request.devices]
    argv += ["--override-tensor", override_tensor(shape, layout, buffers, mtp=request.settings.mtp)]
    argv += ["--fit", "off"]
    return _judged(request, Placement(strategy, _all(request), argv, reason), layout)


def _judged(request: Request, placed: Placement, layout: Layout) -> Placement:
    """Predict what a layout takes and refuse it where that is more than there is."""
    shape = request.shape
    if shape is None:
        return placed
    takes = memory.predict(shape, layout, request.settings)
    warnings = [*placed.warnings, *(f"not predicted: {what}" for what in takes.unknown)]
    if request.projector:
        takes = _with_projector(takes, request.projector)
        warnings.append("not predicted: the compute buffer of the vision projector")
    over = [
        f"{device.name} needs {_mib(device.kept)} of {_mib(device.memory)} MiB before a model is loaded"
        for device in request.devices
        if device.kept > device.memory
    ]
    over += [
        f"{device.name} needs {_mib(part.total)} of {_mib(device.budget)} MiB (weights {_mib(part.weights)}, "
        f"cache {_mib(part.cache)}, compute {_mib(part.compute)})"
        for device, part in zip(request.devices, takes.devices, strict=True)
        if part.total > device.budget
    ]
    host = takes.host.total + request.host_extra
    if request.host is not None and host > request.host:
        over.append(
            f"the host needs {_mib(host)} of {_mib(request.host)} MiB (weights {_mib(takes.host.weights)}, cache "
            f"{_mib(takes.host.cache)}, compute {_mib(takes.host.compute)}, else {_mib(request.host_extra)})"
        )
    if over:
        cache = request.host is not None and host > request.host and request.host_extra > takes.host.total
        raise DoesNotFitError("does not fit: " + "; ".join(over), _LESS_CACHE if cache else _LESS)
    return replace(placed, layout=layout, memory=takes, warnings=warnings)


def _with_projector(takes: Memory, size: int) -> Memory:
    """Add a vision projector, which lies on the first device; without one on the host."""
    if not takes.devices:
        return replace(takes, host=replace(takes.host, weights=takes.host.weights + size))
    first = replace(takes.devices[0], weights=takes.devices[0].weights + size)
    return replace(takes, devices=(first, *takes.devices[1:]))


def _too_large(request: Request, shape: Shape, strategy: Strategy) -> DoesNotFitError:
    held = memory.weights(shape, mtp=request.settings.mtp)
    caches = sum(memory.cache_bytes(shape, request.settings))
    need = sum(held.others) + held.head + (0 if strategy is Strategy.D else sum(held.experts))
    what = "even without experts " if strategy is Strategy.D else ""
    msg = (
        f"does not fit: {what}weights {_mib(need)} and cache {_mib(caches)} MiB, with compute buffers, "
        f"on {', '.join(f'{device.name} {_mib(device.budget)}' for device in request.devices)} MiB"
    )
    return DoesNotFitError(msg, _LESS)


def _by_device(request: Request, counts: Sequence[int]) -> str:
    return ", ".join(
        f"{count} on {device.name}" for device, count in zip(request.devices, counts, strict=True) if count
    )


def _mib(size: int) -> int:
    return round(size / MIB)
