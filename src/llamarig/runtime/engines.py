"""The engine's processes on this host: whether a container waits at its gate, and which process serves in it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from llamarig.config import paths
from llamarig.runtime.cgroups import contained_by

# Made by the script at the gate as it begins to wait, removed by it as the engine begins.
_WAITING: Final = "waiting"
# What containers are given of the cards and the driver is said there, anew after every change of the driver.
CDI_DIRECTORIES: Final = ("/etc/cdi", "/run/cdi", "/var/run/cdi")


class Engines(Protocol):
    """What switching needs to see of engines' processes."""

    def waits(self, service: str) -> bool:
        """Tell whether the service's container is up and waits at its gate."""

    def is_stale(self, service: str) -> bool:
        """Tell whether what containers are given of the driver was changed since the service's began to wait."""

    def forget(self, service: str) -> None:
        """Forget that a container waited: another is made."""

    def pids(self, service: str) -> list[int]:
        """Return the processes in the service's container."""

    def alive(self, pid: int) -> bool:
        """Tell whether a process is still there, be it as a zombie: then it holds no memory any more."""


class HostEngines:
    """The engines of this host, seen through ``/proc`` and the directories below ``/run``."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def waits(self, service: str) -> bool:
        """Tell whether the service's container is up and waits at its gate."""
        return self._waiting(service).exists()

    def is_stale(self, service: str) -> bool:
        """Tell whether what containers are given of the driver was changed since the service's began to wait."""
        since = _changed(self._waiting(service))
        files = (file for place in CDI_DIRECTORIES for file in (self.root / place.lstrip("/")).glob("*.*"))
        return since is None or any((changed := _changed(file)) is not None and changed > since for file in files)

    def forget(self, service: str) -> None:
        """Forget that a container waited: another is made."""
        self._waiting(service).unlink(missing_ok=True)

    def _waiting(self, service: str) -> Path:
        return self.root / paths.ENGINES.lstrip("/") / service / _WAITING

    def pids(self, service: str) -> list[int]:
        """Return the processes in the service's container."""
        numbers = (entry.name for entry in (self.root / "proc").iterdir() if entry.name.isdigit())
        return [pid for pid in map(int, numbers) if contained_by(pid, self.root) == service]

    def alive(self, pid: int) -> bool:
        """Tell whether a process is still there; a zombie holds no memory any more."""
        try:
            stat = (self.root / f"proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[:1] != ["Z"]


def _changed(path: Path) -> float | None:
    """Return when a file was changed; None where it is gone, be it that it was a step in writing another."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None
