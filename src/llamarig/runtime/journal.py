"""What services print, out of the journal: the last lines, and those that come."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Final

from llamarig.errors import NotFoundError
from llamarig.runtime.systemd import journal_command

# Whoever asks for a log must not fill the daemon's memory with it, however long the lines of an engine are.
MOST_BYTES: Final = 4 << 20
_SECONDS: Final = 10.0


class Journal:
    """Logs of the services that ``known`` returns."""

    def __init__(self, known: Callable[[], Collection[str]]) -> None:
        self._known = known

    def lines(self, service: str, count: int) -> list[str]:
        """Return the last lines of a service, of 4 MiB in all; none where the journal takes too long.

        Raises:
            NotFoundError: no such service here.

        """
        self._check(service)
        # The newest first, for what is too much is left out at the other end.
        return _last(journal_command(service, ["--reverse", "--lines", str(count)]))

    def follow(self, service: str, count: int) -> Following:
        """Return the last lines of a service and all that come.

        Raises:
            NotFoundError: no such service here.

        """
        self._check(service)
        return Following(journal_command(service, ["--follow", "--lines", str(count)]))

    def _check(self, service: str) -> None:
        known = self._known()
        if service not in known:
            names = ", ".join(sorted(known)) or "none"
            raise NotFoundError(f"this host runs no service {service!r}", f"choose one of: {names}")


class Following:
    """A program that prints lines as they come, until it is closed."""

    def __init__(self, command: list[str]) -> None:
        self._lines, lines = os.pipe()
        nowhere = subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(command, stdin=nowhere, stdout=lines, stderr=nowhere)
        except OSError:
            os.close(self._lines)
            raise
        finally:
            os.close(lines)

    def fileno(self) -> int:
        """Return the descriptor that lines can be read from."""
        return self._lines

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._lines)


def _last(command: Sequence[str], most: int = MOST_BYTES, seconds: float = _SECONDS) -> list[str]:
    """Return what a program prints, last line first, in its right order; ends the program where that is too much."""
    nowhere, late = subprocess.DEVNULL, threading.Event()
    with subprocess.Popen(command, stdin=nowhere, stdout=subprocess.PIPE, stderr=nowhere) as process:

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            raw = process.stdout.read(most + 1) if process.stdout else b""
        finally:
            timer.cancel()
            process.kill()
    if late.is_set():
        return []
    # Of what was cut, the last line is a piece.
    whole = raw if len(raw) <= most else raw[: raw.rfind(b"\n", 0, most) + 1]
    return whole.decode("utf-8", "replace").removesuffix("\n").split("\n")[::-1] if whole else []
