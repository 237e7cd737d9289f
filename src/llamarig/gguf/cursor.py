"""A place in a header that moves forwards, reads little, and knows what it is reading."""

from __future__ import annotations

import struct
from typing import Final

from llamarig.gguf.error import GgufError
from llamarig.gguf.source import Source

_BLOCK: Final = 1 << 20
_LENGTH: Final = struct.Struct("<Q")
AGAIN: Final = "fetch the file again, and compare its size and sha256 with those of the place it comes from"


class Cursor:
    """Reads a source forwards. Every step is checked against the end of the file and against a limit."""

    def __init__(self, source: Source, limit: int) -> None:
        """Begin at the first byte; nothing is read beyond ``limit`` bytes."""
        self._source = source
        self._limit = limit
        self._block = b""
        self._start = 0
        self._at = 0
        self.begin("the first bytes")

    def begin(self, what: str) -> None:
        """Say what comes now: an error says so too, and where it began."""
        self._what, self._begun = what, self.position

    @property
    def position(self) -> int:
        """Bytes from the start of the file."""
        return self._start + self._at

    def fault(self, message: str, remedy: str = AGAIN) -> GgufError:
        """Say what is wrong here."""
        return GgufError(f"{self._source.name}: {self._what}, at byte {self._begun}: {message}", remedy)

    def take(self, length: int) -> bytes:
        """Return the next bytes.

        Raises:
            GgufError: the file ends before.

        """
        self._need(length)
        found = self._block[self._at : self._at + length]
        self._at += length
        return found

    def skip(self, length: int) -> None:
        """Go past bytes without looking at them.

        Raises:
            GgufError: the file ends before, or the header is beyond all bounds.

        """
        end = self.position + length
        size = self._source.size
        if size is not None and end > size:
            raise self._ended(size, end)
        if end > self._limit:
            raise self._too_large()
        self._at += length
        if self._at > len(self._block):
            self._block, self._start, self._at = b"", end, 0

    def skip_strings(self, count: int) -> None:
        """Go past strings, each of which is its length in 8 bytes and that many bytes.

        A vocabulary is a quarter of a million of them: the loop does nothing but add their lengths up.

        Raises:
            GgufError: the file ends before, or the header is beyond all bounds.

        """
        unpack, each = _LENGTH.unpack_from, _LENGTH.size
        while count:
            self._need(each)
            block, at = self._block, self._at
            left = count
            try:
                for left in range(count, 0, -1):  # noqa: B007  how many are left when the block ends
                    at += each + unpack(block, at)[0]
            except (struct.error, OverflowError):
                count = left
            else:
                count = 0
            self.skip(at - self._at)

    def _need(self, length: int) -> None:
        """Have the next bytes in the block."""
        missing = self._at + length - len(self._block)
        if missing <= 0:
            return
        if self.position + length > self._limit:
            raise self._too_large()
        pieces = [self._block[self._at :]]
        self._start, self._at = self.position, 0
        end = self._start + len(pieces[0])
        while missing > 0:
            piece = self._source.read(end, max(missing, _BLOCK))
            if not piece:
                self._block = b"".join(pieces)
                raise self._ended(end, self._start + length)
            pieces.append(piece)
            end += len(piece)
            missing -= len(piece)
        self._block = b"".join(pieces)

    def _ended(self, size: int, needed: int) -> GgufError:
        if not size:
            return GgufError(f"{self._source.name} is empty", AGAIN)
        return self.fault(f"the file ends at byte {size}, and this goes on to byte {needed}")

    def _too_large(self) -> GgufError:
        return self.fault(f"a header of more than {self._limit >> 20} MiB, which no model has")
