"""Values of JSON, read so that nothing in them can break the screen: what is not as expected is absent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from llamarig.dashboard.text import clean

# Beyond it a number is a mistake, and no terminal has room for it.
_LARGEST: Final = 1e15
_LONGEST: Final = 4000


def record(value: object) -> Mapping[str, Any]:
    """Return an object's keys; of anything else, none."""
    return value if isinstance(value, dict) else {}


def records(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: object) -> str:
    """Return a text as one line; numbers as they are written; of anything else, nothing."""
    if isinstance(value, str):
        return clean(value[:_LONGEST])
    found = number(value)
    return "" if found is None else f"{found:g}" if found % 1 else str(int(found))


def texts(value: object) -> tuple[str, ...]:
    """Return the texts of a list that say something."""
    return tuple(filter(None, map(text, value))) if isinstance(value, list) else ()


def number(value: object) -> float | None:
    """Return a number that can be shown."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        return None
    return float(value) if math.isfinite(value) else None


def count(value: object) -> int:
    """Return how many; of what is no number, 0."""
    return int(number(value) or 0)


def amounts(value: object) -> tuple[tuple[str, float], ...]:
    """Return names with their numbers, in their order."""
    found = ((text(name), number(amount)) for name, amount in record(value).items())
    return tuple((name, amount) for name, amount in found if amount is not None)


def share(used: float | None, total: float | None) -> float | None:
    """Return a part of a whole, 0 to 1; None where one of them is not known."""
    return None if used is None or not total or total < 0 else min(1.0, max(0.0, used / total))
