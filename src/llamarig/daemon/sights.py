"""What a look at a service sees, and what is remembered of earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from llamarig.runtime.engine import Slot
from llamarig.runtime.systemd import UnitState

# Number of a process, and its beginning in seconds since the machine started: together they name it for good.
Process = tuple[int, float]
# A start of an engine: restarts of its unit, and its process where that was found.
Run = tuple[int, Process | None]


class Health(StrEnum):
    """What a service comes to."""

    OK = "ok"
    LOADING = "loading"
    HUNG = "hung"
    FAILING = "failing"
    DOWN = "down"
    CRASH_LOOPING = "crash-looping"
    CPU_FALLBACK = "cpu-fallback"
    GARBAGE = "garbage"
    GPU_LOST = "gpu-lost"

    @property
    def word(self) -> str:
        """The same in the words of ``/status``, which are fewer."""
        return self.value if self in _SAID else Health.FAILING.value


_SAID: Final = frozenset({Health.OK, Health.LOADING, Health.HUNG, Health.FAILING, Health.DOWN})


@dataclass(frozen=True, slots=True)
class Proof:
    """What a completion and a look at the cards came to; ``health`` is None where no answer came in time."""

    health: Health | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """Cards of a service that are gone, in words, and when NVML was asked."""

    time: float
    cards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one look saw of one service.

    Attributes:
        time: of a clock that does not jump, in seconds.
        unit: its unit.
        docker: when Docker came up; None while it is not.
        process: number and beginning of the engine's first process; None where none was found.
        proven_since: whether the service was proven after that process began.
        health: ``ok``, ``loading`` or ``down``, as ``/health`` says.
        slots: what the engine is doing; empty where it has nothing to do or does not tell such things, None where it
            did not answer.
        works: whether its processes computed since the look before, or wait for a disk; None where nobody can say.
        gate: whether its engine may begin.
        door: whether the door leads to it; None where the door does not answer.
        oom_kills: processes killed for want of memory, of its own cgroup or of the whole machine; None where nobody
            counts.
        lost: cards of its own that are gone, by the newest reading; None where there is none.
        proof: what the proof of this start came to, in the look after its end.
        words: what the engine said last, where its unit ended since the look before.

    """

    time: float
    unit: UnitState
    docker: float | None = 0.0
    process: Process | None = None
    proven_since: bool = True
    health: str = "ok"
    slots: tuple[Slot, ...] | None = ()
    works: bool | None = None
    gate: bool = True
    door: bool | None = True
    oom_kills: int | None = None
    lost: Lost | None = None
    proof: Proof | None = None
    words: str = ""

    @property
    def ends(self) -> int:
        """How often the main process of this run of the unit has ended."""
        return self.unit.restarts + self.is_over

    @property
    def is_over(self) -> bool:
        """Whether its unit does not run now."""
        return self.unit.is_over or self.unit.is_failed

    @property
    def is_busy(self) -> bool:
        """Whether a slot has work."""
        return any(slot.busy for slot in self.slots or ())

    @property
    def decodes(self) -> bool:
        """Whether every slot that has work puts out tokens already."""
        return self.is_busy and all(slot.decoded > 0 for slot in self.slots or () if slot.busy)


@dataclass(frozen=True, slots=True)
class Fall:
    """A time that a service ceased to serve by itself: after how many seconds of serving, and why."""

    served: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a service over time; seconds are those that were looked at.

    Attributes:
        falls: those within the window.
        served: how long it served.
        time, ends, docker, oom_kills: as last seen.
        run: which start of the engine is looked at: restarts of the unit, and the process.
        ready, proven: whether this start was ever ready, and was seen to answer.
        loading: how long this start has not been ready.
        slots: the figures that were the last sign of life.
        quiet: seconds since then, and ``stalled`` the same as they count.
        late: after so long without a token of this start, the next one is late beyond doubt.
        steps: how many times tokens were seen to come.
        lost: how many readings in a row have missed a card, and ``lost_time`` the last of them.
        shut: how long the door has not led to it.
        attempts, asked: how often in a row a mending was asked for, and when.
        give_ups, gave_up: how often in a row its giving up was asked for, and when.
        counted: whether the trouble since then is among the falls, or is nobody's fault.
        why: what its last end was, or what it was mended for.

    """

    falls: tuple[Fall, ...] = ()
    served: float = 0.0
    time: float | None = None
    ends: int | None = None
    docker: float | None = None
    oom_kills: int | None = None
    run: Run | None = None
    ready: bool = False
    proven: bool = False
    loading: float = 0.0
    slots: tuple[Slot, ...] | None = None
    quiet: float = 0.0
    stalled: float = 0.0
    late: float = 0.0
    steps: int = 0
    lost: int = 0
    lost_time: float | None = None
    shut: float = 0.0
    attempts: int = 0
    asked: float = 0.0
    give_ups: int = 0
    gave_up: float = 0.0
    counted: bool = False
    why: str = ""

    def anew(self) -> Record:
        """Return what is left of it when a request has changed the service: how often it fell, and was mended."""
        return Record(
            falls=self.falls,
            served=self.served,
            attempts=self.attempts,
            asked=self.asked,
            give_ups=self.give_ups,
            gave_up=self.gave_up,
        )

    def has_ended(self, unit: UnitState) -> bool:
        """Tell whether the unit has ended since the last look."""
        return self.ends is not None and unit.restarts + (unit.is_over or unit.is_failed) > self.ends


def same_run(run: Run, other: Run) -> bool:
    """Tell whether two looks saw one start; where one did not find the process, the count of restarts decides."""
    return run[0] == other[0] and (run[1] is None or other[1] is None or run[1] == other[1])
