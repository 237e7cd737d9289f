"""One thing that the daemon was asked to do, as it stands."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from llamarig.daemon.request import Kind, Request
from llamarig.errors import LlamarigError, SwitchError


class LaterError(Exception):
    """What is asked for may not be done yet, and nothing was touched; the message says why.

    Attributes:
        seconds: after which it is to be tried again.
        services: those that it waits for.

    """

    def __init__(self, message: str, seconds: float, services: Collection[str]) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.services = frozenset(services)


class JobState(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self not in {JobState.QUEUED, JobState.RUNNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One thing asked for, as it stands; times are seconds since the epoch.

    Attributes:
        id: its name.
        kind, service, origin, reason: of the request.
        state: how far it is.
        phase: the one it is in, or was in last; empty before the first.
        phases: seconds that each phase took, in their order.
        text: what happens, or how it ended, in a sentence.
        submitted, started, finished: when; None where it is not so far.
        outcome: of one that succeeded.
        error: of one that did not: message, remedy, what serves now, the last log lines, and the exit code.

    """

    id: str
    kind: str
    service: str | None
    origin: str
    reason: str
    state: JobState
    phase: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)
    text: str = ""
    submitted: float
    started: float | None = None
    finished: float | None = None
    outcome: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "id": self.id,
            "kind": self.kind,
            "service": self.service,
            "origin": self.origin,
            "reason": self.reason,
            "state": self.state.value,
            "phase": self.phase,
            "phases": dict(self.phases),
            "text": self.text,
            "submitted": self.submitted,
            "started": self.started,
            "finished": self.finished,
            "outcome": dict(self.outcome) if self.outcome is not None else None,
            "error": dict(self.error) if self.error is not None else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        """Build it from its JSON.

        Raises:
            TypeError, ValueError, KeyError: it is no such JSON.

        """
        return cls(**{**data, "state": JobState(data["state"])})

    @property
    def said(self) -> str:
        """What it is, in words for a sentence."""
        words = {Kind.SWITCH: f"a switch to {self.service!r}", Kind.STOP: "a stop", Kind.RECONCILE: "a reconciliation"}
        return words[Kind(self.kind)]

    @classmethod
    def of(cls, request: Request, name: str, submitted: float) -> Job:
        """Build the job of a request, which waits."""
        return cls(
            id=name,
            kind=request.kind.value,
            service=request.service,
            origin=request.origin.value,
            reason=request.reason,
            state=JobState.QUEUED,
            submitted=submitted,
        )


def failure(error: LlamarigError) -> dict[str, Any]:
    """Return what a job says of the error that it ended with."""
    serving, lines = (error.serving, list(error.log_lines)) if isinstance(error, SwitchError) else (None, [])
    return {
        "message": error.message,
        "remedy": error.remedy,
        "serving": serving,
        "log_lines": lines,
        "exit_code": int(error.exit_code),
    }
