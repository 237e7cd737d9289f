"""Everything that waits for a daemon, in threads of its own, so that a slow one never holds the screen up."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Protocol

from llamarig.dashboard.client import Client, Connect, Link
from llamarig.dashboard.log import REPLAYED
from llamarig.errors import LlamarigError

# What is asked again and again, and where.
POLLED: Final = {"gpus": "/gpus", "system": "/system"}
# Lines that may wait for the screen; a terminal that is halted must not fill the memory.
_WAITING_LINES: Final = 4000


@dataclass(frozen=True, slots=True)
class Up:
    """The daemon answers; why nothing may be changed, if so."""

    read_only: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The daemon does not answer, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Said:
    """What it said of one kind: status, job, history, gpus or system."""

    kind: str
    value: Any


@dataclass(frozen=True, slots=True)
class Unsaid:
    """Why it did not say something of one kind."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class LogBegun:
    """The next lines are a service's last ones, and those to come."""

    service: str


@dataclass(frozen=True, slots=True)
class Logged:
    """A line of a service's log."""

    service: str
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What a question came to."""

    number: int
    value: Any


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a question came to nothing, and what helps."""

    number: int
    message: str
    remedy: str


Message = Up | Lost | Said | Unsaid | LogBegun | Logged | Answered | Refused


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds between two tries: the first, the longest; and between two questions of the same."""

    first: float = 0.25
    longest: float = 5.0
    poll: float = 2.0

    def tries(self) -> Iterator[float]:
        """Yield how long to wait after each failure."""
        seconds = self.first
        while True:
            yield seconds
            seconds = min(seconds * 2, self.longest)


class Source(Protocol):
    """Where what is known of a host comes from."""

    def start(self, wake: Callable[[], None]) -> None:
        """Begin; ``wake`` is called from other threads when there is something to drain."""

    def stop(self) -> None:
        """End, without waiting for anybody."""

    def drain(self) -> list[Message]:
        """Return what came since the last time."""

    def follow(self, service: str) -> None:
        """Let the log lines be those of a service; of none, if empty."""

    def look(self, *kinds: str, seconds: float | None = None) -> None:
        """Say what is shown, so that nothing else is asked; and how often."""

    def ask(self, question: Callable[[Client], Any]) -> int:
        """Ask once; the answer comes with this number."""


class Feed:
    """Follows one daemon. Its threads die with the process; none of them is waited for."""

    def __init__(self, connect: Connect, pauses: Pauses | None = None) -> None:
        self._connect = connect
        self._pauses = pauses or Pauses()
        self._seconds = self._pauses.poll
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._wanted = {kind: threading.Event() for kind in POLLED}
        self._link: Link | None = None
        self._messages: deque[Message] = deque()
        self._lines: deque[Message] = deque(maxlen=_WAITING_LINES)
        self._woken = False
        self._wake: Callable[[], None] = lambda: None
        self._numbers = count(1)
        # Counts what was followed, so that a follower that is late knows that it is none any more.
        self._followed = 0

    def start(self, wake: Callable[[], None]) -> None:
        """Begin to follow the daemon; ``wake`` is called from other threads."""
        self._wake = wake
        self._thread(self._events)
        for kind in POLLED:
            self._thread(self._poll, kind)

    def stop(self) -> None:
        """Let every thread end as soon as it notices."""
        self._over.set()
        for wanted in self._wanted.values():
            wanted.set()

    def drain(self) -> list[Message]:
        """Return what came since the last time: lines of the log after everything else."""
        with self._lock:
            found = [*self._messages, *self._lines]
            self._messages.clear()
            self._lines.clear()
            self._woken = False
        return found

    def follow(self, service: str) -> None:
        """Let the log lines be those of a service; of none, if empty."""
        with self._lock:
            self._followed += 1
            number = self._followed
        if service:
            self._thread(self._log, service, number)

    def look(self, *kinds: str, seconds: float | None = None) -> None:
        """Ask for these kinds again and again, and for no others."""
        self._seconds = seconds or self._pauses.poll
        for kind, wanted in self._wanted.items():
            if kind in kinds or self._over.is_set():
                wanted.set()
            else:
                wanted.clear()

    def ask(self, question: Callable[[Client], Any]) -> int:
        """Ask once, in a thread of its own."""
        number = next(self._numbers)
        self._thread(self._answer, number, question)
        return number

    def _thread(self, work: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _put(self, message: Message, follower: int | None = None) -> bool:
        """Leave something for the screen; what a follower of before says is dropped."""
        with self._lock:
            if follower is not None and follower != self._followed:
                return False
            (self._messages if follower is None else self._lines).append(message)
            wake, self._woken = not self._woken, True
        if wake and not self._over.is_set():
            self._wake()
        return True

    def _events(self) -> None:
        tries = self._pauses.tries()
        while not self._over.is_set():
            try:
                self._link = self._connect()
                self._put(Said("status", self._link.client.get("/status")))
                self._put(Up(self._link.read_only))
                tries = self._pauses.tries()
                for event in self._link.client.events():
                    if self._over.is_set():
                        return
                    self._put(Said(event.name, event.data))
                reason = "llamarigd ended the connection"
            except Exception as error:  # noqa: BLE001  whatever a client raises, the screen stays
                reason = why(error)
            self._put(Lost(reason))
            self._over.wait(next(tries))

    def _poll(self, kind: str) -> None:
        while self._wanted[kind].wait() and not self._over.is_set():
            if self._link is not None:
                try:
                    self._put(Said(kind, self._link.client.get(POLLED[kind])))
                except Exception as error:  # noqa: BLE001  the same
                    self._put(Unsaid(kind, why(error)))
            self._over.wait(self._seconds if self._link is not None else self._pauses.first)

    def _log(self, service: str, number: int) -> None:
        tries = self._pauses.tries()
        while not self._over.is_set():
            try:
                if self._link is not None and not self._copy(self._link.client, service, number):
                    return
            except Exception as error:  # noqa: BLE001  the same
                if not self._put(Unsaid("log", why(error)), number):
                    return
            self._over.wait(next(tries))

    def _copy(self, client: Client, service: str, number: int) -> bool:
        """Hand over the lines of a log until it ends; False where nobody wants them any more."""
        lines = client.log(service, REPLAYED)
        if not self._put(LogBegun(service), number):
            return False
        return all(self._put(Logged(service, text), number) and not self._over.is_set() for text in lines)

    def _answer(self, number: int, question: Callable[[Client], Any]) -> None:
        link = self._link
        if link is None:
            self._put(Refused(number, "the daemon has not answered yet", ""))
            return
        try:
            self._put(Answered(number, question(link.client)))
        except Exception as error:  # noqa: BLE001  the same
            self._put(Refused(number, why(error), error.remedy if isinstance(error, LlamarigError) else ""))


def why(error: Exception) -> str:
    """Say in words what a client raised."""
    if isinstance(error, LlamarigError):
        return error.message
    return str(error) or type(error).__name__
