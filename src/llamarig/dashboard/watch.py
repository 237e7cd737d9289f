"""What is known of one host: it takes in what its feed brings, and forgets nothing when the daemon is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from llamarig.dashboard.answers import Job, Status
from llamarig.dashboard.client import Client
from llamarig.dashboard.feed import Answered, LogBegun, Logged, Lost, Message, Refused, Said, Source, Unsaid, Up
from llamarig.dashboard.log import LogBuffer
from llamarig.dashboard.machine import Gpus, Machine
from llamarig.dashboard.text import clean, lasting

# Phases of a switch in which the service that comes has something to say.
_COMING: Final = frozenset({"start", "load", "completion", "placement", "commit"})
# How long nothing at all may be heard of a daemon that is asked, before it counts as lost.
_SILENT_SECONDS: Final = 10.0
_SILENT_TIMES: Final = 3


class Watch:
    """One host, as its daemon last described it.

    Attributes:
        name: of the host, as people call it.
        read_only: why nothing may be changed, empty where it may.
        status, gpus, machine: what was said last; None before it was.
        job: the one that runs.
        ended: the one that ended last, unless another began since.
        log: of the service that is followed.

    """

    def __init__(
        self,
        name: str,
        feed: Source,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.feed = feed
        self.read_only = ""
        self.status: Status | None = None
        self.gpus: Gpus | None = None
        self.machine: Machine | None = None
        self.job: Job | None = None
        self.ended: Job | None = None
        self.log = LogBuffer()
        self._clock, self._wall = clock, wall
        self._begun = clock()
        self._reason: str | None = None
        self._up = False
        self._heard: float | None = None
        self._heard_of: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._silent_seconds: float | None = None
        self._logging = False
        self._followed = ""
        self._wanted_log = ""
        self._asked: dict[int, tuple[Callable[[Any], None], Callable[[str, str], None]]] = {}

    def show(self, *kinds: str, seconds: float = 2.0) -> None:
        """Say what of the host is on the screen, and how often it is asked."""
        self.feed.look(*kinds, seconds=seconds)
        self._silent_seconds = max(_SILENT_SECONDS, _SILENT_TIMES * seconds) if kinds else None
        self._heard = self._clock() if self._up else self._heard

    def drain(self) -> bool:
        """Take in what came; say whether anything did."""
        messages = self.feed.drain()
        for message in messages:
            self.apply(message)
        self._follow()
        return bool(messages)

    def apply(self, message: Message) -> None:
        """Take in one thing."""
        match message:
            case Lost(reason):
                self._up, self._reason = False, clean(reason)
            case Unsaid(kind, reason):
                self._failed[kind] = clean(reason)
            case LogBegun() | Logged():
                self._logged(message)
            case Answered(number, value):
                self._asked.pop(number, (_nothing, _nothing))[0](value)
            case Refused(number, reason, remedy):
                self._asked.pop(number, (_nothing, _nothing))[1](clean(reason), clean(remedy))
            case Up(read_only):
                self._up, self.read_only = True, clean(read_only)
            case Said(kind, value):
                self._said(kind, value)
        if isinstance(message, Up | Said | Logged | Answered):
            self._heard = self._clock()

    def _logged(self, message: LogBegun | Logged) -> None:
        service = clean(message.service)
        if isinstance(message, LogBegun):
            self.log.begin(service)
            self._failed.pop("log", None)
        elif service == self.log.service and isinstance(message.text, str):
            self.log.add(message.text)

    def _said(self, kind: str, value: Any) -> None:
        self._heard_of[kind] = self._clock()
        self._failed.pop(kind, None)
        match kind:
            case "status":
                self.status = Status.read(value)
                self._job(self.status.job)
                if self.status.job is None:
                    self.job = None
            case "job":
                self._job(Job.read(value))
            case "gpus":
                self.gpus = Gpus.read(value)
            case "system":
                self.machine = Machine.read(value)

    def _job(self, job: Job | None) -> None:
        if job is None or job.state == "queued":
            return
        if not job.over:
            self.job, self.ended = job, None
        else:
            self.ended = job
            if self.job is not None and self.job.identity == job.identity:
                self.job = None

    def ask(
        self,
        question: Callable[[Client], Any],
        then: Callable[[Any], None],
        otherwise: Callable[[str, str], None],
    ) -> None:
        """Ask the daemon once; one of the two is called as the answer is taken in."""
        self._asked[self.feed.ask(question)] = (then, otherwise)

    @property
    def lost(self) -> str:
        """Why the daemon counts as lost, empty while it answers or nobody knows yet."""
        if not self._up:
            return "" if self._reason is None else self._reason or "no reason is known"
        silent = self._silence
        if self._silent_seconds is not None and silent is not None and silent > self._silent_seconds:
            return "llamarigd keeps the connection and says nothing"
        return ""

    @property
    def _silence(self) -> float | None:
        return None if self._heard is None else self._clock() - self._heard

    @property
    def reached(self) -> bool:
        """Whether the daemon answered and is not lost."""
        return self._up and not self.lost

    @property
    def away(self) -> str:
        """How long nothing has been heard."""
        return lasting(self._clock() - (self._begun if self._heard is None else self._heard))

    def stale(self, kind: str) -> str:
        """Why what was said of a kind is not of now, empty where it is."""
        heard = self._heard_of.get(kind)
        if not self.lost and kind not in self._failed:
            return ""
        return "never seen" if heard is None else f"{lasting(self._clock() - heard)} old"

    def failure(self, kind: str) -> str:
        """Why the daemon did not say something the last time it was asked for."""
        return self._failed.get(kind, "")

    @property
    def now(self) -> float:
        """The host's own time, epoch seconds; this machine's, where the host did not say."""
        heard = self._heard_of.get("status")
        if self.status is None or self.status.time is None or heard is None:
            return self._wall()
        # What is not of now does not go on either.
        return self.status.time + (0.0 if self.lost else self._clock() - heard)

    @property
    def job_seconds(self) -> float | None:
        """How long the phase that runs has taken; of a job without phases, the whole job."""
        if self.job is None or self.job.started is None:
            return None
        done = sum(seconds for name, seconds in self.job.phases if name != self.job.phase)
        return max(0.0, self.now - self.job.started - done)

    def next_log(self) -> None:
        """Follow the log of the next active service."""
        names = [serving.service for serving in self.status.active] if self.status else []
        if names:
            at = names.index(self._followed) + 1 if self._followed in names else 0
            self._wanted_log = names[at % len(names)]
            self._follow()

    def leave_log(self) -> None:
        """Follow no log while nobody looks at it."""
        self._logging, self._followed = False, ""
        self.feed.follow("")

    def follow_log(self) -> None:
        """Follow the log of what serves, or of what comes."""
        self._logging = True
        self._follow()

    def _follow(self) -> None:
        service = self._to_follow()
        if self._logging and service and service != self._followed:
            self._followed = service
            self.feed.follow(service)

    def _to_follow(self) -> str:
        if self.job is not None and self.job.kind == "switch" and self.job.phase in _COMING and self.job.service:
            return self.job.service
        if self.status is None:
            return ""
        names = [serving.service for serving in self.status.active]
        if self._wanted_log in names:
            return self._wanted_log
        return self.status.model or (names[0] if names else "")


def _nothing(*_arguments: Any) -> None:
    """Nobody waits for it any more."""
