"""What the checks look at; each part is looked at once, however many checks ask for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

from llamarig.config.spec import Spec
from llamarig.daemon.state import StateStore
from llamarig.hardware import machine
from llamarig.hardware.declared import Declared, DeclaredCard, paired, read_declared
from llamarig.hardware.gpus import Card, Gpus, NvmlError, Reading
from llamarig.hardware.nvml_process import NvmlProcess
from llamarig.runtime.container_probe import ContainerProbe, DockerProbe
from llamarig.runtime.door import Door, LinkDoor
from llamarig.runtime.engine import Engine, LlamaServer
from llamarig.runtime.exporter import exporter_health
from llamarig.runtime.management import Management
from llamarig.runtime.specs import SpecStore
from llamarig.runtime.systemd import Systemd, Units


class Daemon(Protocol):
    """What checks ask of the daemon."""

    def get(self, path: str) -> dict[str, Any]:
        """Return what it says at a path; raises a LlamarigError where it does not answer."""


@dataclass(frozen=True)
class Box:
    """One host: its specs and state, what runs, and what it is made of.

    Attributes:
        specs, state, units: files of the host, and its service manager.
        engine: services as their clients reach them.
        daemon: may be dead; then the state on disk says what should serve.
        door: which service each port leads to.
        gpus, probe: cards, and containers that are given them.
        exporter: returns what the exporter of the host below a root says of itself.

    """

    specs: SpecStore
    state: StateStore
    units: Units
    engine: Engine
    daemon: Daemon
    door: Door
    gpus: Gpus = field(default_factory=NvmlProcess)
    probe: ContainerProbe = field(default_factory=DockerProbe)
    exporter: Callable[[Path], dict[str, Any] | None] = exporter_health

    @classmethod
    def of_host(cls, root: Path) -> Self:
        """Return the host whose files are below a root."""
        return cls(
            SpecStore(root),
            StateStore(root),
            Systemd(),
            LlamaServer(root),
            Management(root, seconds=10),
            LinkDoor(root),
        )

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

    def active(self) -> list[Spec]:
        """Return the specs of the active services as they are planned, the one that was asked for last in front."""
        planned = {spec.service: spec for spec in self.specs.all()}
        return [planned[name] for name in self.state.read().names if name in planned]
