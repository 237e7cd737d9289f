"""Lines of logs: what an engine prints has any length, and what is answered has not."""

from __future__ import annotations

import codecs
from typing import Final

# Of each line in UTF-8; the rest of it is left out, and the mark says so.
LINE_BYTES: Final = 4096
CUT: Final = " [cut after 4 KiB]"


def shown(line: str) -> str:
    """Return a line as it is answered: whole, or its beginning and the mark."""
    # No character has more than four bytes.
    return line if len(line) * 4 <= LINE_BYTES else _shown(line.encode("utf-8", "backslashreplace"))


class Splitter:
    """Makes lines of bytes as they come, and keeps of each no more than is answered."""

    def __init__(self) -> None:
        self._line = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """Take bytes, and return the lines that end with them."""
        *ends, rest = data.split(b"\n")
        lines = [self._end(part) for part in ends]
        self._add(rest)
        return lines

    def rest(self) -> list[str]:
        """Return the line that nothing ended, if there is one."""
        return [self._end(b"")] if self._line else []

    def _add(self, part: bytes) -> None:
        # One byte too many says that there was more.
        self._line += part[: LINE_BYTES + 1 - len(self._line)]

    def _end(self, part: bytes) -> str:
        self._add(part)
        line = _shown(bytes(self._line))
        self._line.clear()
        return line


def _shown(raw: bytes) -> str:
    if len(raw) <= LINE_BYTES:
        return raw.decode("utf-8", "replace")
    # Not final: a character that is cut in two is left out.
    return codecs.getincrementaldecoder("utf-8")("replace").decode(raw[:LINE_BYTES]) + CUT
