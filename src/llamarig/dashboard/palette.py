"""Colours of the dashboard: each style by name, for terminals with many colours and for those with their own few."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Final

from rich.style import Style
from textual.theme import Theme

# Tones of one lightness, so that nothing shouts that need not.
_INK, _SOFT, _LINE, _GROUND, _RAISED = "#d8dee9", "#8a94a6", "#4a5467", "#14181f", "#1c222c"
_GREEN, _YELLOW, _RED, _BLUE, _VIOLET = "#98c379", "#e5c07b", "#f0717a", "#7fb4e6", "#b39ddb"

_RICH: Final[Mapping[str, str]] = {
    "ground": f"on {_GROUND}",
    "raised": f"on {_RAISED}",
    "plain": _INK,
    "faint": _SOFT,
    "frame": _LINE,
    "rest": _LINE,
    "title": f"bold {_INK}",
    "ok": _GREEN,
    "warn": _YELLOW,
    "bad": f"bold {_RED}",
    "accent": _BLUE,
    "key": f"bold {_BLUE}",
    "between": _BLUE,
    "model": _BLUE,
    "cache": _VIOLET,
    "system": _SOFT,
    "chosen": f"bold {_INK} on #2c3648",
    "match": f"{_GROUND} on {_YELLOW}",
    "found": f"bold {_GROUND} on #f08c4a",
    "banner": "bold #ffffff on #a3323b",
}
# The terminal's own sixteen, and nothing that only a colour says.
_FEW: Final[Mapping[str, str]] = {
    "ground": "default",
    "raised": "default",
    "plain": "default",
    "faint": "dim",
    "frame": "dim",
    "rest": "dim",
    "title": "bold",
    "ok": "green",
    "warn": "yellow",
    "bad": "bold red",
    "accent": "cyan",
    "key": "bold cyan",
    "between": "cyan",
    "model": "blue",
    "cache": "magenta",
    "system": "default",
    "chosen": "reverse",
    "match": "reverse",
    "found": "bold reverse underline",
    "banner": "bold reverse red",
}
NAMES: Final = frozenset(_RICH)
THEME: Final = Theme(
    name="llamarig",
    primary=_BLUE,
    secondary=_VIOLET,
    warning=_YELLOW,
    error=_RED,
    success=_GREEN,
    accent=_BLUE,
    foreground=_INK,
    background=_GROUND,
    surface=_GROUND,
    panel=_GROUND,
    dark=True,
)
FEW_THEME: Final = "ansi-dark"


def few_colours(system: str | None, environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether a terminal is to be drawn with its own sixteen colours, or with none.

    Args:
        system: what rich makes of the terminal: ``standard``, ``256``, ``truecolor``, None where it has no colours.
        environment: where NO_COLOR may be set.

    """
    return "NO_COLOR" in environment or system not in {"256", "truecolor"}


@cache
def style(name: str, *, few: bool) -> Style:
    """Return what a name looks like."""
    return Style.parse((_FEW if few else _RICH)[name])
