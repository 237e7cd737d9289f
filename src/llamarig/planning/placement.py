"""Strategies as placement functions: from a strategy, a shape and devices to exact llama-server arguments.

Each strategy is one function of a closed set. What a layout needs is computed by ``memory``, how many blocks fit is
searched by ``fill``; here is decided what is tried, what is refused, and in which words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from llamarig.config.attention import known
from llamarig.config.records import Gpu, Hardware, ServerValue, Strategy
from llamarig.config.shape import Shape
from llamarig.planning import fill, memory
from llamarig.planning.compute import compute_buffers
from llamarig.planning.devices import MARGIN_MIB, MIB, Device, fastest_first
from llamarig.planning.layout import HOST, Layout, Settings, assign_units, blocks_pattern
from llamarig.planning.memory import EXPERTS, EXPERTS_PATTERN, Memory

_CONTEXT_STEP: Final = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be placed, and what may be used.

    Attributes:
        devices: those that the service may use, as its server would see them.
        shape: the model's; None where nobody knows it.
        settings: what of the server's settings decides memory.
        blocks: a layout of the user's own, by device name.
        threads: of the host's CPU.
        files: bytes of the model's files: the least that it takes where its shape is not known.
        host: bytes of the host's memory that the server may take; None for any number.
        host_extra: bytes of it that go to something else than the model, such as the prompt cache.
        projector: bytes of a vision projector, which lies on the first device.
        advise: whether a refusal looks for the nearest that fits.

    """

    devices: list[Device]
    shape: Shape | None
    settings: Settings
    blocks: Mapping[str, int] | None = None
    threads: int = 1
    files: int = 0
    host: int | None = None
    host_extra: int = 0
    projector: int = 0
    advise: bool = True


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a server goes.

    Attributes:
        strategy: the one that is carried out; of ``auto``, the one that it chose.
        devices: numbers of the request's devices that the server gets to see.
        argv: arguments that nobody overrides.
        reason: why it lies so, in a sentence.
        layout, memory: where everything lies and what it takes; None where it cannot be known before it loads.
        considered: what ``auto`` tried before, and why not.
        warnings: what a person should know.

    """

    strategy: Strategy
    devices: tuple[int, ...]
    argv: list[str]
    reason: str
    layout: Layout | None = None
    memory: Memory | None = None
    considered: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class PlacementError(Exception):
    """A strategy cannot be laid over these devices; ``remedy`` says what could be done."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class DoesNotFitError(PlacementError):
    """The model is larger than the devices, or the host; the message has the numbers."""


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


def place(strategy: Strategy, request: Request) -> Placement:
    """Lay one server over the devices that it may use.

    Raises:
        PlacementError: the strategy cannot use these devices, or the model does not fit.

    """
    if request.blocks is not None and strategy not in _COUNTED:
        msg = f"takes no blocks; {_names([s.value for s in _COUNTED])} do"
        raise PlacementError(msg, "remove blocks, or choose one of those strategies")
    try:
        return _PLACEMENTS[strategy](request)
    except DoesNotFitError as error:
        if not request.advise:
            raise
        quiet = replace(request, advise=False)
        raise DoesNotFitError(str(error), "; or ".join(_nearest(strategy, quiet)) or error.remedy) from None


def _one_device(request: Request) -> Placement:
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


def _layers(request: Request) -> Placement:
    """Strategy B: whole blocks over the devices; where they are too small, the first blocks on the host."""
    shape, order = _needs_shape(request, Strategy.B), fastest_first(request.devices)
    blocks = memory.block_count(shape)
    if request.blocks is not None:
        full = _asked(request, shape)
        counts = fill.Counts(full, (0,) * len(full), blocks - sum(full))
    else:
        costs = _costs(request, shape, _typical(request, shape, host_experts=False, overrides=False))
        found = fill.whole(costs, _budgets(request), order) or fill.tail(costs, _budgets(request), order)
        if found is None:
            raise _too_large(request, shape, Strategy.B)
        counts = found
    argv = ["--split-mode", "layer", "--tensor-split", ",".join(map(str, _proportions(counts)))]
    argv += ["--gpu-layers", str(blocks - counts.host + 1) if counts.host else "all", "--fit", "off"]
    reason = f"blocks {_by_device(request, counts.units)}"
    if counts.host:
        reason += f"; {counts.host} of {blocks} on the CPU"
    placed = Placement(Strategy.B, _all(request), argv, reason)
    return _judged(request, placed, _layout(request, shape, counts, overrides=False))


def _experts_on_devices(request: Request) -> Placement:
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
        costs = _costs(request, shape, _typical(request, shape, host_experts=False, overrides=True))
        found = fill.whole(costs, _budgets(request), order)
        if found is None:
            raise _too_large(request, shape, Strategy.C)
        counts = found
    reason = f"all experts on GPUs: blocks {_by_device(request, counts.full)}"
    return _with_ranges(request, shape, Strategy.C, counts, reason)


def _experts_on_host(request: Request) -> Placement:
    """Strategy D: as many blocks' experts on the devices as fit, those of the rest on the CPU."""
    shape, order = _needs_shape(request, Strategy.D, experts=True), fastest_first(request.devices)
    costs = _costs(request, shape, _typical(request, shape, host_experts=True, overrides=True))
    budgets, real = _budgets(request), _real_blocks(shape)
    most = fill.partial(costs, budgets, order)
    if request.blocks is not None:
        full = _asked(request, shape)
        # Where the rest finds no room the layout is judged all the same, so that its numbers are said.
        counts = fill.completed(costs, budgets, order, full) or _rest_on_last(full, memory.block_count(shape))
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


def _rest_on_last(full: Sequence[int], blocks: int) -> fill.Counts:
    bare = [0] * len(full)
    bare[-1] = blocks - sum(full)
    return fill.Counts(tuple(full), tuple(bare))


def _engine_places(request: Request) -> Placement:
    """Strategy fit: the engine places at load; each device keeps its own margin."""
    if not request.devices:
        raise PlacementError("needs a card, and the host declares none", "strategy: cpu, or declare host_hardware.gpus")
    margins = [str(max(MARGIN_MIB, device.reserve // MIB)) for device in request.devices]
    argv = ["--fit", "on", "--fit-target", ",".join(margins)]
    reason = f"the engine places it at load, leaving {', '.join(margins)} MiB free"
    return Placement(Strategy.FIT, _all(request), argv, reason)


def _host_only(request: Request) -> Placement:
    """Strategy cpu: no device."""
    if request.devices:
        raise PlacementError("uses no card, and gpus names some", "remove gpus, or choose another strategy")
    # 'none' hides every device; the layer count is said too, so that no default can offload.
    argv = ["--device", "none", "--gpu-layers", "0", "--fit", "off"]
    reason = f"everything on the CPU, {request.threads} threads"
    placed = Placement(Strategy.CPU, (), argv, reason, warnings=_unshaped(request))
    if request.shape is None:
        if request.host is not None:
            _at_least(request.files + request.host_extra, request.host, "the host")
        return placed
    return _judged(request, placed, Layout(0, (HOST,) * (memory.block_count(request.shape) + 1)))


def _chosen(request: Request) -> Placement:
    """Strategy auto: the fastest layout that fits."""
    shape = request.shape
    if not request.devices:
        return replace(_host_only(request), considered=["the host declares no card"])
    if shape is None or not known(shape.architecture):
        why = "its shape is not known" if shape is None else f"the memory model does not know {shape.architecture!r}"
        return replace(_engine_places(request), considered=[f"A to D need a memory model, and {why}"])
    considered: list[str] = []
    for strategy, numbers in _candidates(request, shape):
        part = replace(request, devices=_seen(request, numbers), advise=False)
        try:
            placed = place(strategy, part)
        except PlacementError as error:
            names = ", ".join(device.name for device in part.devices)
            considered.append(f"{strategy.value} on {names}: {error}")
            continue
        return replace(placed, devices=tuple(numbers), considered=considered)
    msg = "finds no layout that fits:\n    " + "\n    ".join(considered)
    raise DoesNotFitError(msg, "a smaller quantisation, or more memory")


def _candidates(request: Request, shape: Shape) -> list[tuple[Strategy, list[int]]]:
    """One device, the fastest first; then more and more of them; then with experts, or whole blocks, on the host."""
    order = fastest_first(request.devices)
    moe = any(memory.weights(shape).experts)
    several = Strategy.C if moe else Strategy.B
    result: list[tuple[Strategy, list[int]]] = [(Strategy.A, [number]) for number in order]
    result += [(several, sorted(order[:count])) for count in range(2, len(order) + 1)]
    if moe:
        result.append((Strategy.D, list(range(len(order)))))
    elif len(order) == 1:
        result.append((Strategy.B, order))
    return result


def _seen(request: Request, numbers: Sequence[int]) -> list[Device]:
    """Return these devices as a server that sees no others counts them."""
    chosen = [request.devices[number] for number in numbers]
    buffers = [device.buffer for device in request.devices]
    return [replace(device, buffer=buffers[place]) for place, device in enumerate(chosen)]


def _nearest(strategy: Strategy, request: Request) -> list[str]:
    """Say what near to a refused request would fit: another layout, cache type, context, or strategy."""
    found = []
    if request.blocks is not None:
        layout = _tried(strategy, replace(request, blocks=None))
        if layout is not None:
            found.append(f"leave out blocks, and the planner finds: {layout.reason}")
    settings = request.settings
    if settings.type_k == settings.type_v == "f16" and settings.flash_attention:
        smaller = replace(settings, type_k="q8_0", type_v="q8_0")
        if _tried(strategy, replace(request, settings=smaller)) is not None:
            found.append("cache_type_k and cache_type_v q8_0")
    context = _largest_context(strategy, request)
    if context:
        found.append(f"ctx_size {context}")
    if strategy is not Strategy.AUTO and request.blocks is None:
        other = _tried(Strategy.AUTO, request)
        if other is not None:
            found.append(f"strategy {other.strategy.value}: {other.reason}")
    return found


def _tried(strategy: Strategy, request: Request) -> Placement | None:
    try:
        return place(strategy, request)
    except PlacementError:
        return None


def _largest_context(strategy: Strategy, request: Request) -> int:
    """Return the largest context in steps of 1024 tokens that would fit; 0 where none does."""
    low, high = 0, request.settings.context // _CONTEXT_STEP
    while low < high:
        middle = (low + high + 1) // 2
        smaller = replace(request.settings, context=middle * _CONTEXT_STEP)
        if _tried(strategy, replace(request, settings=smaller)) is None:
            high = middle - 1
        else:
            low = middle
    return low * _CONTEXT_STEP


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


def _at_least(need: int, budget: int, where: str) -> None:
    if need > budget:
        msg = f"does not fit: {where} needs more than {_mib(need)} of {_mib(budget)} MiB, for the model's files alone"
        raise DoesNotFitError(msg, "a smaller quantisation, or more memory")


def _all(request: Request) -> tuple[int, ...]:
    return tuple(range(len(request.devices)))


def _budgets(request: Request) -> list[int]:
    return [device.budget for device in request.devices]


def _offloads(request: Request) -> bool:
    return all(device.offloads for device in request.devices)


def _asked(request: Request, shape: Shape) -> tuple[int, ...]:
    """Read a layout of the user's own; blocks that predict further tokens go with the last block."""
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
    if sum(counts) == real and any(counts):
        counts[_last(counts)] += blocks - real
    return tuple(counts)


def _real_blocks(shape: Shape) -> int:
    return memory.block_count(shape) - memory.extra_blocks(shape)


def _last(counts: Sequence[int]) -> int:
    return max((number for number, count in enumerate(counts) if count), default=0)


def _typical(request: Request, shape: Shape, *, host_experts: bool, overrides: bool) -> Layout:
    """Return a layout like the one that is looked for, whose compute buffers are those that the search reckons with."""
    blocks, devices = memory.block_count(shape), len(request.devices)
    counts = [blocks // devices] * devices
    counts[-1] += blocks - sum(counts)
    bare = [int(host_experts and bool(count)) for count in counts]
    full = [count - less for count, less in zip(counts, bare, strict=True)]
    return _layout(request, shape, fill.Counts(tuple(full), tuple(bare)), overrides=overrides)


def _costs(request: Request, shape: Shape, typical: Layout) -> fill.Costs:
    held = memory.weights(shape, mtp=request.settings.mtp)
    caches = memory.cache_bytes(shape, request.settings) if known(shape.architecture) else (0,) * held.blocks
    if not request.settings.kv_offload:
        caches = (0,) * held.blocks
    computed = compute_buffers(shape, typical, request.settings)
    others = [weight + cache for weight, cache in zip(held.others, caches, strict=True)]
    fixed = [size + (request.projector if number == 0 else 0) for number, size in enumerate(computed.devices)]
    return fill.Costs(others, held.experts, held.head, fixed)


def _layout(request: Request, shape: Shape, counts: fill.Counts, *, overrides: bool) -> Layout:
    """Write counts as the device of each block; prove that the engine's own arithmetic gives the same."""
    units, experts = [HOST] * counts.host, [HOST] * counts.host
    for number, (full, bare) in enumerate(zip(counts.full, counts.bare, strict=True)):
        units += [number] * (full + bare)
        experts += [number] * full + [HOST] * bare
    units.append(_last(counts.units))
    layers = len(units) - counts.host
    if tuple(units) != assign_units(memory.block_count(shape), layers, _proportions(counts)):
        msg = f"the engine would not lay blocks as {counts}"
        raise AssertionError(msg)
    return Layout(len(request.devices), tuple(units), tuple(experts) if overrides else (), _offloads(request))


def _proportions(counts: fill.Counts) -> list[int]:
    """Return the units of each device: its blocks, and on the last device the output."""
    proportions = list(counts.units)
    proportions[_last(proportions)] += 1
    return proportions


def _with_ranges(request: Request, shape: Shape, strategy: Strategy, counts: fill.Counts, reason: str) -> Placement:
    """Name every block whose experts lie somewhere in a pattern, with the split that takes the caches along."""
    layout = _layout(request, shape, counts, overrides=True)
    split = ",".join(map(str, _proportions(counts)))
    argv = ["--split-mode", "layer", "--tensor-split", split, "--gpu-layers", "all"]
    argv += ["--override-tensor", override_tensor(shape, layout, [device.buffer for device in request.devices])]
    argv += ["--fit", "off"]
    return _judged(request, Placement(strategy, _all(request), argv, reason), layout)


def override_tensor(shape: Shape, layout: Layout, buffers: Sequence[str]) -> str:
    """Write ``--override-tensor`` for a layout's experts; prove that each pattern matches what it is meant for.

    The engine takes the first pattern that matches, and says nothing of one that matches nothing.
    """
    held = memory.weights(shape).experts
    patterns = []
    for device in [*range(layout.devices), HOST]:
        blocks = [block for block, where in enumerate(layout.experts) if where == device and held[block]]
        if not blocks:
            continue
        pattern = rf"blk\.{blocks_pattern(blocks)}\.{EXPERTS_PATTERN}"
        matched = {tensor.name for tensor in shape.tensors if re.search(pattern, tensor.name)}
        meant = {tensor.name for tensor in shape.tensors if tensor.block in blocks and EXPERTS.search(tensor.name)}
        if matched != meant:
            msg = f"{pattern} matches {len(matched)} tensors, and is meant for {len(meant)}"
            raise AssertionError(msg)
        patterns.append(f"{pattern}={buffers[device] if device != HOST else 'CPU'}")
    return ",".join(patterns)


def _judged(request: Request, placed: Placement, layout: Layout) -> Placement:
    """Predict what a layout takes and refuse it where that is more than there is."""
    shape = request.shape
    if shape is None:
        return placed
    takes = memory.predict(shape, layout, request.settings)
    warnings = [*placed.warnings, *(f"not predicted: {what}" for what in takes.unknown)]
    if request.projector and takes.devices:
        first = replace(takes.devices[0], weights=takes.devices[0].weights + request.projector)
        takes = replace(takes, devices=(first, *takes.devices[1:]))
        warnings.append("not predicted: the compute buffer of the vision projector")
    over = [
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
        raise DoesNotFitError("does not fit: " + "; ".join(over), "a smaller quantisation, or more memory")
    return replace(placed, layout=layout, memory=takes, warnings=warnings)


def _too_large(request: Request, shape: Shape, strategy: Strategy) -> DoesNotFitError:
    held = memory.weights(shape, mtp=request.settings.mtp)
    caches = sum(memory.cache_bytes(shape, request.settings))
    need = sum(held.others) + held.head + (0 if strategy is Strategy.D else sum(held.experts))
    what = "even without experts " if strategy is Strategy.D else ""
    msg = (
        f"does not fit: {what}weights {_mib(need)} and cache {_mib(caches)} MiB, with compute buffers, "
        f"on {', '.join(f'{device.name} {_mib(device.budget)}' for device in request.devices)} MiB"
    )
    return DoesNotFitError(msg, "a smaller quantisation, or more memory")


def _by_device(request: Request, counts: Sequence[int]) -> str:
    return ", ".join(
        f"{count} on {device.name}" for device, count in zip(request.devices, counts, strict=True) if count
    )


def _mib(size: int) -> int:
    return round(size / MIB)


def _names(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + f" and {words[-1]}"


_PLACEMENTS: Final[Mapping[Strategy, Callable[[Request], Placement]]] = {
    Strategy.A: _one_device,
    Strategy.B: _layers,
    Strategy.C: _experts_on_devices,
    Strategy.D: _experts_on_host,
    Strategy.FIT: _engine_places,
    Strategy.AUTO: _chosen,
    Strategy.CPU: _host_only,
}
_COUNTED: Final = (Strategy.B, Strategy.C, Strategy.D)


def cards_for(strategy: Strategy, hardware: Hardware, names: list[str] | None) -> list[Gpu]:
    """Return the cards that a service may use: those it names, else all of the host's; for the CPU none.

    Raises:
        PlacementError: the host has no card of a name.

    """
    if names is None:
        return [] if strategy is Strategy.CPU else hardware.gpus
    known_cards = {gpu.name: gpu for gpu in hardware.gpus}
    unknown = [name for name in names if name not in known_cards]
    if unknown:
        msg = f"the host has no card {', '.join(unknown)}"
        raise PlacementError(msg, f"declared in host_hardware.gpus: {', '.join(known_cards) or 'none'}")
    # In the order of the bus, in which CUDA counts them.
    return [gpu for gpu in hardware.gpus if gpu.name in names]
