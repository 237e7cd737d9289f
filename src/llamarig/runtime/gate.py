"""The gate of each service: which version its unit starts with, and whether the engine in its container may begin.

A container waits at its gate before it starts the engine, so that nothing but the daemon lets one take memory, and a
switch does not wait for Docker. Below ``/run``: after a reboot every gate is shut.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from llamarig.config import paths

_OPEN: Final = "open"
_VERSION: Final = "version"
# A pipe that a container reads while it waits: whoever opens the gate rings, and nobody has to look again and again.
_BELL: Final = "bell"


class Gate(Protocol):
    """What switching needs of the gates."""

    def choose(self, service: str, version: str) -> None:
        """Say which version the service's unit starts with: the hash of a spec."""

    def chosen(self, service: str) -> str | None:
        """Return the version that the service's unit starts with, or was started with; None where none was named."""

    def open(self, service: str) -> None:
        """Let the service's engine begin, now and whenever its unit restarts."""

    def shut(self, service: str) -> None:
        """Let no engine of the service begin from now on; one that runs goes on."""

    def is_open(self, service: str) -> bool:
        """Say whether the service's engine may begin."""


class FileGate:
    """The gates of this host."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.directory = root / paths.GATES.lstrip("/")
        # Kept open while the gate is: what was written into a pipe is gone with the last who has it open.
        self._bells: dict[str, int] = {}
        weakref.finalize(self, _close, self._bells)

    def choose(self, service: str, version: str) -> None:
        """Say which version the service's unit starts with: the hash of a spec."""
        place = self._place(service, _VERSION)
        temporary = place.with_name(f".{place.name}.new")
        temporary.write_text(f"{version}\n", encoding="ascii")
        temporary.replace(place)
        bell = self._place(service, _BELL)
        if not bell.is_fifo():
            bell.unlink(missing_ok=True)
            os.mkfifo(bell, 0o644)

    def chosen(self, service: str) -> str | None:
        """Return the version that the service's unit starts with, or was started with; None where none was named."""
        try:
            return (self.directory / service / _VERSION).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None

    def open(self, service: str) -> None:
        """Let the service's engine begin, now and whenever its unit restarts."""
        self._place(service, _OPEN).touch()
        self._ring(service)

    def shut(self, service: str) -> None:
        """Let no engine of the service begin from now on; one that runs goes on."""
        (self.directory / service / _OPEN).unlink(missing_ok=True)
        self._quiet(service)

    def is_open(self, service: str) -> bool:
        """Say whether the service's engine may begin."""
        return (self.directory / service / _OPEN).exists()

    def _ring(self, service: str) -> None:
        """Wake a container that waits; one that opens its end only later finds what was written."""
        self._quiet(service)
        try:
            # For reading too, or it could not be opened before the container has.
            bell = os.open(self.directory / service / _BELL, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # it looks again and again, for want of a bell
        self._bells[service] = bell
        os.write(bell, b"\n")

    def _quiet(self, service: str) -> None:
        bell = self._bells.pop(service, None)
        if bell is not None:
            os.close(bell)

    def _place(self, service: str, name: str) -> Path:
        directory = self.directory / service
        directory.mkdir(parents=True, exist_ok=True)
        return directory / name


def _close(bells: Mapping[str, int]) -> None:
    for bell in bells.values():
        os.close(bell)
