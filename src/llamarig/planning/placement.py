"""Strategies as placement functions: from a strategy to the llama-server settings that lay the model down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from llamarig.config.records import Hardware, ServerValue, Strategy


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a server goes: settings of the strategy's layer, arguments that nobody overrides, and why."""

    settings: Mapping[str, ServerValue]
    argv: list[str]
    reason: str


def _cpu(hardware: Hardware) -> Placement:
    threads = hardware.cpu_threads
    return Placement(
        settings={"threads": threads, "threads_batch": threads},
        # 'none' hides every device; the layer count is said too, so that no default can offload.
        argv=["--device", "none", "--gpu-layers", "0", "--fit", "off"],
        reason=f"everything on the CPU, {threads} threads",
    )


PLACEMENTS: Final[Mapping[Strategy, Callable[[Hardware], Placement]]] = {Strategy.CPU: _cpu}


def place(strategy: Strategy, hardware: Hardware) -> Placement:
    """Lay one server over the host's hardware."""
    return PLACEMENTS[strategy](hardware)
