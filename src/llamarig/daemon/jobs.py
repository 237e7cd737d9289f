"""What the daemon was asked to do, one thing after the other; each can be followed, waited for and cancelled.

One that may not be done yet stands aside, so that nobody waits for it who asks for something else. It is tried again
when its time has come, and whenever something else is over, for what it waits for may be gone. Where a later request
of people's has ended a service that it waits for, that was the last word: it is cancelled.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from llamarig.daemon.feed import Feed, Subscription
from llamarig.daemon.job import Job, JobState, LaterError, failure
from llamarig.daemon.job_file import JobFile
from llamarig.daemon.request import Kind, Origin, Outcome, Reporter, Request
from llamarig.errors import BusyError, CancelledError, LlamarigError, NotFoundError

KEPT: Final = 200
WAITING: Final = 16
# The phase of one that stands aside, how soon it may be tried again, and how late: no thread can wait for ever.
_ASIDE: Final = "wait"
_SOON_SECONDS: Final = 1.0
_LATE_SECONDS: Final = 86400.0
_LOG: Final = logging.getLogger(__name__)

Act = Callable[[Request, Reporter], Outcome]


class BusyJobError(BusyError):
    """Something else runs or waits; ``job`` is that."""

    def __init__(self, message: str, remedy: str, job: Job) -> None:
        super().__init__(message, remedy)
        self.job = job


@dataclass(frozen=True, slots=True)
class _Aside:
    """A job that stands aside: since when and until when, by a clock that does not jump, and for which services."""

    since: float
    until: float
    services: frozenset[str]


class Jobs:
    """A queue, and one thread that does what is in it."""

    def __init__(
        self,
        act: Act,
        root: Path = Path("/"),
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._act = act
        self._now = now
        self._clock = clock
        # Microseconds: ids rise from one daemon to the next.
        self._first = int(now() * 1e6)
        self.feed = Feed(self._first)
        self._told: dict[str, int] = {}
        self._change = threading.Condition()
        self._file = JobFile(root)
        self._jobs: dict[str, Job] = {job.id: job for job in self._file.read(self._time())}
        self._requests: dict[str, Request] = {}
        self._waiting: deque[str] = deque()
        self._aside: dict[str, _Aside] = {}
        self._stood: dict[str, float] = {}
        self._current: str | None = None
        self._cancelled = threading.Event()
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin with the first job."""
        self._worker.start()

    def close(self, timeout: float) -> bool:
        """Take no more, and begin none of those that wait; returns whether the running one ended within ``timeout``."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        if self._worker.is_alive():
            self._worker.join(timeout)
        return not self._worker.is_alive()

    @property
    def is_alive(self) -> bool:
        """Whether the thread that does the work is there."""
        return self._worker.is_alive()

    def submit(self, request: Request, *, queue: bool = True) -> Job:
        """Ask for something, and return its job; where the same waits already, and nothing came after it, it is joined.

        What health asks for is taken whatever waits: those that stand aside must not keep a service from being mended.

        Args:
            request: what.
            queue: whether it may wait for something else.

        Raises:
            BusyJobError: something else runs or waits and ``queue`` is false, or too much waits.
            BusyError: the daemon is ending.

        """
        with self._change:
            if self._closing:
                raise BusyError("the daemon is ending", "ask again when it is back: systemctl status llamarigd")
            ahead = self._waiting[-1] if self._waiting else self._current
            if ahead is not None and not queue:
                busy = self._jobs[self._current or ahead]
                raise BusyJobError(f"{busy.said} is under way", "wait for it, or let this one wait in the queue", busy)
            # Of all that is not over, the one that was asked for last.
            latest = next(reversed(self._requests), None)
            if latest is not None and latest != self._current and _same(self._requests[latest], request):
                return self._jobs[latest]
            if len(self._waiting) + len(self._aside) >= WAITING and request.origin is not Origin.HEALTH:
                last = [*self._aside, *self._waiting][-1]
                raise BusyJobError(
                    f"{WAITING} requests wait already", "cancel one of them: llamarig status", self._jobs[last]
                )
            job = self._add(request)
            self._change.notify_all()
        self._write()
        return job

    def cancel(self, name: str) -> bool:
        """Cancel a job: one that waits at once, one that runs as soon as it can go back. False where it is over.

        Raises:
            NotFoundError: there is no such job.

        """
        with self._change:
            job = self.get(name)
            if job.state.is_over:
                return False
            if name == self._current:
                self._cancelled.set()
                self._replace(replace(job, text="it was cancelled and goes back"))
                return True
            self._drop(name, "it was cancelled while it waited")
        self._write()
        return True

    def get(self, name: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: there is no such job.

        """
        with self._change:
            job = self._jobs.get(name)
        if job is None:
            raise NotFoundError(f"there is no job {name!r}", f"the last {KEPT} are kept: GET /jobs")
        return job

    def all(self) -> list[Job]:
        """Return the last jobs, oldest first."""
        with self._change:
            return list(self._jobs.values())

    def current(self) -> Job | None:
        """Return the job that runs."""
        with self._change:
            return self._jobs[self._current] if self._current else None

    def waiting(self) -> list[Job]:
        """Return the jobs that wait for their turn, the next one first."""
        with self._change:
            return [self._jobs[name] for name in self._waiting]

    def aside(self) -> list[Job]:
        """Return the jobs that may not be done yet; nothing else waits for them."""
        with self._change:
            return [self._jobs[name] for name in self._aside]

    def wait(self, name: str, timeout: float | None = None) -> Job:
        """Wait until a job is over, at most ``timeout`` seconds, and return it as it is then.

        Raises:
            NotFoundError: there is no such job.

        """
        with self._change:
            self._change.wait_for(lambda: self.get(name).state.is_over, timeout)
            return self.get(name)

    def told(self, name: str) -> int:
        """Return the id of the last event about a job; about one of a daemon before, that before all of this one's."""
        with self._change:
            return self._told.get(name, self._first - 1)

    def subscribe(self, wake: Callable[[], object] = lambda: None, after: int | None = None) -> Subscription:
        """Listen to events ``job``, each with a job as plain JSON types; see :meth:`Feed.subscribe`."""
        return self.feed.subscribe(wake, after)

    def _add(self, request: Request) -> Job:
        name = secrets.token_hex(4)
        while name in self._jobs:  # pragma: no cover  once in the age of the universe
            name = secrets.token_hex(4)
        job = Job.of(request, name, self._time())
        for old in list(self._jobs.values()):
            if len(self._jobs) >= KEPT and old.state.is_over:
                del self._jobs[old.id]
                self._told.pop(old.id, None)
        self._requests[name] = request
        self._waiting.append(name)
        self._replace(job)
        return job

    def _work(self) -> None:
        while True:
            with self._change:
                found = self._next()
                if found is None:
                    return
                name = self._current = found
                self._cancelled.clear()
                request = self._requests[name]
                job = replace(self._jobs[name], state=JobState.RUNNING, started=self._time())
                self._replace(job)
            why = f": {job.reason}" if job.reason else ""
            _LOG.info("job %s begins: %s, for %s%s", name, job.said, job.origin, why)
            try:
                result = self._perform(name, request)
            except LaterError as error:
                _LOG.info("job %s stands aside: %s", name, error)
                self._stand_aside(name, error)
                continue
            _LOG.info("job %s %s: %s", name, result["state"], result["text"])
            with self._change:
                self._current = None
                if name in self._stood:
                    result["phases"] = {_ASIDE: round(self._stood.pop(name), 3), **result["phases"]}
                self._end(replace(self._jobs[name], **result))
                self._look_aside(name, request, result.get("outcome"))
            self._write()

    def _next(self) -> str | None:
        """Wait for the next job; one that stood aside comes before those that were asked for later. None at the end."""
        while not self._closing:
            moment = self._clock() if self._aside else 0.0
            due = [name for name, aside in self._aside.items() if aside.until <= moment]
            for name in reversed(due):
                self._stood[name] = self._stood.get(name, 0.0) + moment - self._aside.pop(name).since
                self._waiting.appendleft(name)
            if self._waiting:
                return self._waiting.popleft()
            self._change.wait(min((aside.until - moment for aside in self._aside.values()), default=None))
        return None

    def _stand_aside(self, name: str, error: LaterError) -> None:
        """Let one wait until it may be done, and others come first."""
        with self._change:
            self._current = None
            moment = self._clock()
            seconds = min(max(_SOON_SECONDS, error.seconds), _LATE_SECONDS)
            self._aside[name] = _Aside(moment, moment + seconds, error.services)
            if self._cancelled.is_set():
                self._drop(name, "it was cancelled while it waited")
            else:
                job = self._jobs[name]
                self._replace(replace(job, state=JobState.QUEUED, started=None, phase=_ASIDE, text=str(error)))
        self._write()

    def _look_aside(self, over: str, request: Request, outcome: dict[str, Any] | None) -> None:
        """After something else is over: try those again that stand aside, but not what somebody has overruled."""
        # Jobs are in the order in which they were asked for: a later one is not overruled by one before it.
        order, said = list(self._jobs), self._jobs[over].said
        by_people = request.kind is not Kind.RECONCILE and request.origin not in {Origin.HEALTH, Origin.IDLE}
        left = set(outcome["left"]) if outcome is not None and by_people else set()
        for name, aside in list(self._aside.items()):
            gone = aside.services & left
            overruled = order.index(name) < order.index(over) and self._requests[name].service != request.service
            if gone and overruled:
                self._drop(name, f"{said} came before it, and {' and '.join(sorted(gone))} has left")
            else:
                self._aside[name] = replace(aside, until=0.0)

    def _drop(self, name: str, why: str) -> None:
        """End one that waits."""
        self._stood.pop(name, None)
        if self._aside.pop(name, None) is None:
            self._waiting.remove(name)
        ended = failure(CancelledError(why, "", None, []))
        self._end(replace(self._jobs[name], state=JobState.CANCELLED, text=why, error=ended))

    def _perform(self, name: str, request: Request) -> dict[str, Any]:
        """Do it; whatever comes of it, this thread goes on."""
        watch = _Watch(partial(self._report, name), self._cancelled.is_set, self._clock)
        try:
            outcome = self._act(request, watch)
        except LaterError:
            raise
        except CancelledError as error:
            return {"state": JobState.CANCELLED, "phases": watch.over(), "text": error.message, "error": failure(error)}
        except LlamarigError as error:
            return {"state": JobState.FAILED, "phases": watch.over(), "text": error.message, "error": failure(error)}
        except BaseException as error:  # noqa: BLE001  a thread that ends would end all switching
            _LOG.exception("a job failed in a way that nobody foresaw")
            trouble = LlamarigError(f"{type(error).__name__}: {error}", "journalctl --unit llamarigd")
            return {
                "state": JobState.FAILED,
                "phases": watch.over(),
                "text": trouble.message,
                "error": failure(trouble),
            }
        return {
            "state": JobState.SUCCEEDED,
            "phases": outcome.phases or watch.over(),
            "text": outcome.message,
            "outcome": outcome.to_dict(),
        }

    def _end(self, job: Job) -> None:
        self._requests.pop(job.id, None)
        self._replace(replace(job, finished=self._time()))
        self._change.notify_all()

    def _replace(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._told[job.id] = self.feed.publish("job", job.to_dict())

    def _time(self) -> float:
        return round(self._now(), 3)

    def _report(self, name: str, **changes: Any) -> None:
        with self._change:
            self._replace(replace(self._jobs[name], **changes))

    def _write(self) -> None:
        self._file.write(self.all)


class _Watch:
    """Reports of the job that runs."""

    def __init__(self, report: Callable[..., None], cancelled: Callable[[], bool], clock: Callable[[], float]) -> None:
        self._report = report
        self._clock = clock
        self._phases: dict[str, float] = {}
        self._begun: tuple[str, float] | None = None
        self.cancelled = cancelled

    def phase(self, name: str) -> None:
        phases = self.over()
        self._begun = (name, self._clock())
        self._report(phase=name, phases=phases)

    def say(self, text: str) -> None:
        self._report(text=text)

    def over(self) -> dict[str, float]:
        """End the phase that was begun last, and return the seconds of all."""
        if self._begun is not None:
            name, since = self._begun
            self._phases[name] = round(self._phases.get(name, 0.0) + self._clock() - since, 3)
            self._begun = None
        return dict(self._phases)


def _same(one: Request, other: Request) -> bool:
    """Tell whether two requests ask for the same, whoever asks and why."""
    return replace(one, origin=other.origin, reason=other.reason) == other
