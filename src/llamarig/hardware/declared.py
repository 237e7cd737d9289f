"""What the inventory says a host has: ``/etc/llamarig/hardware.json``, and which found card is which declared one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from llamarig.config import paths
from llamarig.errors import LlamarigError

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredCard:
    """One entry of ``host_hardware.gpus``; what the inventory leaves out is None. Memory in MiB, clocks in MHz."""

    name: str
    model: str
    memory_mib: int
    compute_capability: str
    uuid: str | None = None
    pci_address: str | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    power_limit_watts: int | None = None
    lock_clocks_mhz: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.uuid or self.model})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The declared hardware of a host.

    ``driver_branch`` and ``driver_minimum`` are None where nothing is asked of the driver; ``driver_managed`` is
    whether playbooks install it and hold its packages.
    """

    memory_mib: int | None
    cards: tuple[DeclaredCard, ...] = ()
    driver_branch: str | None = None
    driver_minimum: str | None = None
    driver_managed: bool = True


def read_declared(root: Path = Path("/")) -> Declared | None:
    """Return what is declared, None on a host that was never told.

    Raises:
        LlamarigError: the file cannot be read.

    """
    path = root / paths.HARDWARE_FILE.lstrip("/")
    try:
        return _from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path} cannot be read: {type(error).__name__}: {error}"
        raise LlamarigError(msg, "run playbooks/site.yml for this host again") from error


def _from_dict(data: Any) -> Declared:
    if data["schema_version"] != SCHEMA_VERSION:
        msg = f"schema {data['schema_version']!r}, this agent reads {SCHEMA_VERSION}"
        raise ValueError(msg)
    driver = data.get("driver") or {}
    return Declared(
        memory_mib=data.get("memory_mib"),
        cards=tuple(_card(item) for item in data.get("gpus") or ()),
        driver_branch=driver.get("branch"),
        driver_minimum=driver.get("minimum"),
        driver_managed=driver.get("managed", True),
    )


def _card(item: dict[str, Any]) -> DeclaredCard:
    known = {key: item[key] for key in DeclaredCard.__dataclass_fields__ if key in item}
    lock = known.get("lock_clocks_mhz")
    return DeclaredCard(**{**known, "lock_clocks_mhz": (lock[0], lock[1]) if lock else None})


class Found(Protocol):
    """A card that was found, as far as it says which declared one it is; ``name`` is that of its model."""

    @property
    def uuid(self) -> str:
        """The card's UUID."""

    @property
    def pci_address(self) -> str:
        """Where it is, as the kernel writes it."""

    @property
    def name(self) -> str:
        """The name of its model."""


_FoundT = TypeVar("_FoundT", bound=Found)


def paired(declared: Sequence[DeclaredCard], found: Sequence[_FoundT]) -> list[tuple[DeclaredCard, _FoundT | None]]:
    """Return each declared card with the found one that it is, None where it is not there.

    A card with a UUID is that card or none. One without is the card at its PCI address, or else the first of its model
    that no other declared card is.
    """
    free = {card.uuid: card for card in found}
    result: dict[int, _FoundT | None] = {}
    for sure in (_by_uuid, _by_address, _by_model):
        for place, wanted in enumerate(declared):
            if place not in result:
                card = next((card for card in free.values() if sure(wanted, card)), None)
                if card is not None:
                    result[place] = free.pop(card.uuid)
    return [(wanted, result.get(place)) for place, wanted in enumerate(declared)]


def _by_uuid(wanted: DeclaredCard, card: Found) -> bool:
    return wanted.uuid == card.uuid


def _by_address(wanted: DeclaredCard, card: Found) -> bool:
    return wanted.uuid is None and wanted.pci_address == card.pci_address


def _by_model(wanted: DeclaredCard, card: Found) -> bool:
    return wanted.uuid is None and wanted.pci_address is None and wanted.model == card.name
