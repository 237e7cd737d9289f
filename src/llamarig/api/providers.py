"""What the API speaks for. All of it gives plain JSON types; what is said to wait is called in a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Data = dict[str, Any]


class Board(Protocol):
    """What serves, and what could. Answers at once but where it says that it reads."""

    def status(self) -> Data:
        """Return what serves now, and how it is."""

    def models(self) -> Data:
        """Return what could serve, in the words of the seeds."""

    def services(self) -> Data:
        """Return what could serve; reads specs, and weighs them."""

    def plan(self, service: str) -> Data:
        """Return what would leave for a service; reads specs, and weighs them.

        Raises:
            NotFoundError: no such service here.

        """

    def history(self, lines: int) -> list[Data]:
        """Return the last events, oldest first; reads a file."""

    def history_mark(self) -> object:
        """Return something that is another thing when the history is."""

    def version(self) -> Data:
        """Return what this daemon is."""


class Happened(Protocol):
    """One thing that happened to a job."""

    @property
    def id(self) -> int:
        """Its number; numbers rise."""

    @property
    def data(self) -> Any:
        """The job, as it was then."""


class Listening(Protocol):
    """What happens to jobs, until it is closed, or lost because nobody read."""

    @property
    def lost(self) -> bool:
        """Whether it was dropped."""

    def take(self) -> Sequence[Happened]:
        """Return what came since the last time."""

    def close(self) -> None:
        """Listen no more."""


class Desk(Protocol):
    """Where the daemon is asked to do something. Asking writes to the disk; the rest answers at once."""

    def ask(self, kind: str, body: Mapping[str, Any], origin: str) -> Data:
        """Ask for a ``switch``, a ``stop`` or a ``reconcile``, and return its job.

        Raises:
            NotFoundError: no such service here.
            BusyError: something else is under way.

        """

    def cancel(self, job: str) -> bool:
        """Cancel a job; False where it is over.

        Raises:
            NotFoundError: there is no such job.

        """

    def job(self, job: str) -> Data:
        """Return a job.

        Raises:
            NotFoundError: there is no such job.

        """

    def jobs(self) -> list[Data]:
        """Return the last jobs, oldest first."""

    def told(self, job: str) -> int:
        """Return the number of the last thing that happened to a job."""

    def listen(self, wake: Callable[[], object], after: int | None = None) -> Listening:
        """Listen to what happens to jobs; ``wake`` is called for each thing, from any thread, and must not wait."""


class Follower(Protocol):
    """A log, as its lines come."""

    def fileno(self) -> int:
        """Return the descriptor that lines can be read from."""

    def close(self) -> None:
        """End it."""


class Logs(Protocol):
    """What services print. Reads the journal."""

    def lines(self, service: str, count: int) -> list[str]:
        """Return the last lines of a service.

        Raises:
            NotFoundError: no such service here.

        """

    def follow(self, service: str, count: int) -> Follower:
        """Return the last lines of a service and all that come; raises as :meth:`lines`."""


class Gauges(Protocol):
    """What the machine does. May wait for it."""

    def gpus(self) -> Data:
        """Return what the cards say."""

    def system(self) -> Data:
        """Return what processors and memory do."""


class Metrics(Protocol):
    """What is counted and known, for Prometheus. May wait for engines, some seconds at most."""

    def text(self) -> str:
        """Return all of it in Prometheus's text format."""


class Samples(Protocol):
    """What the cards did in the last hour. Answers at once."""

    def recent(self, seconds: int) -> Data:
        """Return the samples of the last seconds."""


@dataclass(frozen=True, slots=True)
class Providers:
    """Everything that the API speaks for."""

    board: Board
    desk: Desk
    logs: Logs
    gauges: Gauges
    metrics: Metrics
    samples: Samples
