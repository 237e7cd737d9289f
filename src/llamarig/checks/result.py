"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ended; ``fail`` makes the verdict unhealthy."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the doctor; ``remedy`` is empty where nothing is wrong."""

    name: str
    status: Status
    message: str
    remedy: str = ""
    seconds: float = 0.0


def ok(name: str, message: str) -> CheckResult:
    """Return the result of a check that is content."""
    return CheckResult(name, Status.OK, message)


def warn(name: str, message: str, remedy: str) -> CheckResult:
    """Return the result of a check that found something to look after, and nothing that keeps the host from serving."""
    return CheckResult(name, Status.WARN, message, remedy)


def fail(name: str, message: str, remedy: str) -> CheckResult:
    """Return the result of a check that found the host not as it must be."""
    return CheckResult(name, Status.FAIL, message, remedy)
