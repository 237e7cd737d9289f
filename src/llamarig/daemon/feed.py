"""What happens, told to whoever listens; one who does not keep up is dropped, and nobody is ever waited for."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

# Events that are told again to one who comes back, and events that may wait for one listener.
KEPT: Final = 256
WAITING: Final = 256
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; ids rise, also from one daemon to the next."""

    id: int
    kind: str
    data: Any


class Subscription:
    """One listener's events, until it closes or is dropped; ``lost`` says that it was dropped."""

    def __init__(self, feed: Feed, wake: Callable[[], object]) -> None:
        self.lost = False
        self._feed = feed
        self._wake = wake
        self._events: deque[Event] = deque()
        self._change = threading.Condition()

    def take(self) -> list[Event]:
        """Return the events that came since the last call; waits for none."""
        with self._change:
            events = list(self._events)
            self._events.clear()
            return events

    def get(self, timeout: float | None = None) -> Event | None:
        """Return the next event, waiting ``timeout`` seconds for it; None where none came, or it was dropped."""
        with self._change:
            self._change.wait_for(lambda: self._events or self.lost, timeout)
            return self._events.popleft() if self._events else None

    def close(self) -> None:
        """Listen no more."""
        self._feed.drop(self)

    def offer(self, event: Event) -> bool:
        """Hand over an event; returns whether the listener keeps up."""
        with self._change:
            self.lost = self.lost or len(self._events) >= WAITING
            if not self.lost:
                self._events.append(event)
            self._change.notify_all()
        try:
            self._wake()
        except RuntimeError:  # its event loop is closed
            self.lost = True
        except Exception:  # noqa: BLE001  no switch may fail because somebody listens to it
            _LOG.exception("a listener could not be told of an event")
            self.lost = True
        return not self.lost


class Feed:
    """Tells events to listeners; ``first`` is the id of the first one."""

    def __init__(self, first: int = 1) -> None:
        self._next = first
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._listeners: list[Subscription] = []
        self._lock = threading.Lock()

    @property
    def last(self) -> int:
        """Id of the event that was told last, or that would be before the first one."""
        with self._lock:
            return self._next - 1

    @property
    def has_listeners(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def publish(self, kind: str, data: Any) -> int:
        """Tell everybody, and return the event's id."""
        with self._lock:
            event = Event(self._next, kind, data)
            self._next += 1
            self._kept.append(event)
            # Within the lock, so that every listener gets events in their order; an offer waits for nobody.
            self._listeners = [listener for listener in self._listeners if listener.offer(event)]
            return event.id

    def subscribe(self, wake: Callable[[], object] = lambda: None, after: int | None = None) -> Subscription:
        """Listen from now on.

        Args:
            wake: called for every event, by whoever tells it; must not wait.
            after: id of the last event that the listener knows; those since then that are still kept come first, and
                all that are kept where it is of a time that is still to come: a clock was put back.

        """
        listener = Subscription(self, wake)
        with self._lock:
            if after is not None:
                known = after if after < self._next else 0
                for event in self._kept:
                    if event.id > known:
                        listener.offer(event)
            if not listener.lost:
                self._listeners.append(listener)
        return listener

    def drop(self, listener: Subscription) -> None:
        """Tell a listener nothing more."""
        with self._lock:
            self._listeners = [other for other in self._listeners if other is not listener]
