"""Each fault of a service, over time, on a host whose switches are the real ones."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamarig.config import paths
from llamarig.config.policy import Policy, Residency
from llamarig.daemon.health import Limits, bounds, judge
from llamarig.daemon.request import Kind, Origin
from llamarig.daemon.residency import comeback_pause
from llamarig.daemon.sights import Record, Sight
from llamarig.daemon.state import Switching
from llamarig.daemon.supervisor import Supervisor, View
from llamarig.errors import LlamarigError
from llamarig.hardware.gpus import CardFault
from llamarig.runtime.door import DoorError, Traffic
from tests.support import below, make_spec
from tests.unit.daemon.conftest import ALPHA, BETA, GAMMA, SMALL
from tests.unit.daemon.fakes import Fault, Host, Unit
from tests.unit.daemon.world import Engine, World
from tests.unit.hardware.recordings import ADA, BLACKWELL, reading

POLICY = Policy(
    default_service="alpha",
    services={"beta": Residency(idle_seconds=600), "gamma": Residency(pinned=True, idle_seconds=600)},
    hung_seconds=60,
    crash_limit=3,
    crash_window_seconds=600,
)
LIMITS = Limits.of(POLICY, ALPHA)


def adopt(host: Host, policy: Policy) -> None:
    """Write the host's file."""
    content = {"schema_version": 1, "default_service": policy.default_service, "policy": policy.to_dict()}
    below(host.root, paths.HOST_FILE).write_text(json.dumps(content), encoding="utf-8")


def bound(fault: str) -> float:
    return next(one.seconds for one in bounds(LIMITS) if one.fault.startswith(fault))


@pytest.fixture
def world(host: Host) -> World:
    """Alpha serves on a host that is watched."""
    adopt(host, POLICY)
    world = World(host)
    host.switch("alpha")
    world.steps(20)
    assert world.view() == View("ok", "", 0, 0, 15.0, "ok")
    assert world.done == []
    return world


def beta_serves(world: World) -> World:
    world.host.switch("beta")
    world.steps(20)
    assert world.serving() == ["beta"]
    return world


# ---- what is well is left alone ----


def test_a_service_that_rests_is_never_asked_for_a_token_and_nothing_is_told(world: World) -> None:
    before = list(world.engines.completions)
    world.steps(900)
    assert (world.engines.completions, world.events(), world.done) == (before, [], [])
    assert world.supervisor.look() == 5.0


@pytest.mark.parametrize(
    "engine",
    [
        Engine(busy=True, rate=0.05, computes=True),
        Engine(busy=True, rate=0.05),
        Engine(busy=True, prompt=20.0, computes=True),
        Engine(busy=True, rate=150.0),
    ],
)
def test_a_busy_server_is_never_killed(world: World, engine: Engine) -> None:
    pid = world.host.units.units["alpha"].pid
    world.engines.by_pid[pid] = engine
    world.steps(1800)
    assert (world.done, world.host.units.units["alpha"].pid) == ([], pid)


def test_a_batch_of_five_minutes_is_work(world: World) -> None:
    engine = world.engine("alpha")
    engine.busy = engine.computes = True
    world.steps(300)
    engine.prompt = 1.0
    world.steps(60)
    assert (world.done, world.events()) == ([], [])


# ---- faults: each is found in its time, named, and something is done ----


@pytest.mark.parametrize(
    ("change", "fault", "says"),
    [
        ({"silent": True}, "the engine is stuck and", "its main loop has not answered"),
        ({"mute": True}, "the engine is stuck and", "it has answered nothing"),
        ({"busy": True}, "the engine is stuck and", "no token for"),
        ({"busy": True, "computes": True}, "the engine takes in a prompt", "no token for"),
        ({"silent": True, "computes": True}, "the engine takes in a prompt", "its main loop has not answered"),
    ],
)
def test_a_hung_server_is_started_anew(world: World, change: dict[str, Any], fault: str, says: str) -> None:
    for name, value in change.items():
        setattr(world.engine("alpha"), name, value)
    world.until(lambda: bool(world.done), bound(fault))
    assert world.events() == [("alpha", "hung")]
    assert says in world.reasons()[0]
    (request,) = world.done
    assert (request.kind, request.service, request.origin) == (Kind.RECONCILE, "alpha", Origin.HEALTH)
    assert request.reason.startswith(f"alpha: {says}")
    assert world.serving() == ["alpha"]
    world.steps(10)
    view = world.view()
    assert view is not None
    assert (view.health, view.reason, view.restarts, view.in_flight) == ("ok", "", 0, 0)
    assert world.events() == [("alpha", "hung"), ("alpha", "ok")]
    assert world.supervisor.tally.sums().faults == {("alpha", "hung"): 1}


def test_a_token_that_does_not_come_is_found_though_the_engine_computes(world: World) -> None:
    engine = world.engine("alpha")
    engine.busy = engine.computes = True
    engine.rate = 40.0
    world.steps(60)
    engine.rate = 0.0
    world.until(lambda: bool(world.done), bound("the engine is stuck between two tokens"))
    assert world.serving() == ["alpha"]


def test_one_that_hangs_again_and_again_is_given_up_and_the_default_returns(world: World) -> None:
    beta_serves(world)
    for _ in range(2):
        world.engine("beta").silent = True
        world.until(lambda: bool(world.done), 100)
        world.done.clear()
        world.steps(10)
        assert world.serving() == ["beta"]
    world.engine("beta").silent = True
    world.until(lambda: world.serving() == ["alpha"], 100)
    given_up = world.host.state.read().given_up["beta"]
    assert given_up.reason.startswith("it fell 3 times; the last time: its main loop has not answered for")
    assert [request.kind for request in world.done] == [Kind.STOP, Kind.RECONCILE]
    assert ("beta", "crash-looping") in world.events()


def test_an_engine_killed_for_want_of_memory_is_named_and_returns(world: World) -> None:
    world.crash("alpha", 137, oom=True)
    world.until(lambda: bool(world.events()), bound("the engine ends"))
    view = world.view()
    assert view is not None
    assert (view.health, view.reason) == ("failing", world.reasons()[0])
    assert world.reasons()[0] == (
        "out of memory: the kernel killed its engine; its last words: alpha says goodbye; systemd starts it anew"
    )
    asked = len(world.engines.completions)
    world.until(lambda: world.events()[-1] == ("alpha", "ok"), 30)
    assert (world.serving(), world.engines.completions[asked:], world.done) == (["alpha"], ["alpha"], [])
    world.steps(600)
    assert len(world.engines.completions) == asked + 1


def test_a_crash_loop_ends_with_the_default_service_and_the_reason(world: World) -> None:
    beta_serves(world)
    for _ in range(3):
        world.until(lambda: (view := world.view("beta")) is not None and view.health == "ok", 60)
        world.crash("beta", 137, oom=True)
        world.step()
    world.until(lambda: world.serving() == ["alpha"], bound("fall 3"))
    reason = world.host.state.read().given_up["beta"].reason
    assert reason.startswith("it fell 3 times; the last time: out of memory: the kernel killed its engine")
    assert world.host.units.units["beta"].active == "inactive"
    assert world.events("stop")[-1] == ("beta", "ok")
    world.steps(900)
    assert world.serving() == ["alpha"]


def test_one_that_falls_now_and_then_is_never_given_up(world: World) -> None:
    for _ in range(5):
        world.crash("alpha")
        world.steps(400)
    assert (world.serving(), world.done) == (["alpha"], [])


def test_weights_that_were_damaged_meanwhile_are_found_when_systemd_starts_it_anew(world: World) -> None:
    beta_serves(world)
    world.engines.born["beta"] = lambda: Engine(garbage=True)
    world.crash("beta")
    world.until(lambda: ("beta", "garbage") in world.events(), bound("after a restart, damaged weights"))
    world.host.faults["beta"] = Fault.GARBAGE
    world.until(lambda: world.serving() == ["alpha"], 300)
    assert "one token over and over" in world.host.state.read().given_up["beta"].reason


def test_a_model_that_came_back_silently_on_the_cpu_is_found(host: Host) -> None:
    alpha = make_spec("alpha", port=8080, gpus=[ADA], memory=SMALL)
    host.provision(alpha, BETA, GAMMA, default="alpha")
    adopt(host, POLICY)
    world = World(host)
    world.reading = lambda: reading(world.card_processes("alpha"))
    host.switch("alpha")
    world.steps(30)
    world.engines.once("alpha", Engine(on_cpu=True))
    world.crash("alpha")
    world.until(lambda: ("alpha", "cpu-fallback") in world.events(), 20 + bound("after a restart, silently"))
    assert world.reasons()[-1] == f"it holds no memory of {ADA}: the model is silently on the CPU"
    world.until(lambda: world.serving() == ["alpha"], 60)


def test_a_lost_card_is_named_and_a_service_without_it_returns(host: Host) -> None:
    beta = make_spec("beta", port=8080, gpus=[ADA, BLACKWELL], memory=SMALL)
    host.provision(ALPHA, beta, GAMMA, default="alpha")
    adopt(host, POLICY)
    world = World(host)
    whole = reading()
    world.reading = lambda: whole
    host.switch("beta")
    world.steps(100)
    assert world.serving() == ["beta"]
    lost = CardFault(index=0, code=15)
    world.reading = lambda: type(whole)(driver_version="1", cards=whole.cards[1:], faults=(lost,))
    world.until(lambda: world.serving() == ["alpha"], bound("a card of the service"))
    assert world.host.state.read().given_up["beta"].reason == f"lost: card ({ADA})"
    assert ("beta", "gpu-lost") in world.events()


def test_one_that_loads_for_ever_after_a_restart_is_started_anew(world: World) -> None:
    world.engines.once("alpha", Engine(loads=True))
    world.crash("alpha")
    world.steps(20)
    world.until(lambda: bool(world.done), bound("the engine does not become ready"))
    assert world.serving() == ["alpha"]
    assert world.done[0].reason.startswith("alpha: it was not ready after")


def test_a_unit_that_somebody_stops_by_hand_is_started_anew(world: World) -> None:
    world.host.units.end("alpha", Unit())
    world.until(lambda: world.serving() == ["alpha"], bound("the unit is stopped"))
    assert world.events() == [("alpha", "down")]


def test_a_unit_that_cannot_be_started_is_given_up_and_tried_again_later_and_later(world: World) -> None:
    world.host.faults["alpha"] = Fault.REFUSED
    world.host.units.end("alpha", Unit())
    world.until(lambda: "alpha" in world.host.state.read().given_up, 60)
    world.step()
    assert world.view() is None
    world.done.clear()
    times: list[float] = []
    for _ in range(900):
        count = len(world.done)
        world.step()
        if len(world.done) > count:
            times.append(world.host.clock.seconds)
    pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
    wanted = [comeback_pause(attempts, given_up=True) for attempts in range(1, len(pauses) + 1)]
    assert all(wish <= pause <= wish + 5 for pause, wish in zip(pauses, wanted, strict=True))
    assert max(pauses) < 610
    assert {(request.kind, request.service, request.origin) for request in world.done[1:]} == {
        (Kind.SWITCH, "alpha", Origin.HEALTH)
    }
    del world.host.faults["alpha"]
    world.until(lambda: world.serving() == ["alpha"], 620)
    assert world.host.state.read().given_up == {}


def test_where_the_default_was_given_up_the_one_before_it_returns(world: World) -> None:
    beta_serves(world)
    world.host.switch("alpha")
    world.steps(20)
    world.host.faults["alpha"] = Fault.REFUSED
    world.host.units.end("alpha", Unit())
    world.until(lambda: world.serving() == ["beta"], 90)
    assert "alpha" in world.host.state.read().given_up


def test_a_service_that_was_stopped_on_purpose_stays_so(world: World) -> None:
    world.host.perform(Kind.STOP)
    world.steps(900)
    assert (world.done, world.supervisor.view()) == ([], {})


def test_docker_that_is_restarted_is_no_fault_of_the_service(world: World) -> None:
    world.host.units.docker = None
    world.host.units.end("alpha", Unit())
    world.steps(20)
    assert world.view() is not None
    assert world.events() == [("alpha", "down")]
    assert world.done == []
    world.host.units.docker = 77.0
    world.until(lambda: world.serving() == ["alpha"], 20)
    assert world.supervisor._records["alpha"].falls == ()


def test_a_door_that_is_closed_behind_its_back_is_opened_and_nothing_is_started_anew(world: World) -> None:
    pid = world.host.units.units["alpha"].pid
    world.host.door.close(8080)
    world.until(lambda: world.serving() == ["alpha"], 30)
    assert world.host.units.units["alpha"].pid == pid
    assert [(request.kind, request.service) for request in world.done] == [(Kind.RECONCILE, None)]


def test_a_door_that_does_not_answer_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(port: int) -> Traffic:
        raise DoorError(f"nobody answers for {port}", "")

    monkeypatch.setattr(world.host.door, "traffic", silent)
    world.steps(30)
    view = world.view()
    assert view is not None
    assert (view.health, view.in_flight) == ("failing", None)
    assert world.done == []


def test_two_services_in_trouble_are_mended_one_after_the_other(world: World) -> None:
    world.host.switch("gamma")
    world.steps(20)
    world.engine("alpha").silent = world.engine("gamma").silent = True
    world.until(lambda: len(world.done) == 2, 2 * LIMITS.hung_seconds)
    assert {request.service for request in world.done} == {"alpha", "gamma"}
    assert world.serving() == ["alpha", "gamma"]


# ---- who leaves when nobody asks ----


def test_an_idle_service_makes_room_for_the_default_one(world: World) -> None:
    beta_serves(world)
    took = world.until(lambda: world.serving() == ["alpha"], 620)
    assert took >= 560
    (request,) = world.done
    assert (request.kind, request.service, request.origin) == (Kind.SWITCH, "alpha", Origin.IDLE)
    world.steps(900)
    assert len(world.done) == 1


def test_a_service_that_is_asked_now_and_then_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    beta_serves(world)
    total = [0]
    monkeypatch.setattr(world.host.door, "traffic", lambda _: Traffic(0, total[0], 0))
    for _ in range(5):
        world.steps(500)
        total[0] += 1
    assert (world.serving(), world.done) == (["beta"], [])


def test_a_pinned_service_beside_it_stays(world: World) -> None:
    world.host.switch("gamma")
    world.steps(900)
    assert (world.serving(), world.done) == (["alpha", "gamma"], [])


# ---- whose word counts when ----


def look_on(world: World, looks: int) -> None:
    """Let time pass while a request is carried out."""
    for _ in range(looks):
        world._play()
        assert world.supervisor.look() == 2.0
        world.host.clock.sleep(5.0)
        world._go_on(5.0)
    assert world.asked == []


def test_while_a_request_is_carried_out_one_that_hangs_is_found_and_nothing_is_asked_for(world: World) -> None:
    world.busy = True
    world.engine("alpha").silent = True
    look_on(world, 100)
    view = world.view()
    assert view is not None
    assert (view.health, world.events()) == ("hung", [("alpha", "hung")])
    world.busy = False
    world.step()
    assert [(request.kind, request.service) for request in world.done] == [(Kind.RECONCILE, "alpha")]
    assert world.serving() == ["alpha"]


def test_what_a_request_changes_is_not_looked_at_meanwhile(world: World) -> None:
    state = world.host.state.read()
    world.busy = True
    world.host.state.write(replace(state, switching=Switching("beta", BETA.spec_sha256, ("alpha",), 0.0)))
    world.engine("alpha").silent = True
    look_on(world, 30)
    world.host.state.write(state)
    world.host.door.close(8080)
    look_on(world, 30)
    world.host.units.units["alpha"].active = "deactivating"
    look_on(world, 3)
    world.crash("alpha")
    look_on(world, 3)
    assert (world.events(), world.supervisor._records["alpha"].falls) == ([], ())


def test_a_service_that_loads_for_long_hides_none_that_hangs(world: World) -> None:
    """The request that waits for the one is over when it is ready; the other is mended at once then."""
    world.host.switch("gamma")
    world.steps(20)
    world.busy = True
    world.engine("gamma").loads = True
    world.engine("alpha").silent = True
    look_on(world, 20)
    assert world.events() == [("alpha", "hung")]


def at(clock: Callable[[], float], day: float) -> float:
    return clock() + day


def test_a_clock_that_is_set_by_a_day_changes_nothing(world: World) -> None:
    beta_serves(world)
    wall = world.host.clock
    supervisor = world.supervisor
    for day in (86_400.0, -86_400.0, -2 * 86_400.0):
        supervisor.now = supervisor.observer.now = partial(at, wall, day)
        pid = world.host.units.units["beta"].pid
        world.steps(120)
        assert (world.done, world.events(), world.host.units.units["beta"].pid) == ([], [], pid)
    world.engine("beta").silent = True
    world.until(lambda: bool(world.done), bound("the engine is stuck and"))
    assert world.done[0].service == "beta"


def test_what_was_seen_before_a_request_is_not_judged_after_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.host.units.end("alpha", Unit())
    look = world.supervisor.observer.look

    def slow(*arguments: Any) -> Any:
        seen = look(*arguments)
        world.host.switch("beta")  # somebody's request came and went meanwhile
        return seen

    monkeypatch.setattr(world.supervisor.observer, "look", slow)
    world.supervisor.look()
    assert world.asked == []


def test_a_switch_that_a_crash_of_the_daemon_cut_off_is_settled_and_asked_for_again_if_it_is_not(world: World) -> None:
    world.host.cut_after = len(world.host.effects) + 3
    with pytest.raises(BaseException):  # noqa: B017, PT011  the machine is gone
        world.host.switch("beta")
    world.host.cut_after = None
    assert world.host.state.read().switching is not None
    supervisor = world.started()
    for _ in range(3):
        assert supervisor.look() == 2.0
    assert [request.reason for request in world.asked] == ["a switch was found unfinished"]


def test_a_request_that_nobody_takes_is_asked_for_again(world: World) -> None:
    world.refuses = True
    world.host.units.end("alpha", Unit())
    world.steps(60)
    assert world.events() == [("alpha", "down")]
    world.refuses = False
    world.until(lambda: world.serving() == ["alpha"], 10)
    assert len(world.supervisor._records["alpha"].falls) == 1


def test_a_new_daemon_asks_a_service_that_was_proven_before_it_for_nothing(world: World) -> None:
    asked = len(world.engines.completions)
    world.supervisor = world.started()
    world.steps(60)
    assert (len(world.engines.completions), world.events()) == (asked, [])


def test_a_new_daemon_proves_what_systemd_started_while_there_was_none(world: World) -> None:
    world.crash("alpha")
    world._go_on(0)
    world.host.clock.sleep(6.0)
    world._go_on(0)
    (world.host.root / "proc").joinpath("uptime").write_text("0.50 0.1\n", encoding="ascii")  # began just now
    asked = len(world.engines.completions)
    world.supervisor = world.started()
    world.steps(60)
    assert len(world.engines.completions) == asked + 1
    assert world.serving() == ["alpha"]


# ---- the thread ----


def test_trouble_with_files_or_systemd_does_not_end_the_watch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    below(world.host.root, paths.HOST_FILE).write_text("{", encoding="ascii")
    world.steps(20)
    assert world.view() is not None

    def away(service: str) -> Any:
        raise LlamarigError(f"systemd says nothing of {service}", "")

    monkeypatch.setattr(world.host.units, "state", away)
    world.steps(20)
    view = world.view()
    assert view is not None
    assert view.health == "unknown"
    assert view.reason == "it cannot be looked at: its spec, systemd or its engine cannot be asked"
    monkeypatch.undo()
    world.steps(10)
    assert world.view() is not None


def test_a_full_disk_keeps_nobody_from_being_mended(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(event: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device", event["kind"])

    monkeypatch.setattr(world.host.state, "record", full)
    world.host.units.end("alpha", Unit())
    world.until(lambda: world.serving() == ["alpha"], 30)
    world.host.door.close(8080)
    monkeypatch.setattr(world, "perform", world.asked.clear)  # nobody opens it again
    world.steps(60)
    assert caplog.text.count("the history cannot be written") == 1
    monkeypatch.undo()
    world.step()
    assert world.events() == [("alpha", "failing")], "what is still so is told when there is room again"


def test_giving_up_that_fails_on_a_full_disk_is_asked_for_again_later_and_later(world: World) -> None:
    beta_serves(world)
    world.host.state.full = True
    for _ in range(3):
        world.until(lambda: (view := world.view("beta")) is not None and view.health == "ok", 60)
        world.crash("beta")
        world.step()
    times: list[float] = []
    for _ in range(150):
        count = len([request for request in world.done if request.kind is Kind.STOP])
        world.step()
        if len([request for request in world.done if request.kind is Kind.STOP]) > count:
            times.append(world.host.clock.seconds)
    pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert 2 < len(times) < 15
    assert pauses[-1] >= 55
    world.host.state.full = False
    world.until(lambda: world.serving() == ["alpha"], 70)
    assert "beta" in world.host.state.read().given_up


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ZeroDivisionError()])
def test_a_proof_that_cannot_be_asked_for_is_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    prove = world.supervisor.observer.prove
    fails = [error] * 3

    def proved(spec: Any) -> Any:
        if fails:
            raise fails.pop()
        return prove(spec)

    monkeypatch.setattr(world.supervisor.observer, "prove", proved)
    pid = world.host.units.units["alpha"].pid
    world.crash("alpha")
    world.until(lambda: world.events()[-1:] == [("alpha", "ok")], 60)
    assert (fails, world.done, world.serving()) == ([], [], ["alpha"])
    assert world.host.units.units["alpha"].pid != pid


def test_one_service_that_cannot_be_judged_keeps_no_other_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.host.switch("gamma")
    world.steps(20)

    def broken(record: Record, sight: Sight, limits: Limits) -> Any:
        if sight.unit.restarts == 7:
            raise KeyError("odd")
        return judge(record, sight, limits)

    world.host.units.units["gamma"].restarts = 7
    monkeypatch.setattr("llamarig.daemon.supervisor.judge", broken)
    world.engine("alpha").silent = True
    world.until(lambda: bool(world.done), bound("the engine is stuck and"))
    assert world.done[0].service == "alpha"


def test_a_spec_that_cannot_be_read_in_a_way_that_nobody_foresaw_hides_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.host.switch("gamma")
    world.steps(20)
    version = world.host.specs.version

    def odd(service: str, digest: str) -> Any:
        if service == "gamma":
            raise RecursionError
        return version(service, digest)

    monkeypatch.setattr(world.host.specs, "version", odd)
    world.supervisor.look()
    views = world.supervisor.view()
    assert (views["alpha"].health, views["gamma"].health) == ("ok", "unknown")


def test_a_thread_that_does_not_come_back_from_a_look_is_not_alive(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    supervisor = world.supervisor
    inside, go_on = threading.Event(), threading.Event()

    def busy() -> bool:
        inside.set()
        assert go_on.wait(20)
        return True

    monkeypatch.setattr(supervisor, "busy", busy)
    assert [supervisor.is_alive] == [False], "it has not begun"
    supervisor.start()
    assert inside.wait(20)
    assert [supervisor.is_alive] == [True]
    world.host.clock.sleep(301)
    assert [supervisor.is_alive] == [False]
    go_on.set()
    supervisor.close(20)


def test_the_thread_outlives_what_nobody_foresaw(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    looks = threading.Semaphore(0)
    supervisor = world.supervisor

    def look() -> float:
        looks.release()
        raise ZeroDivisionError

    monkeypatch.setattr(supervisor, "look", look)
    monkeypatch.setattr("llamarig.daemon.supervisor.LOOK_SECONDS", 0.001)
    supervisor.start()
    for _ in range(3):
        assert looks.acquire(timeout=20)
    supervisor.close(20)
    assert not supervisor._thread.is_alive()


def test_one_that_was_never_started_can_be_closed(world: World) -> None:
    supervisor: Supervisor = world.started()
    supervisor.close()
    assert supervisor.view() == {}


# ---- whatever happens ----

HAPPENS = st.lists(
    st.tuples(
        st.sampled_from(["crash", "oom", "hang", "mute", "end", "garbage", "well", "docker", "switch", "busy", "idle"]),
        st.integers(1, 40),
    ),
    max_size=8,
)


def play(world: World, what: str) -> None:
    """Something happens to whoever serves first."""
    first = world.host.state.read().first
    running = first is not None and world.engines.of(first) is not None
    if what == "switch":
        world.host.switch("beta" if first == "alpha" else "alpha", now=True)
    elif what == "busy":
        world.busy = not world.busy
    elif what == "docker":
        world.host.units.docker = None if world.host.units.docker else world.host.clock.seconds
    elif running and first is not None:
        changes: dict[str, Callable[[], object]] = {
            "crash": lambda: world.crash(first),
            "oom": lambda: world.crash(first, 137, oom=True),
            "end": lambda: world.host.units.end(first, Unit()),
            "hang": lambda: setattr(world.engine(first), "silent", True),
            "mute": lambda: setattr(world.engine(first), "mute", True),
            "garbage": lambda: setattr(world.engine(first), "garbage", True),
        }
        changes.get(what, lambda: None)()


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(happens=HAPPENS)
def test_whatever_happens_to_engines_somebody_serves_in_the_end(
    happens: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing is asked for while a request is carried out: the world asserts it."""
    root: Path = tmp_path_factory.mktemp("world")
    host = Host(root, ALPHA, BETA, GAMMA, default="alpha")
    adopt(host, POLICY)
    world = World(host)
    host.switch("alpha")
    for what, looks in happens:
        with contextlib.suppress(LlamarigError):
            play(world, what)
        for _ in range(looks):
            world.step()
    world.busy, host.units.docker = False, host.units.docker or 99.0
    damaged = [engine for engine in world.engines.by_pid.values() if engine.garbage]
    for engine in damaged:  # a proven server is not asked again: what it answers nobody can know
        engine.garbage = False
    world.until(lambda: bool(world.serving()), 1500)
    assert host.doubles == 0
