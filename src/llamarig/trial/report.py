"""What a trial found: one check after the other, each with its figures, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

SCHEMA_VERSION: Final = 1


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    Attributes:
        name: version, options, ops, memory, short-prompt, long-prompt or speed.
        status: how it ended.
        message: what was seen, with its figures.
        seconds: how long it took.
        architecture: of the model that it was tried with, for the checks that need one.
        remedy: what helps, where it failed.
        figures: what was measured, as plain JSON types.

    """

    name: str
    status: Status
    message: str
    seconds: float = 0.0
    architecture: str = ""
    remedy: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "name": self.name,
            "architecture": self.architecture or None,
            "status": self.status.value,
            "message": self.message,
            "remedy": self.remedy,
            "seconds": round(self.seconds, 1),
            "figures": dict(self.figures),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A whole trial: the engine that was tried, the one that it was held against, and every check in its order."""

    candidate: str
    against: str
    slower_percent: float
    checks: Sequence[Check]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check.status is not Status.FAIL for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; ``verdict`` is ok or fail."""
        return {
            "schema_version": SCHEMA_VERSION,
            "candidate": self.candidate,
            "against": self.against,
            "slower_percent": self.slower_percent,
            "verdict": "ok" if self.passed else "fail",
            "failed": sorted({check.name for check in self.checks if check.status is Status.FAIL}),
            "checks": [check.to_dict() for check in self.checks],
        }
