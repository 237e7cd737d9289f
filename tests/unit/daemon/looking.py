"""One service under watch over a time that a test lets pass."""

from __future__ import annotations

from typing import Any

from llamarig.daemon.health import Action, Limits, Verdict, judge
from llamarig.daemon.sights import Health, Record, Sight
from llamarig.runtime.engine import Slot
from llamarig.runtime.systemd import UnitState

LIMITS = Limits(hung_seconds=60.0, crash_limit=3, crash_window_seconds=600.0, load_seconds=100.0)
UP = UnitState("active", "running")
IDLE = (Slot(0, busy=False, prompt_tokens=0, decoded=0),)
ENGINE = (101, 50.0)


def reads(tokens: int) -> tuple[Slot, ...]:
    """A slot that takes in a prompt."""
    return (Slot(0, busy=True, prompt_tokens=tokens, decoded=0),)


def writes(tokens: int, slots: int = 1) -> tuple[Slot, ...]:
    """Slots that put out tokens."""
    return tuple(Slot(number, busy=True, prompt_tokens=100, decoded=tokens) for number in range(slots))


def restarted(count: int = 1) -> UnitState:
    """A unit that runs again, and has forgotten how it ended."""
    return UnitState("active", "running", "success", count)


def waiting(status: int = 134, result: str = "exit-code", restarts: int = 0) -> UnitState:
    """A unit that has ended and that systemd is about to start anew."""
    return UnitState("activating", "auto-restart", result, restarts, status)


class Watch:
    """What is known of the service; each sight comes ``seconds`` after the one before it and differs as it says."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.record = Record()
        self.time = 1000.0
        self.verdicts: list[Verdict] = []

    def see(self, seconds: float = 5.0, unit: UnitState = UP, **changes: Any) -> Verdict:
        """Look once."""
        self.time += seconds
        values: dict[str, Any] = {"process": ENGINE, "slots": IDLE, "works": False} | changes
        self.record, verdict = judge(self.record, Sight(time=self.time, unit=unit, **values), self.limits)
        self.verdicts.append(verdict)
        return verdict

    def see_until(self, wanted: Health, most: float, step: float = 5.0, **changes: Any) -> float:
        """Look at the same again and again until it comes to this; returns the seconds that took."""
        start = self.time
        while self.see(step, **changes).health is not wanted:
            assert self.time - start <= most, f"{self.verdicts[-1]} after {self.time - start:.0f} s"
        return self.time - start

    @property
    def actions(self) -> list[Action]:
        """Everything that was asked for."""
        return [verdict.action for verdict in self.verdicts if verdict.action is not Action.NONE]


def serving(limits: Limits = LIMITS) -> Watch:
    """A service that has served for a while, and was proven by whoever started it."""
    watch = Watch(limits)
    for _ in range(4):
        assert watch.see().health is Health.OK
    return watch
