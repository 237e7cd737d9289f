"""The door: HAProxy holds every port of the host's services, and reaches an engine through one link for each port.

Where the link is not there, HAProxy answers 503 with Retry-After. It connects anew for each request, so that a link
that goes refuses the next request and cuts none that is under way. HAProxy keeps no state of its own: what is open
survives its restart and the daemon's.
"""

from __future__ import annotations

import csv
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from llamarig.config import paths
from llamarig.errors import LlamarigError

_SECONDS: Final = 2.0
_CHUNK: Final = 1 << 16


class DoorError(LlamarigError):
    """The door does not answer."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What goes through one port.

    Attributes:
        in_flight: requests that an engine is answering now.
        total: requests that engines were given since the door started.
        idle_seconds: seconds since the last one began; None where there was none.

    """

    in_flight: int = 0
    total: int = 0
    idle_seconds: int | None = None


class Door(Protocol):
    """What switching needs of the door."""

    def open(self, port: int, service: str) -> None:
        """Let requests on a port reach a service's engine, from the next one on."""

    def close(self, port: int) -> None:
        """Refuse new requests on a port; those under way go on."""

    def behind(self, port: int) -> str | None:
        """Return the service that a port leads to; None where it is closed."""

    def ports(self) -> list[int]:
        """Return the ports that are open."""

    def traffic(self, port: int) -> Traffic:
        """Return what goes through a port.

        Raises:
            DoorError: the door does not say.

        """


class LinkDoor:
    """The door of this host."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def open(self, port: int, service: str) -> None:
        """Let requests on a port reach a service's engine, from the next one on."""
        link = self._link(port)
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{link.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(paths.engine_socket(service))
        temporary.replace(link)

    def close(self, port: int) -> None:
        """Refuse new requests on a port; those under way go on."""
        self._link(port).unlink(missing_ok=True)

    def behind(self, port: int) -> str | None:
        """Return the service that a port leads to; None where it is closed."""
        try:
            return self._link(port).readlink().parent.name
        except OSError:
            return None

    def ports(self) -> list[int]:
        """Return the ports that are open."""
        stems = (link.stem for link in (self.root / paths.DOOR.lstrip("/")).glob("*.sock"))
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def traffic(self, port: int) -> Traffic:
        """Return what goes through a port."""
        name = f"port-{port}"
        for row in csv.DictReader(self._ask("show stat").removeprefix("# ").splitlines()):
            if row.get("pxname") == name and row.get("svname") == "engine":
                idle = int(row["lastsess"] or -1)
                return Traffic(int(row["scur"] or 0), int(row["stot"] or 0), idle if idle >= 0 else None)
        return Traffic()

    def _ask(self, command: str) -> str:
        place = str(self.root / paths.DOOR_STATS.lstrip("/"))
        answer = bytearray()
        try:
            with socket.socket(socket.AF_UNIX) as stats:
                stats.settimeout(_SECONDS)
                stats.connect(place)
                stats.sendall(f"{command}\n".encode("ascii"))
                while chunk := stats.recv(_CHUNK):
                    answer += chunk
        except OSError as error:
            raise DoorError(f"the door does not answer: {error}", "systemctl status llamarig-door") from error
        return answer.decode("utf-8", "replace")

    def _link(self, port: int) -> Path:
        return self.root / paths.door_link(port).lstrip("/")
