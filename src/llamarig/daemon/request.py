"""What the daemon is asked to do, and how whoever does it says how far it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from llamarig.runtime.engine import Answer


class Kind(StrEnum):
    """What there is to ask for."""

    SWITCH = "switch"
    STOP = "stop"
    RECONCILE = "reconcile"


class Origin(StrEnum):
    """Who asks."""

    CLI = "cli"
    API = "api"
    PLAYBOOK = "playbook"
    START = "start"
    HEALTH = "health"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Request:
    """One thing asked for.

    Attributes:
        kind: what.
        service: of a switch, the one to serve; of a stop, the one to end, all of them where it is None; of a
            reconciliation, the one that is to be started anew although it runs, if any.
        origin: who asks.
        reason: why, where nobody asked: what health or idleness found.
        now: of a switch, whether it may end what has not served its minimum yet.
        adopt: of a reconciliation, whether what serves gets its present spec; without it, it keeps the one it has.

    """

    kind: Kind
    service: str | None = None
    origin: Origin = Origin.API
    reason: str = ""
    now: bool = False
    adopt: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended.

    Attributes:
        active: the services that serve now.
        left: those that were made to stop.
        changed: whether anything was.
        message: the same in a sentence.
        answer: what the service said, where one was asked.
        phases: seconds that each phase took, in their order.

    """

    active: tuple[str, ...]
    left: tuple[str, ...] = ()
    changed: bool = False
    message: str = ""
    answer: Answer | None = None
    phases: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            **asdict(self),
            "active": list(self.active),
            "left": list(self.left),
            "answer": self.answer.text if self.answer else None,
        }


class Reporter(Protocol):
    """Who is told how far it is, and asked whether to go on."""

    def phase(self, name: str) -> None:
        """Say which phase begins."""

    def say(self, text: str) -> None:
        """Say in a sentence what happens now."""

    def cancelled(self) -> bool:
        """Tell whether whoever asked wants it no more."""
