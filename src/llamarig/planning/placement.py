"""Where a server goes, by the strategy that was asked for or that ``auto`` chooses; and what near a refusal fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from llamarig.config.attention import known
from llamarig.config.records import Gpu, Hardware, Strategy
from llamarig.config.shape import Shape
from llamarig.planning import memory, strategies
from llamarig.planning.devices import Device, fastest_first
from llamarig.planning.request import DoesNotFitError, Placement, PlacementError, Request

_CONTEXT_STEP: Final = 1024


def place(strategy: Strategy, request: Request) -> Placement:
    """Lay one server over the devices that it may use.

    Raises:
        PlacementError: the strategy cannot use these devices, or the model does not fit.

    """
    if request.shape is None:
        return _placed(strategy, request)
    # Boxes of a site are alike, and so are their services: what was placed once is remembered with the shape.
    found: dict[object, Placement | PlacementError] = request.shape.cache
    blocks = None if request.blocks is None else tuple(request.blocks.items())
    others = (request.threads, request.files, request.host, request.host_extra, request.projector)
    key = ("placed", strategy, tuple(request.devices), request.settings, blocks, *others, request.whole, request.advise)
    if key not in found:
        try:
            found[key] = _placed(strategy, request)
        except PlacementError as error:
            found[key] = error
    placed = found[key]
    if isinstance(placed, PlacementError):
        raise type(placed)(str(placed), placed.remedy) from None
    return placed


def _placed(strategy: Strategy, request: Request) -> Placement:
    """Lay one server out that was not laid out before."""
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


def _chosen(request: Request) -> Placement:
    """Strategy auto: the fastest layout that fits."""
    shape = request.shape
    if not request.devices:
        return replace(strategies.host_only(request), considered=["the host declares no card"])
    if shape is None or not known(shape.architecture):
        why = "its shape is not known" if shape is None else f"the memory model does not know {shape.architecture!r}"
        return replace(strategies.engine_places(request), considered=[f"A to D need a memory model, and {why}"])
    considered = [f"{device.name} has no room for a server" for device in request.devices if not device.budget]
    for candidate in _candidates(request, shape):
        part = replace(request, devices=_seen(request, candidate.devices), whole=candidate.whole, advise=False)
        try:
            placed = place(candidate.strategy, part)
        except PlacementError as error:
            names = ", ".join(device.name for device in part.devices)
            considered.append(f"{candidate.strategy.value}{' on ' if names else ''}{names}: {error}")
            continue
        return replace(placed, devices=tuple(candidate.devices), considered=considered)
    msg = "finds no layout that fits:\n    " + "\n    ".join(considered)
    raise DoesNotFitError(msg, "a smaller quantisation, or more memory")


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A strategy over these devices; ``whole`` forbids it to leave blocks on the host."""

    strategy: Strategy
    devices: list[int]
    whole: bool = False


def _candidates(request: Request, shape: Shape) -> list[_Candidate]:
    """One device, the fastest first; then more and more of them; then with experts, or whole blocks, on the host.

    A card without any room is left out: a server would not even start on it.
    """
    order = [number for number in fastest_first(request.devices) if request.devices[number].budget]
    moe = any(memory.weights(shape).experts)
    several = Strategy.C if moe else Strategy.B
    every = sorted(order)
    result: list[_Candidate] = [_Candidate(Strategy.A, [number]) for number in order]
    result += [_Candidate(several, sorted(order[:count]), whole=True) for count in range(2, len(order) + 1)]
    if every:
        result += [_Candidate(strategy, every) for strategy in ([Strategy.D] if moe else []) + [Strategy.B]]
    return [*result, _Candidate(Strategy.CPU, [])]


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
            found.append(f"strategy auto, which finds {other.strategy.value}: {other.reason}")
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


def _names(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + f" and {words[-1]}"


_PLACEMENTS: Final[Mapping[Strategy, Callable[[Request], Placement]]] = {
    Strategy.A: strategies.one_device,
    Strategy.B: strategies.layers,
    Strategy.C: strategies.experts_on_devices,
    Strategy.D: strategies.experts_on_host,
    Strategy.FIT: strategies.engine_places,
    Strategy.AUTO: _chosen,
    Strategy.CPU: strategies.host_only,
}
_COUNTED: Final = (Strategy.B, Strategy.C, Strategy.D)


def cards_for(strategy: Strategy, hardware: Hardware, names: list[str] | None) -> list[Gpu]:
    """Return the cards that a service may use: those it names, else all of the host's; for the CPU none.

    Raises:
        PlacementError: the host has no card of a name.

    """
    if names is None:
        return [] if strategy is Strategy.CPU else hardware.gpus
    if not names and strategy is not Strategy.CPU:
        cards = ", ".join(gpu.name for gpu in hardware.gpus)
        remedy = f"name some of: {cards or 'none declared'}; or remove gpus; or strategy: cpu"
        raise PlacementError("may use no card: gpus is empty", remedy)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlacementError(f"gpus names {', '.join(twice)} twice", "name each card once")
    known_cards = {gpu.name: gpu for gpu in hardware.gpus}
    unknown = [name for name in names if name not in known_cards]
    if unknown:
        msg = f"the host has no card {', '.join(unknown)}"
        raise PlacementError(msg, f"declared in host_hardware.gpus: {', '.join(known_cards) or 'none'}")
    # In the order of the bus, in which CUDA counts them.
    return [gpu for gpu in hardware.gpus if gpu.name in names]
