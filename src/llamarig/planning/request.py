"""What is to be placed, where it goes, and how a placement is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llamarig.config.records import Strategy
from llamarig.config.shape import Shape
from llamarig.planning.devices import Device
from llamarig.planning.layout import Layout, Settings
from llamarig.planning.memory import Memory


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
        whole: whether no block may lie on the host.
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
    whole: bool = False
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
