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
