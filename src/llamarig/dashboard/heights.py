"""How the height of the terminal is shared out among the panels. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SMALLEST: Final = (60, 20)
_LOGS: Final = 0.55
_FRAME: Final = 2
# Lines of a card where there is room for all it says, with one between two cards; lines of the system, with some air.
_CARD, _SYSTEM = 4, 8
_MIDDLE_LEAST: Final = 4


@dataclass(frozen=True, slots=True)
class Heights:
    """Rows of each panel, with their frames; the row of keys is not among them."""

    logs: int
    middle: int
    services: int


def fits(columns: int, rows: int) -> bool:
    """Say whether a terminal is large enough."""
    return columns >= SMALLEST[0] and rows >= SMALLEST[1]


def heights(rows: int, cards: int, services: int) -> Heights:
    """Share out the rows of a terminal, less the one with the keys.

    The log has 55 % of them, and what the others could not use. Services have a row each, as long as cards and system
    keep what they need at least.

    Args:
        rows: of the terminal.
        cards: that the host has.
        services: rows that services and jobs would fill.

    """
    logs = round(rows * _LOGS)
    rest = rows - logs - 1
    below = max(_FRAME + 1, min(_FRAME + max(2, services), rest - _MIDDLE_LEAST))
    middle = rest - below
    enough = _FRAME + max(_CARD * max(1, cards), _SYSTEM)
    spare = max(0, middle - enough)
    return Heights(logs + spare, middle - spare, below)
