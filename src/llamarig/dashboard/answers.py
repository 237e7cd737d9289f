"""What the daemon answers, as records: what it leaves out, or says otherwise than expected, is absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamarig.dashboard.reading import amounts, count, number, record, records, text, texts


@dataclass(frozen=True, slots=True)
class Serving:
    """An active service."""

    service: str
    name: str
    url: str
    health: str
    reason: str
    since: float | None
    pinned: bool
    in_flight: int
    restarts: int

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Serving:
        """Read one of ``active`` of GET /status."""
        return cls(
            text(value.get("service")),
            text(value.get("name")),
            text(value.get("url")),
            text(value.get("health")) or "unknown",
            text(value.get("reason")),
            number(value.get("since")),
            value.get("pinned") is True,
            count(value.get("in_flight")),
            count(value.get("restarts")),
        )


@dataclass(frozen=True, slots=True)
class Job:
    """Something that the daemon does, did or will do."""

    identity: str
    kind: str
    service: str
    state: str
    phase: str
    phases: tuple[tuple[str, float], ...]
    text: str
    started: float | None
    error: str
    remedy: str

    @property
    def over(self) -> bool:
        """Whether nothing comes of it any more."""
        return self.state not in {"queued", "running"}

    @property
    def title(self) -> str:
        """What it is, in words."""
        if self.kind == "switch":
            return f"switch to {self.service}"
        return f"{self.kind} {self.service}".strip() or "job"

    @classmethod
    def read(cls, value: object) -> Job | None:
        """Read a job; None where there is none."""
        job = record(value)
        if not job:
            return None
        error = record(job.get("error"))
        return cls(
            text(job.get("id")),
            text(job.get("kind")),
            text(job.get("service")),
            text(job.get("state")),
            text(job.get("phase")),
            amounts(job.get("phases")),
            text(job.get("text")),
            number(job.get("started")),
            text(error.get("message")),
            text(error.get("remedy")),
        )


@dataclass(frozen=True, slots=True)
class Status:
    """What serves, and what is under way."""

    model: str
    name: str
    state: str
    sentence: str
    active: tuple[Serving, ...]
    default: str
    stopped: bool
    job: Job | None
    queue: tuple[Job, ...]
    given_up: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    time: float | None
    version: str

    @property
    def in_flight(self) -> dict[str, int]:
        """Requests under way of each active service."""
        return {serving.service: serving.in_flight for serving in self.active}

    @classmethod
    def read(cls, value: object) -> Status:
        """Read GET /status."""
        status = record(value)
        lost = record(status.get("given_up"))
        jobs = map(Job.read, records(status.get("queue")))
        return cls(
            text(status.get("model")),
            text(status.get("model_name")),
            text(status.get("state")) or "unknown",
            text(status.get("status")),
            tuple(Serving.read(item) for item in records(status.get("active"))),
            text(status.get("default")),
            status.get("stopped") is True,
            Job.read(status.get("job")),
            tuple(job for job in jobs if job is not None),
            tuple((text(name), text(record(why).get("reason"))) for name, why in lost.items()),
            texts(status.get("warnings")),
            number(status.get("time")),
            text(record(status.get("agent")).get("version")),
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """A service that the host could serve."""

    service: str
    name: str
    speed: str
    context: float | None
    is_bench: bool
    active: bool
    default: bool
    leaves: tuple[str, ...]

    @classmethod
    def read_all(cls, value: object) -> list[Offer]:
        """Read GET /services; one without a name is left out."""
        found = (
            cls(
                text(item.get("service")),
                text(item.get("name")) or text(item.get("profile")),
                text(item.get("speed")),
                number(item.get("context")),
                item.get("is_bench") is True,
                item.get("active") is True,
                item.get("default") is True,
                texts(item.get("leaves")),
            )
            for item in records(record(value).get("services"))
        )
        return [offer for offer in found if offer.service]


@dataclass(frozen=True, slots=True)
class Holding:
    """What a service would take of one card, or of the host, in MiB."""

    label: str
    needed: float
    total: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a switch to a service would do."""

    service: str
    active: bool
    leaves: tuple[str, ...]
    stays: tuple[str, ...]
    refused: str
    remedy: str
    url: str
    memory: tuple[Holding, ...]

    @classmethod
    def read(cls, value: object) -> Plan:
        """Read GET /plan/{service}."""
        plan = record(value)
        memory = record(plan.get("memory"))
        held = [
            Holding(text(item.get("name")) or text(item.get("uuid")), taken(item), number(item.get("memory")))
            for item in records(memory.get("devices"))
        ]
        host = record(memory.get("host"))
        if host:
            held.append(Holding("host", taken(host), number(host.get("limit"))))
        return cls(
            text(plan.get("service")),
            plan.get("active") is True,
            texts(plan.get("leaves")),
            texts(plan.get("stays")),
            text(plan.get("refused")),
            text(plan.get("remedy")),
            text(plan.get("url")),
            tuple(held),
        )


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history."""

    time: float | None
    kind: str
    service: str
    previous: str
    outcome: str
    reason: str
    origin: str
    phases: tuple[tuple[str, float], ...]
    log_lines: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long it took in all."""
        return sum(seconds for _, seconds in self.phases)

    @classmethod
    def read_all(cls, value: object) -> list[Event]:
        """Read GET /history; the newest comes first."""
        found = [
            cls(
                number(item.get("time")),
                text(item.get("kind")),
                text(item.get("service")),
                text(item.get("previous")),
                text(item.get("outcome")),
                text(item.get("reason")),
                text(item.get("origin")),
                amounts(item.get("phases")),
                texts(item.get("log_lines")),
            )
            for item in records(record(value).get("events"))
        ]
        return found[::-1]


def taken(value: Mapping[str, Any]) -> float:
    """Add up what a prediction says that a service takes of one place."""
    return sum(number(value.get(part)) or 0.0 for part in ("weights", "cache", "context", "compute", "other"))
