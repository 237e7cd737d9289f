"""What a terminal shows that is too small for anything else. Pure."""

from __future__ import annotations

from llamarig.dashboard.heights import SMALLEST
from llamarig.dashboard.text import Line, line, wrapped


def small_lines(cells: int, height: int) -> list[Line]:
    """Say that the terminal is too small, and how large it has to be."""
    text = f"The terminal is too small: {cells}x{height}. The dashboard needs {SMALLEST[0]}x{SMALLEST[1]}. q leaves."
    return [line(part) for part in wrapped(text, cells)][:height]
