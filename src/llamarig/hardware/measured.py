"""The words about what cards measure: one value for each metric that a card answers, and what happens to a card."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from llamarig.hardware.gpus import CardFault


@dataclass(frozen=True, slots=True)
class Value:
    """One number of a card: the metric's name without ``llamarig_gpu_``, the labels after the card's, base units."""

    metric: str
    labels: tuple[str, ...]
    number: float


@dataclass(frozen=True, slots=True)
class Holder:
    """A process with memory on a card; ``used_bytes`` is None where the driver does not say how much."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCard:
    """One card that answers.

    Attributes:
        index, uuid, name, pci_address, compute_capability: who it is, as in :class:`llamarig.hardware.gpus.Card`.
        values: what it measures; what it does not know is not there.
        holders: processes with memory on it; None where the driver does not say.
        watched: whether its Xid errors are listened for.
        codes: NVML's codes for single questions that failed although the card knows them.

    """

    index: int
    uuid: str
    name: str
    pci_address: str
    compute_capability: str
    values: tuple[Value, ...] = ()
    holders: tuple[Holder, ...] | None = None
    watched: bool = False
    codes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What of the driver has which version; empty where it does not say."""

    driver: str = ""
    nvml: str = ""
    cuda: str = ""
    module: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All cards at one moment; a card that does not answer is a fault and hides no other."""

    versions: Versions = field(default_factory=Versions)
    cards: tuple[MeasuredCard, ...] = ()
    faults: tuple[CardFault, ...] = ()


@dataclass(frozen=True, slots=True)
class Xid:
    """An Xid error of a card."""

    uuid: str
    number: int


class StaleLibraryError(Exception):
    """The loaded libnvidia-ml is not the driver's any more; only a new process can load the one that is."""


class Meter(Protocol):
    """The cards of this host, asked again and again by one thread."""

    @property
    def listens(self) -> bool:
        """Whether there are cards whose Xid errors can be waited for."""

    def read(self) -> Measured:
        """Return what the cards measure.

        Raises:
            NvmlError: NVML as a whole does not answer.
            StaleLibraryError: it never will in this process.

        """

    def wait(self, seconds: float) -> Xid | None:
        """Wait for the next Xid error; None where there was none."""
