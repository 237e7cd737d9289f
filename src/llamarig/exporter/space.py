"""How much space a file system has, also where it is another machine's, which may not answer."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

PATIENCE_SECONDS: Final = 1.0


class Space:
    """Asks in a thread of its own: a server of files that is away blocks whoever asks, for as long as it likes.

    While one question hangs no other is asked, so that no more than one thread ever waits.
    """

    def __init__(self) -> None:
        self._asking: _Question | None = None

    def of(self, path: Path) -> os.statvfs_result | None:
        """Return the space where a path is; None where it is not there, or does not answer in time."""
        if self._asking is not None and self._asking.is_alive():
            return None
        self._asking = _Question(path)
        self._asking.start()
        self._asking.join(PATIENCE_SECONDS)
        return self._asking.answer


class _Question(threading.Thread):
    def __init__(self, path: Path) -> None:
        super().__init__(name="space", daemon=True)
        self._path = path
        self.answer: os.statvfs_result | None = None

    def run(self) -> None:
        # A path may hold what no path can.
        with suppress(OSError, ValueError):
            self.answer = os.statvfs(self._path)
