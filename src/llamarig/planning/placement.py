"""Strategies as placement functions: from a strategy to the llama-server settings that lay the model down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from llamarig.config.records import Gpu, Hardware, ServerValue, Strategy


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a server goes: settings of the strategy's layer, arguments that nobody overrides, and why."""

    settings: Mapping[str, ServerValue]
    argv: list[str]
    reason: str


class PlacementError(Exception):
    """A strategy cannot be laid over these cards; ``remedy`` says what could be done."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def _one_gpu(hardware: Hardware, gpus: list[Gpu]) -> Placement:
    if len(gpus) != 1:
        declared = ", ".join(gpu.name for gpu in hardware.gpus)
        msg = f"lays a model on one card, and the service may use {len(gpus)}"
        detect = "declare the host's cards in host_hardware.gpus; llamarig detect writes them"
        raise PlacementError(msg, f"gpus: [<name>], one of: {declared}" if declared else detect)
    return Placement(
        settings={"threads": hardware.cpu_threads},
        # The container sees this one card only, so that no device has to be chosen.
        argv=["--split-mode", "none", "--gpu-layers", "all", "--fit", "off"],
        reason=f"everything on {gpus[0].name}",
    )


def _cpu(hardware: Hardware, gpus: list[Gpu]) -> Placement:
    if gpus:
        msg = "uses no card, and gpus names some"
        raise PlacementError(msg, "remove gpus, or choose another strategy")
    threads = hardware.cpu_threads
    return Placement(
        settings={"threads": threads, "threads_batch": threads},
        # 'none' hides every device; the layer count is said too, so that no default can offload.
        argv=["--device", "none", "--gpu-layers", "0", "--fit", "off"],
        reason=f"everything on the CPU, {threads} threads",
    )


PLACEMENTS: Final[Mapping[Strategy, Callable[[Hardware, list[Gpu]], Placement]]] = {
    Strategy.A: _one_gpu,
    Strategy.CPU: _cpu,
}


def place(strategy: Strategy, hardware: Hardware, gpus: list[Gpu]) -> Placement:
    """Lay one server over the cards that it may use.

    Raises:
        PlacementError: the strategy cannot use these cards.

    """
    return PLACEMENTS[strategy](hardware, gpus)


def cards_for(strategy: Strategy, hardware: Hardware, names: list[str] | None) -> list[Gpu]:
    """Return the cards that a service may use: those it names, else all of the host's; for the CPU none.

    Raises:
        PlacementError: the host has no card of a name.

    """
    if names is None:
        return [] if strategy is Strategy.CPU else hardware.gpus
    known = {gpu.name: gpu for gpu in hardware.gpus}
    unknown = [name for name in names if name not in known]
    if unknown:
        msg = f"the host has no card {', '.join(unknown)}"
        raise PlacementError(msg, f"declared in host_hardware.gpus: {', '.join(known) or 'none'}")
    return [known[name] for name in names]
