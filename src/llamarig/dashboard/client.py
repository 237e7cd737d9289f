"""What the dashboard needs of whoever reaches a daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Happening(Protocol):
    """One of the events that a daemon sends."""

    @property
    def name(self) -> str:
        """Its kind: status, job or history."""

    @property
    def data(self) -> Any:
        """What it carries."""


class Client(Protocol):
    """The management API, as ``llamarig.runtime.management`` speaks it; asked from threads, several at a time.

    Every method may raise LlamarigError, and may take long.
    """

    def only_looks(self) -> str:
        """Return why this user may change nothing, empty where he may, as far as that is known before it is tried."""

    def get(self, path: str, **query: str | float) -> dict[str, Any]:
        """Return what the daemon says at a path."""

    def submit(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for something that takes its time, and return the job that it became."""

    def delete(self, path: str) -> dict[str, Any]:
        """Have the daemon end something."""

    def events(self) -> Iterator[Happening]:
        """Yield everything that happens, until the daemon ends it."""

    def log(self, service: str, lines: int = 50) -> Iterator[str]:
        """Yield the last lines of a service, and those to come."""


@dataclass(frozen=True, slots=True)
class Link:
    """A way to a daemon.

    Attributes:
        client: speaks over it.
        read_only: why nothing may be changed over it, empty where it may.

    """

    client: Client
    read_only: str = ""


# Reaches a daemon, again if the way was lost; raises LlamarigError with the reason where there is none.
Connect = Callable[[], Link]


@dataclass(frozen=True, slots=True)
class Host:
    """A host to look at: its name, and how its daemon is reached."""

    name: str
    connect: Connect
