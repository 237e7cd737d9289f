"""What the checks look at; each part is looked at once, however many checks ask for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from llamarig.config.spec import Spec
from llamarig.daemon.state import StateStore
from llamarig.hardware import machine
from llamarig.hardware.declared import Declared, DeclaredCard, paired, read_declared
from llamarig.hardware.gpus import Card, Gpus, NvmlError, Reading
from llamarig.hardware.nvml_process import NvmlProcess
from llamarig.runtime.container_probe import ContainerProbe, DockerProbe
from llamarig.runtime.engine import Engine
from llamarig.runtime.specs import SpecStore
from llamarig.runtime.systemd import Units


@dataclass(frozen=True)
class Box:
    """One host: its specs and state, what runs, and what it is made of."""

    specs: SpecStore
    state: StateStore
    units: Units
    engine: Engine
    gpus: Gpus = field(default_factory=NvmlProcess)
    probe: ContainerProbe = field(default_factory=DockerProbe)

    @property
    def root(self) -> Path:
        """The root of the host's files."""
        return self.specs.root

    @cached_property
    def declared(self) -> Declared:
        """The declared hardware; nothing where the host was never told.

        Raises:
            LlamarigError: it cannot be read.

        """
        return read_declared(self.root) or Declared(memory_mib=None)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The facts of the machine, as :func:`llamarig.hardware.machine.read` returns them."""
        return machine.read(self.root)

    @cached_property
    def looked(self) -> Reading | NvmlError:
        """What NVML said of the cards, or why it said nothing."""
        try:
            return self.gpus.read()
        except NvmlError as error:
            return error

    @property
    def reading(self) -> Reading | None:
        """What NVML said of the cards; None where no card is declared or NVML said nothing, which check gpus tells."""
        return self.looked if self.declared.cards and isinstance(self.looked, Reading) else None

    @property
    def cards(self) -> list[tuple[DeclaredCard, Card]]:
        """The declared cards that are there, each with what NVML says of it."""
        found = self.reading.cards if self.reading else ()
        return [(wanted, card) for wanted, card in paired(self.declared.cards, found) if card is not None]

    def active(self) -> Spec | None:
        """Return the spec of the active service, None where there is none."""
        name = self.state.read().active
        return next((spec for spec in self.specs.all() if spec.service == name), None)
