"""The one thread that asks NVML: it collects every few seconds, and listens for Xid errors in between.

What it found is read by others while it works, or while a call of it hangs: each attribute is replaced as a whole.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from llamarig.exporter.collection import Collected, Collection
from llamarig.hardware.measured import Meter, StaleLibraryError, Xid
from llamarig.web.exposition import Sample, exposition

# What is older says nothing about now, and is not passed off as if it did.
KEPT_SECONDS: Final = 60.0
_LISTEN_SECONDS: Final = 1.0
# What is listened at least between two collections, or slow cards would never tell an Xid error.
_LEAST_SECONDS: Final = 0.05
# An error that comes a thousand times a second is said this often.
_SAID_SECONDS: Final = 10.0
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the last collection found, as text; when it ended, by both clocks, and how many seconds it took."""

    text: bytes
    ended: float
    time: float
    seconds: float
    succeeded: bool


@dataclass(frozen=True, slots=True)
class _Asking:
    """A question that is under way: since when, and how long it takes where all is well."""

    since: float
    usual: float = 0.0


class Worker(threading.Thread):
    """Collects until the process ends.

    Args:
        meter: the cards; this thread alone asks them.
        collection: what makes samples of them.
        ended: called when it cannot go on; ``failure`` says why.
        period: seconds from one collection's beginning to the next.

    """

    def __init__(
        self,
        meter: Meter,
        collection: Collection,
        ended: Callable[[], None],
        period: float,
    ) -> None:
        super().__init__(name="collection", daemon=True)
        self._meter = meter
        self._collection = collection
        self._ended = ended
        self._period = period
        self._asking: _Asking | None = None
        self._trouble = ""
        self._said: dict[Xid, float] = {}
        self.snapshot: Snapshot | None = None
        self.failure = ""
        self.errors: Mapping[int, int] = {}
        self.xids: Mapping[Xid, tuple[int, float]] = {}

    @property
    def stuck_seconds(self) -> float:
        """For how long the question under way has had no answer."""
        asking = self._asking
        return 0.0 if asking is None else max(0.0, time.monotonic() - asking.since - asking.usual)

    def run(self) -> None:
        """Collect, and listen, again and again."""
        try:
            while True:
                due = time.monotonic() + self._period
                self._collect()
                # Also where cards answer so late that the next collection is due already.
                due = max(due, time.monotonic() + _LEAST_SECONDS)
                while (left := due - time.monotonic()) > 0:
                    self._listen(min(left, _LISTEN_SECONDS))
        except StaleLibraryError as error:
            self.failure = f"{error}: a new process must load it"
        except Exception as error:  # noqa: BLE001  a thread that is gone would be seen by nobody
            _LOG.exception("the collection failed in a way that nobody foresaw")
            self.failure = f"{type(error).__name__}: {error}"
        self._ended()

    def _collect(self) -> None:
        began = time.monotonic()
        self._asking = _Asking(began)
        found, text = self._found()
        self._asking = None
        ended = time.monotonic()
        self.snapshot = Snapshot(text, ended, time.time(), ended - began, found.succeeded)
        counted = dict(self.errors)
        for code in found.codes:
            counted[code] = counted.get(code, 0) + 1
        self.errors = counted
        if found.trouble != self._trouble:
            self._trouble = found.trouble
            _LOG.warning("%s", found.trouble or "the cards answer again")

    def _found(self) -> tuple[Collected, bytes]:
        """Return what a collection finds, and that as text.

        What nobody foresaw is a collection that failed: a new process would find the same, and nothing could be read
        meanwhile, not even what the daemon says.
        """
        try:
            found = self._collection.collect()
            return found, exposition(found.samples)
        except StaleLibraryError:
            raise
        except Exception as error:  # noqa: BLE001  see above
            trouble = f"the collection failed in a way that nobody foresaw: {type(error).__name__}: {error}"
            _LOG.log(logging.DEBUG if trouble == self._trouble else logging.ERROR, "its traceback", exc_info=True)
            return Collected((), succeeded=False, trouble=trouble), b""

    def _listen(self, seconds: float) -> None:
        if not self._meter.listens:
            time.sleep(seconds)
            return
        began = time.monotonic()
        self._asking = _Asking(began, seconds)
        xid = self._meter.wait(seconds)
        self._asking = None
        if xid is None:
            # Where nothing came, and sooner than was asked, asking again at once would go round in circles.
            time.sleep(min(_LEAST_SECONDS, max(0.0, began + seconds - time.monotonic())))
        else:
            count, _ = self.xids.get(xid, (0, 0.0))
            self.xids = {**self.xids, xid: (count + 1, time.time())}
            if time.monotonic() - self._said.get(xid, -math.inf) >= _SAID_SECONDS:
                self._said[xid] = time.monotonic()
                _LOG.warning("Xid %d of card %s, %d since this process began", xid.number, xid.uuid, count + 1)

    def samples(self) -> Iterator[Sample]:
        """Yield what is true as it is asked: how the collection is, and what it counted."""
        snapshot = self.snapshot
        yield Sample("llamarig_collection_success", (), float(snapshot is not None and snapshot.succeeded))
        if snapshot is not None:
            yield Sample("llamarig_collection_timestamp_seconds", (), snapshot.time)
            yield Sample("llamarig_collection_duration_seconds", (), snapshot.seconds)
        yield Sample("llamarig_collection_stuck_seconds", (), self.stuck_seconds)
        for code, number in sorted(self.errors.items()):
            yield Sample("llamarig_collection_errors_total", (str(code),), number)
        for xid, (count, seen) in self.xids.items():
            labels = (xid.uuid, str(xid.number))
            yield Sample("llamarig_gpu_xid_errors_total", labels, count)
            yield Sample("llamarig_gpu_xid_last_timestamp_seconds", labels, seen)

    def text(self) -> bytes:
        """Return what the last collection found, and nothing where that is too old."""
        snapshot = self.snapshot
        fresh = snapshot is not None and time.monotonic() - snapshot.ended < KEPT_SECONDS
        return snapshot.text if snapshot is not None and fresh else b""
