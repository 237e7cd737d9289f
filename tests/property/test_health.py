"""Whatever a service does over time: one that gets on is never hung, one that hangs is found in time."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llamarig.daemon.health import LOOK_SECONDS, PATIENCE_SECONDS, SOON_SECONDS, Action, Limits, bounds, judge
from llamarig.daemon.sights import Health, Lost, Proof, Record, Sight
from llamarig.runtime.engine import Slot
from llamarig.runtime.systemd import UnitState
from tests.unit.daemon.looking import IDLE, UP, Watch, restarted, waiting

LOOK = LOOK_SECONDS + PATIENCE_SECONDS
SLOTS = st.lists(st.tuples(st.booleans(), st.integers(0, 9000), st.integers(0, 9000)), min_size=1, max_size=4).map(
    lambda rows: tuple(Slot(number, *row) for number, row in enumerate(rows))
)
LIMITS = st.builds(
    Limits,
    hung_seconds=st.integers(10, 600),
    crash_limit=st.integers(1, 6),
    crash_window_seconds=st.integers(1, 3600),
    load_seconds=st.integers(1, 900),
)
STEPS = st.floats(SOON_SECONDS, LOOK)
UNITS = st.builds(
    UnitState,
    st.sampled_from(["active", "activating", "deactivating", "inactive", "failed", "unknown"]),
    st.sampled_from(["running", "start-pre", "auto-restart", "auto-restart-queued", "dead", "failed", "stop-post"]),
    st.sampled_from(["success", "exit-code", "signal", "oom-kill", "timeout"]),
    st.integers(0, 9),
    st.sampled_from([0, 1, 134, 137, 139, 255]),
)
SIGHTS = st.fixed_dictionaries(
    {
        "unit": UNITS,
        "docker": st.sampled_from([None, 1.0, 2.0]),
        "process": st.sampled_from([None, (1, 1.0), (2, 2.0)]),
        "proven_since": st.booleans(),
        "health": st.sampled_from(["ok", "loading", "down"]),
        "slots": st.none() | SLOTS,
        "works": st.sampled_from([None, True, False]),
        "gate": st.booleans(),
        "door": st.sampled_from([None, True, False]),
        "oom_kills": st.none() | st.integers(0, 3),
        "lost": st.none() | st.builds(Lost, st.integers(0, 9), st.sampled_from([(), ("rtx4090",)])),
        "proof": st.none() | st.builds(Proof, st.none() | st.sampled_from(Health), st.just("so")),
        "words": st.sampled_from(["", "the end"]),
    }
)


def ready(limits: Limits) -> Watch:
    """A service that serves and was proven."""
    watch = Watch(limits)
    assert watch.see().health is Health.OK
    return watch


def within(limits: Limits, fault: str) -> float:
    """The stated bound of a fault."""
    return next(bound.seconds for bound in bounds(limits) if bound.fault.startswith(fault))


@settings(max_examples=80)
@given(
    limits=LIMITS,
    looks=st.lists(st.tuples(STEPS, SLOTS, st.booleans(), st.sampled_from([None, True, False])), max_size=80),
)
def test_a_server_whose_figures_move_in_time_is_never_hung(
    limits: Limits, looks: list[tuple[float, tuple[Slot, ...], bool, bool | None]]
) -> None:
    watch = ready(limits)
    shown: tuple[Slot, ...] = IDLE
    still, token = 0.0, 0
    for step, slots, moves, works in looks:
        still += step
        # It may stand still for as long as it may, and not a look longer.
        if moves or still >= limits.hung_seconds - 0.001:
            token += 1
            shown = tuple(Slot(s.id, s.busy, s.prompt_tokens + token * 10_000, s.decoded) for s in slots)
            still = 0.0
        assert watch.see(step, slots=shown, works=works).health is Health.OK
    assert watch.actions == []


@settings(max_examples=80)
@given(limits=LIMITS, looks=st.lists(st.tuples(STEPS, st.booleans()), max_size=80), silent=st.booleans())
def test_one_that_computes_may_take_nine_times_as_long_over_a_prompt(
    limits: Limits, looks: list[tuple[float, bool]], silent: bool
) -> None:
    watch = ready(limits)
    prompt, still = 0, 0.0
    for step, moves in looks:
        still += step
        if moves or still >= 9 * limits.hung_seconds:
            prompt, still = prompt + 512, 0.0
        shown = (Slot(0, busy=True, prompt_tokens=prompt, decoded=0),)
        assert watch.see(step, slots=None if silent and still else shown, works=True).health is Health.OK


@settings(max_examples=80)
@given(
    limits=LIMITS,
    before=st.lists(st.tuples(STEPS, SLOTS, st.booleans()), max_size=20),
    steps=st.lists(STEPS, min_size=1, max_size=7),
    frozen=st.none() | SLOTS.filter(lambda slots: any(slot.busy for slot in slots)),
    works=st.sampled_from([None, True, False]),
    health=st.sampled_from(["ok", "down"]),
)
def test_one_that_hangs_is_found_within_its_bound(
    limits: Limits,
    before: list[tuple[float, tuple[Slot, ...], bool]],
    steps: list[float],
    frozen: tuple[Slot, ...] | None,
    works: bool | None,
    health: str,
) -> None:
    watch = ready(limits)
    for step, slots, busy in before:
        watch.see(step, slots=slots, works=busy)
    # The last look before it may already have seen what stands still from then on.
    watch.see(steps[0], slots=frozen, works=works, health=health)
    start, look = watch.time, 0
    fault = "the engine is stuck and" if works is False else "the engine takes in a prompt"
    while watch.verdicts[-1].health is not Health.HUNG and watch.verdicts[-1].action is not Action.GIVE_UP:
        look += 1
        watch.see(steps[look % len(steps)], slots=frozen, works=works, health=health)
        assert watch.time - start <= within(limits, fault)
    assert watch.verdicts[-1].action in {Action.RESTART, Action.GIVE_UP}
    assert watch.verdicts[-1].reason


@settings(max_examples=80)
@given(
    limits=LIMITS.filter(lambda limits: limits.hung_seconds >= 30),
    rate=st.integers(5, 500),
    steps=st.lists(STEPS, min_size=4, max_size=9),
)
def test_a_token_that_does_not_come_is_found_though_it_computes(limits: Limits, rate: int, steps: list[float]) -> None:
    watch = ready(limits)
    tokens = 0
    for step in [*steps, *steps]:
        tokens += max(1, int(rate * step))
        watch.see(step, slots=(Slot(0, busy=True, prompt_tokens=9, decoded=tokens),), works=True)
    start = watch.time
    while (
        watch.see(steps[0], slots=(Slot(0, busy=True, prompt_tokens=9, decoded=tokens),), works=True).health
        is Health.OK
    ):
        assert watch.time - start <= within(limits, "the engine is stuck between two tokens")
    assert watch.verdicts[-1].action in {Action.RESTART, Action.GIVE_UP}
    assert "no token for" in watch.verdicts[-1].reason


@settings(max_examples=80)
@given(
    limits=LIMITS,
    life=st.lists(st.integers(0, 1500), min_size=1, max_size=12),
    ends=st.sampled_from([1, 134, 137]),
)
def test_falls_count_within_the_window_and_older_ones_are_forgotten(limits: Limits, life: list[int], ends: int) -> None:
    """``life`` is how many seconds it serves before each fall."""
    watch = ready(limits)
    served = 0.0
    fell: list[float] = []
    for count, seconds in enumerate(life):
        for _ in range(seconds // 5):
            unit = restarted(count) if count else UP
            watch.see(5.0, unit=unit, process=(count, 1.0))
            served += 5.0
        verdict = watch.see(1.0, unit=waiting(ends, restarts=count))
        fell = [*(moment for moment in fell if served - moment < limits.crash_window_seconds), served]
        assert len(watch.record.falls) == len(fell)
        assert (verdict.action is Action.GIVE_UP) == (len(fell) >= limits.crash_limit)
        if verdict.action is Action.GIVE_UP:
            return
        proof = Proof(Health.OK)
        assert watch.see(0.0, unit=restarted(count + 1), process=(count + 1, 1.0), proof=proof).health is Health.OK


@settings(max_examples=80)
@given(limits=LIMITS, sights=st.lists(st.tuples(st.floats(-9, 99), SIGHTS), max_size=30))
def test_whatever_is_seen_has_a_verdict_with_a_reason(
    limits: Limits, sights: list[tuple[float, dict[str, Any]]]
) -> None:
    record, time = Record(), 1000.0
    for step, values in sights:
        time += step
        record, verdict = judge(record, Sight(time=time, **values), limits)
        assert verdict.reason or verdict.health is Health.OK
        assert verdict.health is not Health.OK or verdict.action is Action.NONE
        assert 0 <= record.stalled <= record.quiet + 0.001
        # A proven server that is well is never asked for a token.
        assert verdict.action is not Action.PROVE or not record.proven
