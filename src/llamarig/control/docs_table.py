"""Markdown for generated pages."""

from __future__ import annotations

from collections.abc import Sequence

from llamarig.errors import LlamarigError


class DocsError(LlamarigError):
    """A page cannot be generated, because something has no description."""


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
