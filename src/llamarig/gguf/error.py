"""What goes wrong with a GGUF file."""

from __future__ import annotations

from llamarig.errors import LlamarigError


def printable(text: str) -> str:
    """Keep what a file or a server says of itself from steering the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class GgufError(LlamarigError):
    """A file that is no GGUF model, is damaged, or cannot be had; says which, where in it, and what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(printable(message), remedy)


class MissingFileError(GgufError):
    """There is nothing of that name."""
