"""Whether an active service serves, and what to do where it does not: what was seen goes in, a verdict comes out.

Pure: no clock, no I/O. The supervisor looks every few seconds and hands over what it saw.

What can be told apart, and what cannot. llama-server says of each slot how many tokens it has taken in and put out
(``GET /slots``), and counts both when a batch is over. Version 0.7.0 answers that also in the middle of a batch, from
another thread, with figures that stand still; older ones answer when the batch is over. ``/health`` is answered by a
thread that knows nothing of either. So:

- a figure that moved, or no slot with work, is a sign of life: a server that gives one now and then is never hung,
  however slow it is;
- without one, an engine whose processes neither compute nor wait for a disk cannot be in the middle of anything: after
  ``hung_seconds`` it is hung (a deadlock, a stopped process);
- one that computes may be in a long batch, or turning in circles: nothing outside it can tell. Where tokens came out
  one after the other and the next one is far later than any before, it is hung after ``hung_seconds`` too, because a
  token is no long batch. Where it takes in a prompt, or does not answer at all, it gets ten times as long.

Requests that wait at the door are no sign of anything: they may be slow to arrive, or be no completions at all.

Whether a service that serves is proven is asked once for each start of its engine, with a completion of a few tokens:
by whoever switched, and by the supervisor after systemd started it anew. A proven server is never asked again, not even
to see whether it is hung: on a server with one slot, a completion throws away the cache of its user's conversation.

The door stays as it is meanwhile. It belongs to the switches, so that only one hand moves it; a server that is down or
loads answers 503 by itself, and one that comes back damaged is found by the proof within its bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from llamarig.config.policy import Policy
from llamarig.config.spec import Spec
from llamarig.daemon.sights import Fall, Health, Record, Sight, same_run
from llamarig.runtime.engine import Slot

# Seconds between two looks: while all is well, and while something is not; and how long a look waits for answers.
LOOK_SECONDS: Final = 5.0
SOON_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 2.0
# How long a completion may take that proves a service.
PROOF_SECONDS: Final = 120.0
# How often NVML is asked, how soon again where a card is missing, and how long an answer may take.
CARDS_SECONDS: Final = 30.0
CARDS_SOON_SECONDS: Final = 5.0
CARDS_ANSWER_SECONDS: Final = 10.0
# Time that nobody looked at does not count against a service: the machine may have slept.
_LONGEST_STEP: Final = 10.0
# An engine that computes may be in a long batch: a second of it counts as a tenth.
_AT_WORK: Final = 0.1
# A token is late beyond doubt after ten times what the slowest took so far, and twice the longest time between two
# looks that saw some; tokens must have been seen to come a few times.
_SLOWER: Final = 10.0
_LONGER: Final = 2.0
_STEPS: Final = 3
_LEAST_HUNG: Final = 10.0
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 60.0
# How long a door may be closed or silent before it is said: HAProxy is restarted in less.
_DOOR_SECONDS: Final = 10.0
_KILLED: Final = 137
_STATUS: Final = {
    1: "its engine ended with an error",
    134: "its engine aborted: an assertion, or a device that is gone",
    _KILLED: "its engine was killed",
    139: "its engine crashed: a segmentation fault",
    143: "somebody ended its engine",
}


class Action(StrEnum):
    """What is to be done.

    ``mend`` is for what stands around an engine that serves: reconcile, and start nothing anew.
    """

    NONE = "none"
    PROVE = "prove"
    RESTART = "restart"
    MEND = "mend"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a service comes to, why, and what is to be done."""

    health: Health
    reason: str = ""
    action: Action = Action.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a service may be how; in seconds.

    Attributes:
        hung_seconds: without a sign of life.
        crash_limit: falls within the window after which it is given up.
        crash_window_seconds: the window, in time that the service served: an hour of loading forgives nothing.
        load_seconds: until it is ready.

    """

    hung_seconds: float
    crash_limit: int
    crash_window_seconds: float
    load_seconds: float

    @classmethod
    def of(cls, policy: Policy, spec: Spec) -> Limits:
        """Return what policy and spec say; less than two looks is no time at all."""
        return cls(
            hung_seconds=max(_LEAST_HUNG, policy.hung_seconds),
            crash_limit=max(1, policy.crash_limit),
            crash_window_seconds=max(1, policy.crash_window_seconds),
            load_seconds=spec.load_timeout_seconds,
        )


@dataclass(frozen=True, slots=True)
class Bound:
    """Within how many seconds, at most, a fault is found and named; and what is done then."""

    fault: str
    seconds: float
    done: str


def bounds(limits: Limits) -> list[Bound]:
    """Return what follows from the settings: within what time each fault is found."""
    look = LOOK_SECONDS + PATIENCE_SECONDS
    hung = limits.hung_seconds + 2 * look
    proof = 2 * look + PROOF_SECONDS + CARDS_ANSWER_SECONDS
    # Two readings, each of which is asked for at a look and taken in at another.
    readings = CARDS_SECONDS + CARDS_SOON_SECONDS + 2 * CARDS_ANSWER_SECONDS + 4 * look
    return [
        Bound("the engine ends: a crash, a kill, out of memory", look, "systemd starts it anew after a pause"),
        Bound("the unit is stopped by hand, or ends and stays down", look, "started anew"),
        Bound("the engine is stuck and its process does nothing", hung, "started anew"),
        Bound("the engine is stuck between two tokens and computes", hung, "started anew"),
        Bound(
            "the engine takes in a prompt, or does not answer, and computes without end",
            limits.hung_seconds / _AT_WORK + 2 * look,
            "started anew",
        ),
        Bound("the engine does not become ready", limits.load_seconds + 2 * look, "started anew"),
        Bound("after a restart, damaged weights: counted from when it is ready", proof, "started anew"),
        Bound("after a restart, silently on the CPU: counted from when it is ready", proof, "started anew"),
        Bound("a card of the service is lost", readings + look, "given up, unless it goes on putting out tokens"),
        Bound(f"fall {limits.crash_limit} within the window", look, "given up; another service returns"),
    ]


def pause(attempts: int) -> float:
    """Return the seconds between a mending that was asked for so often and the next one."""
    return 0.0 if attempts == 0 else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempts - 1, 8))


def judge(record: Record, sight: Sight, limits: Limits) -> tuple[Record, Verdict]:
    """Take in a sight; return what is known then, and what it comes to.

    The record counts on it that what the verdict asks for is done. Where that cannot be, keep the record of before.
    """
    step = 0.0 if record.time is None else min(_LONGEST_STEP, max(0.0, sight.time - record.time))
    record = _with_ends(record, sight)
    record, step = _with_run(record, sight, step)
    record = _with_life(record, sight, limits, step)
    record = _with_others(record, sight, step)
    found = next((verdict for rule in _RULES if (verdict := rule(record, sight, limits))), None)
    return _decided(record, sight, limits, found or Verdict(Health.OK), step)


# ---- what is seen becomes what is known ----


def _with_ends(record: Record, sight: Sight) -> Record:
    """Count the times that the unit ended; those are no falls for which Docker is to blame."""
    if record.has_ended(sight.unit):
        if sight.docker is None or record.docker != sight.docker:
            record = replace(record, counted=True, why="Docker was restarted")
        else:
            why = _how_it_ended(record, sight)
            falls = (sight.ends - (record.ends or 0)) * (Fall(record.served, why),)
            record = replace(record, falls=(*record.falls, *falls), counted=True, why=why)
    return replace(record, docker=sight.docker, oom_kills=sight.oom_kills)


def _how_it_ended(record: Record, sight: Sight) -> str:
    unit = sight.unit
    more = sight.oom_kills is not None and record.oom_kills is not None and sight.oom_kills > record.oom_kills
    if unit.result == "oom-kill" or (more and unit.exit_status in {0, _KILLED}):
        text = "out of memory: the kernel killed its engine"
    elif unit.exit_status or unit.result != "success":
        said = _STATUS.get(unit.exit_status, "its engine ended")
        text = f"{said} (status {unit.exit_status}, {unit.result})"
    else:
        text = "its engine ended"
    return f"{text}; its last words: {sight.words}" if sight.words else text


def _with_run(record: Record, sight: Sight, step: float) -> tuple[Record, float]:
    """Tell which start of the engine this is, and whether it has been ready; no time passes for a new one."""
    is_first = record.ends is None
    record = replace(record, time=sight.time, ends=sight.ends)
    if sight.is_over:
        return replace(record, run=None, ready=False, proven=False), step
    run = (sight.unit.restarts, sight.process)
    if record.run is None or not same_run(record.run, run):
        step = 0.0
        record = replace(
            record,
            run=run,
            ready=False,
            proven=is_first and sight.proven_since,
            counted=False,
            loading=0.0,
            slots=None,
            quiet=0.0,
            stalled=0.0,
            late=0.0,
            steps=0,
        )
    elif sight.process is not None:
        record = replace(record, run=run)
    ready = record.ready or sight.health == Health.OK
    return replace(record, ready=ready, loading=record.loading + (0.0 if ready else step)), step


def _with_life(record: Record, sight: Sight, limits: Limits, step: float) -> Record:
    """Look for a sign of life, and count the time without one."""
    if not record.ready:
        return record
    if sight.slots is not None and (not sight.is_busy or sight.slots != record.slots):
        tokens = _tokens(record.slots or (), sight.slots)
        if tokens and sight.decodes:
            passed = record.quiet + step
            late = max(record.late, _SLOWER * passed / tokens, _LONGER * passed)
            record = replace(record, late=late, steps=record.steps + 1)
        return replace(record, slots=sight.slots, quiet=0.0, stalled=0.0)
    is_late = sight.decodes and record.steps >= _STEPS and record.late <= limits.hung_seconds
    weight = 1.0 if is_late or sight.works is False else _AT_WORK
    return replace(record, quiet=record.quiet + step, stalled=record.stalled + step * weight)


def _tokens(before: Sequence[Slot], after: Sequence[Slot]) -> int:
    """Return how many tokens the fastest slot has put out between two sights."""
    earlier = {slot.id: slot.decoded for slot in before}
    return max((slot.decoded - earlier.get(slot.id, slot.decoded) for slot in after if slot.busy), default=0)


def _with_others(record: Record, sight: Sight, step: float) -> Record:
    """Take in what others say: cards, a proof, the door."""
    if sight.lost is not None and sight.lost.time != record.lost_time:
        record = replace(record, lost=record.lost + 1 if sight.lost.cards else 0, lost_time=sight.lost.time)
    if sight.proof is not None and not sight.is_over:
        # No answer in time, and yet tokens: it serves others, and in their turn.
        serves_others = sight.proof.health is None and sight.is_busy and record.quiet == 0.0
        record = replace(record, proven=record.proven or serves_others or sight.proof.health is Health.OK)
    return replace(record, shut=0.0 if sight.door else record.shut + step)


# ---- what is known becomes a verdict: the first rule that finds something decides ----


def _card_is_gone(record: Record, sight: Sight, limits: Limits) -> Verdict | None:
    if sight.lost is None or not sight.lost.cards:
        return None
    # Of an engine that is down or loads, one reading is enough: it cannot come up without the card.
    if record.ready and record.lost < 2:  # noqa: PLR2004  readings
        return None
    text = f"lost: {', '.join(sight.lost.cards)}"
    if record.ready and sight.is_busy and record.stalled < limits.hung_seconds:
        return Verdict(Health.GPU_LOST, f"{text}; its engine goes on as yet")
    return Verdict(Health.GPU_LOST, text, Action.GIVE_UP)


def _unit_is_over(record: Record, sight: Sight, limits: Limits) -> Verdict | None:  # noqa: ARG001  one form of rules
    unit = sight.unit
    if unit.active == "deactivating":
        return Verdict(Health.FAILING, "its unit is ending")
    if not sight.is_over:
        return None
    why = record.why or _how_it_ended(record, sight)
    if unit.sub.startswith("auto-restart"):
        return Verdict(Health.FAILING, f"{why}; systemd starts it anew")
    if sight.docker is None:
        return Verdict(Health.DOWN, "Docker is not up: systemctl status docker")
    return Verdict(Health.DOWN, f"its unit is {unit.active}: {why}", Action.RESTART)


def _is_coming_up(record: Record, sight: Sight, limits: Limits) -> Verdict | None:
    if record.ready:
        return None
    if not sight.gate:
        return Verdict(Health.FAILING, "its unit is up and its gate is shut", Action.RESTART)
    if record.loading > limits.load_seconds:
        return Verdict(Health.FAILING, f"it was not ready after {record.loading:.0f} s", Action.RESTART)
    return Verdict(Health.LOADING, "its engine is loading")


def _is_stuck(record: Record, sight: Sight, limits: Limits) -> Verdict | None:
    if record.stalled < limits.hung_seconds:
        return None
    if sight.slots is not None:
        count = sum(slot.busy for slot in sight.slots)
        text = f"no token for {record.quiet:.0f} s with {count} of its slots at work"
    elif sight.health == Health.OK:
        text = f"its main loop has not answered for {record.quiet:.0f} s while /health says ok"
    else:
        text = f"it has answered nothing for {record.quiet:.0f} s"
    does = "does nothing" if sight.works is False else "computes"
    return Verdict(Health.HUNG, f"{text}; its process {does}", Action.RESTART)


def _is_unproven(record: Record, sight: Sight, limits: Limits) -> Verdict | None:  # noqa: ARG001
    if record.proven:
        return None
    if sight.proof is not None and sight.proof.health is not None:
        return Verdict(sight.proof.health, sight.proof.text, Action.RESTART)
    if sight.proof is not None and sight.slots is not None and not sight.is_busy:
        return Verdict(Health.FAILING, sight.proof.text, Action.RESTART)
    return Verdict(Health.LOADING, "it came back, and is asked for a completion", Action.PROVE)


def _is_cut_off(record: Record, sight: Sight, limits: Limits) -> Verdict | None:  # noqa: ARG001
    if record.shut < _DOOR_SECONDS:
        return None
    if sight.door is None:
        return Verdict(Health.FAILING, "it serves, but the door does not answer: systemctl status llamarig-door")
    return Verdict(Health.FAILING, "it serves, but its door is closed", Action.MEND)


_RULES: Final = (_card_is_gone, _unit_is_over, _is_coming_up, _is_stuck, _is_unproven, _is_cut_off)


def _decided(record: Record, sight: Sight, limits: Limits, verdict: Verdict, step: float) -> tuple[Record, Verdict]:
    """Pace a mending, count what led to it, and give up what fell too often, paced too."""
    if verdict.health is Health.OK:
        record = replace(record, served=record.served + step, attempts=0, counted=False, why="")
    mends = verdict.action in {Action.RESTART, Action.MEND}
    if mends and record.attempts and sight.time - record.asked < pause(record.attempts):
        verdict, mends = replace(verdict, action=Action.NONE), False
    if mends:
        if verdict.action is Action.RESTART and not record.counted:
            record = replace(record, falls=(*record.falls, Fall(record.served, verdict.reason)))
        why = record.why if verdict.health is Health.DOWN else verdict.reason
        record = replace(record, attempts=record.attempts + 1, asked=sight.time, counted=False, why=why)
    window = limits.crash_window_seconds
    record = replace(record, falls=tuple(fall for fall in record.falls if record.served - fall.served < window))
    if len(record.falls) >= limits.crash_limit and verdict.health is not Health.GPU_LOST:
        verdict = Verdict(Health.CRASH_LOOPING, _story(record.falls), Action.GIVE_UP)
    if verdict.action is not Action.GIVE_UP:
        return replace(record, give_ups=0), verdict
    # Where that fails, as on a full disk, it is asked for again, and not at every look.
    if record.give_ups and sight.time - record.gave_up < pause(record.give_ups):
        return record, replace(verdict, action=Action.NONE)
    return replace(record, give_ups=record.give_ups + 1, gave_up=sight.time), verdict


def _story(falls: Sequence[Fall]) -> str:
    """Say how often a service fell, and how the last time."""
    times = "once" if len(falls) == 1 else f"{len(falls)} times"
    return f"it fell {times}; the last time: {falls[-1].reason}"
