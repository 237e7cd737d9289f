"""How far a long reading is: on standard error, so that what is printed can be redirected."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self, TextIO

_GIB: Final = 1 << 30


class Reading:
    """Says how much of some files was read: in place on a terminal, and a line now and then in a log."""

    def __init__(self, total: int, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        """Prepare for ``total`` bytes.

        Args:
            total: how many bytes there are.
            quiet: say nothing.
            stream: where to say it, by default standard error.

        """
        self._total, self._done = total, 0
        self._stream = stream or sys.stderr
        self._quiet = quiet or not total
        self._terminal = self._stream.isatty()
        self._pause = 0.2 if self._terminal else 10.0
        self._next = time.monotonic() + self._pause

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._terminal and not self._quiet:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def more(self, count: int) -> None:
        """Count bytes that were read just now."""
        self._done += count
        now = time.monotonic()
        if self._quiet or now < self._next:
            return
        self._next = now + self._pause
        said = f"read for sha256: {self._done / _GIB:.1f} of {self._total / _GIB:.1f} GiB"
        said += f", {100 * self._done // self._total} %"
        self._stream.write(f"\r{said}\x1b[K" if self._terminal else f"{said}\n")
        self._stream.flush()
