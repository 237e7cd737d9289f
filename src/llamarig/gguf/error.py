"""What goes wrong with a GGUF file."""

from __future__ import annotations

from llamarig.errors import LlamarigError


class GgufError(LlamarigError):
    """A file that is no GGUF model, is damaged, or cannot be had; says which, where in it, and what to do."""


class MissingFileError(GgufError):
    """There is nothing of that name."""
