"""What a switch asks of the cards: whether a process that ended has let go of its memory, and who holds what."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llamarig.config.spec import Spec
from llamarig.hardware.gpus import NvmlError, Reading
from llamarig.runtime.cgroups import service_of


class Cards(Protocol):
    """The cards, as far as a switch needs them."""

    def held_by(self, pids: Collection[int], uuids: Collection[str]) -> bool:
        """Tell whether any of these processes still holds memory of any of these cards."""

    def empty(self, spec: Spec) -> list[str]:
        """Return the cards of a service on which it holds no memory; none where the driver does not say."""


@dataclass(frozen=True)
class NvmlCards:
    """The cards of this host; ``reading`` asks NVML, in a process of its own."""

    reading: Callable[[], Reading]
    root: Path = Path("/")

    def held_by(self, pids: Collection[int], uuids: Collection[str]) -> bool:
        """Tell whether any of these processes still holds memory of any of these cards."""
        try:
            cards = self.reading().cards
        except NvmlError:
            return False  # nobody can say; the load will show it
        return any(process.pid in pids for card in cards if card.uuid in uuids for process in card.processes or ())

    def empty(self, spec: Spec) -> list[str]:
        """Return the cards of a service on which it holds no memory; none where the driver does not say."""
        if not spec.gpus:
            return []
        try:
            cards = {card.uuid: card for card in self.reading().cards}
        except NvmlError:
            return []
        names = {part.uuid: part.name for part in spec.memory.devices} if spec.memory else {}
        found = []
        for uuid in spec.gpus:
            card = cards.get(uuid)
            if card is None:
                found.append(f"{names.get(uuid, uuid)} (not there)")
            elif card.processes is not None and not any(
                service_of(process.pid, self.root) == spec.service for process in card.processes
            ):
                found.append(names.get(uuid, uuid))
        return found
