"""The sha256 of a file on this machine: the one thing that takes reading all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from llamarig.gguf.error import GgufError
from llamarig.gguf.source import FileSource

_PIECE: Final = 1 << 20


def sha256(path: str, size: int, progress: Callable[[int], None]) -> str:
    """Return the sha256 of a file of ``size`` bytes; ``progress`` is told the bytes of every piece that was read.

    Raises:
        GgufError: the file cannot be read, or is not of this size any more.

    """
    import hashlib  # noqa: PLC0415  it loads OpenSSL, and of most models only the header is read

    source = FileSource(path)
    try:
        digest, read = hashlib.sha256(), 0
        while piece := source.read(read, _PIECE):
            digest.update(piece)
            read += len(piece)
            progress(len(piece))
    finally:
        source.close()
    if read != size:
        why = f"{path} had {size} bytes, and then {read}: something writes to it"
        raise GgufError(why, "wait until the file is complete, and run this again")
    return digest.hexdigest()
