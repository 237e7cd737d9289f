from __future__ import annotations

import pytest

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.job import LaterError
from llamarig.daemon.request import Kind, Origin
from llamarig.daemon.state import Serving
from llamarig.errors import CancelledError, NotFoundError, SwitchError
from llamarig.runtime.engine import Answer
from tests.support import below, make_spec
from tests.unit.daemon.conftest import ALPHA, BETA, GAMMA
from tests.unit.daemon.fakes import FakeReporter, Fault, Host, Unit


def failed_switch(host: Host, service: str = "beta") -> SwitchError:
    with pytest.raises(SwitchError) as error:
        host.switch(service)
    return error.value


def test_the_first_switch_serves(host: Host) -> None:
    outcome = host.switch("alpha")
    assert (outcome.active, outcome.left, outcome.changed) == (("alpha",), (), True)
    assert outcome.answer is not None
    assert outcome.answer.text.startswith("alpha answers")
    assert host.serving() == ["alpha"]
    assert host.state.read().active == (Serving("alpha", ALPHA.spec_sha256, host.clock.seconds),)


def test_the_new_container_is_made_while_the_old_engine_serves_and_begins_when_that_is_gone(
    serving_alpha: Host,
) -> None:
    outcome = serving_alpha.switch("beta")
    assert (outcome.active, outcome.left) == (("beta",), ("alpha",))
    steps = [
        "shut beta",
        "start beta",
        "close 8080",
        "shut alpha",
        "stop alpha",
        "admit beta",
        "open 8080 beta",
        "shut alpha",
        "start alpha",
    ]
    assert [effect for effect in serving_alpha.effects if effect != "write"] == steps
    assert serving_alpha.doubles == 0
    assert serving_alpha.serving() == ["beta"]
    assert serving_alpha.state.read().names == ("beta",)


def test_a_switch_tells_how_long_its_phases_took_and_is_recorded(serving_alpha: Host) -> None:
    outcome = serving_alpha.switch("beta")
    phases = ["validate", "prepare", "drain", "stop", "free", "start", "load", "completion", "placement", "commit"]
    assert list(outcome.phases) == phases
    assert serving_alpha.reporter.phases == phases
    event = serving_alpha.state.history()[-1]
    assert (event["kind"], event["service"], event["previous"], event["outcome"]) == ("switch", "beta", "alpha", "ok")
    assert event["time"] == serving_alpha.clock.seconds


def test_what_does_not_stand_in_the_way_goes_on(serving_alpha: Host) -> None:
    outcome = serving_alpha.switch("gamma")
    assert (outcome.active, outcome.left) == (("gamma", "alpha"), ())
    assert serving_alpha.serving() == ["alpha", "gamma"]
    assert serving_alpha.switch("beta").left == ("alpha",)
    assert serving_alpha.serving() == ["beta", "gamma"]


def test_a_switch_to_what_serves_already_touches_nothing(serving_alpha: Host) -> None:
    asked = list(serving_alpha.engine.asked)
    outcome = serving_alpha.switch("alpha")
    assert not outcome.changed
    assert serving_alpha.effects == []
    # It answered before: to ask it again would cost somebody the cache of a long conversation.
    assert serving_alpha.engine.asked == asked


def test_a_switch_to_the_active_service_that_hangs_starts_it_anew(serving_alpha: Host) -> None:
    first = serving_alpha.units.units["alpha"].pid
    serving_alpha.faults["alpha"] = Fault.HUNG
    stop = serving_alpha.units.stop

    def heal(service: str) -> None:
        serving_alpha.faults.clear()
        stop(service)

    serving_alpha.units.stop = heal  # type: ignore[method-assign]
    assert serving_alpha.switch("alpha").changed
    assert serving_alpha.serving() == ["alpha"]
    assert serving_alpha.units.units["alpha"].pid != first


def test_a_switch_to_the_active_service_that_crashed_starts_it_again(serving_alpha: Host) -> None:
    serving_alpha.units.crash("alpha")
    assert serving_alpha.switch("alpha").changed
    assert serving_alpha.serving() == ["alpha"]


def test_a_switch_to_an_unknown_service_is_refused(serving_alpha: Host) -> None:
    with pytest.raises(NotFoundError, match="no service 'delta'"):
        serving_alpha.switch("delta")
    assert serving_alpha.serving() == ["alpha"]


def test_requests_under_way_are_waited_for(serving_alpha: Host) -> None:
    serving_alpha.door.in_flight[8080] = 40
    outcome = serving_alpha.switch("beta")
    assert outcome.phases["drain"] > 0.5
    assert not any("cut" in text for text in serving_alpha.reporter.said)


def test_requests_that_the_door_does_not_count_are_waited_for_too(serving_alpha: Host) -> None:
    serving_alpha.engine.busy = 40
    assert serving_alpha.switch("beta").phases["drain"] > 0.5


def test_requests_are_cut_only_after_the_limit_of_their_service(serving_alpha: Host) -> None:
    serving_alpha.door.in_flight[8080] = 10**6
    outcome = serving_alpha.switch("beta")
    assert ALPHA.drain_seconds <= outcome.phases["drain"] < ALPHA.drain_seconds + 1
    assert any(f"requests are cut after {ALPHA.drain_seconds} s" in text for text in serving_alpha.reporter.said)


@pytest.mark.parametrize(
    ("fault", "reason", "touched"),
    [
        (Fault.REFUSED, "bad unit file", False),
        (Fault.NO_CONTAINER, "beta did not come up: its unit ended (activating, auto-restart, exit-code", False),
        (Fault.EXITS, "beta did not come up: its unit ended (activating, auto-restart, exit-code, status 1)", True),
        (Fault.NEVER_LOADS, "beta: it was not ready after 60 s", True),
        (Fault.GARBAGE, "beta loaded, but the server answers one token over and over", True),
        (Fault.HUNG, "beta loaded, but no completion within 120 s", True),
        (Fault.ON_CPU, "beta loaded, but holds no memory of rtx-4090: the model is on the CPU", True),
    ],
)
def test_a_failed_switch_ends_with_the_old_service(
    serving_alpha: Host, fault: Fault, reason: str, *, touched: bool
) -> None:
    before = serving_alpha.units.units["alpha"].pid
    serving_alpha.faults["beta"] = fault
    error = failed_switch(serving_alpha)
    assert reason in error.message
    assert error.message.endswith("alpha serves again" if touched else "alpha was not touched")
    assert (error.serving, error.log_lines) == ("alpha", ["beta says goodbye"])
    assert serving_alpha.serving() == ["alpha"]
    assert (serving_alpha.units.units["alpha"].pid == before) is not touched
    assert serving_alpha.state.read().names == ("alpha",)
    assert serving_alpha.state.read().switching is None
    assert serving_alpha.doubles == 0
    event = serving_alpha.state.history()[-1]
    assert (event["service"], event["outcome"], event["log_lines"]) == ("beta", "failed", ["beta says goodbye"])
    assert reason in event["reason"]


def test_a_failed_switch_beside_others_leaves_those_alone(serving_alpha: Host) -> None:
    serving_alpha.switch("gamma")
    pid = serving_alpha.units.units["gamma"].pid
    serving_alpha.faults["beta"] = Fault.EXITS
    assert failed_switch(serving_alpha).serving == "alpha"
    assert serving_alpha.serving() == ["alpha", "gamma"]
    assert serving_alpha.units.units["gamma"].pid == pid


def test_an_engine_that_cannot_be_ended_goes_on_serving(serving_alpha: Host) -> None:
    serving_alpha.faults["alpha"] = Fault.STAYS
    error = failed_switch(serving_alpha)
    assert "alpha did not end within 60 s" in error.message
    assert serving_alpha.doubles == 0


def test_one_that_fails_beside_others_says_that_they_went_on(serving_alpha: Host) -> None:
    serving_alpha.faults["gamma"] = Fault.GARBAGE
    with pytest.raises(SwitchError) as caught:
        serving_alpha.switch("gamma")
    assert caught.value.message.endswith("; alpha went on")
    assert (caught.value.serving, serving_alpha.serving()) == ("alpha", ["alpha"])


def test_a_first_service_that_fails_leaves_nothing_behind(host: Host) -> None:
    host.faults["beta"] = Fault.EXITS
    error = failed_switch(host)
    assert error.serving is None
    assert error.message.endswith("nothing else served")
    assert (host.serving(), host.units.running()) == ([], [])


def test_the_card_gets_its_memory_back_before_the_next_begins(host: Host) -> None:
    card = "GPU-00000000-0000-0000-0000-000000000001"
    host.provision(make_spec("alpha", gpus=[card]), make_spec("beta", gpus=[card]), default="alpha")
    host.switch("alpha")
    host.cards.held = 5
    assert host.switch("beta").phases["free"] > 0.5
    assert host.serving() == ["beta"]


def test_docker_restarted_under_a_switch_is_waited_for(serving_alpha: Host) -> None:
    def restart() -> None:
        serving_alpha.pass_time()
        unit = serving_alpha.units.units.get("beta")
        if unit is not None and unit.pid and serving_alpha.units.docker == 5.0:
            serving_alpha.units.crash("beta")
            serving_alpha.units.docker = 1007.0

    serving_alpha.faults["beta"] = Fault.NEVER_LOADS
    serving_alpha.clock.on_sleep = restart
    real = serving_alpha.units.start

    def start(service: str) -> None:
        if service == "beta" and serving_alpha.units.docker != 5.0:
            serving_alpha.faults.clear()
            serving_alpha.units.units.pop("beta", None)
        real(service)

    serving_alpha.units.start = start  # type: ignore[method-assign]
    assert serving_alpha.switch("beta").changed
    assert "Docker was restarted: starting beta again" in serving_alpha.reporter.said
    assert serving_alpha.serving() == ["beta"]


def test_docker_that_does_not_come_up_leaves_the_old_service(serving_alpha: Host) -> None:
    serving_alpha.units.docker = None
    error = failed_switch(serving_alpha)
    assert "Docker does not come up" in error.message
    assert serving_alpha.serving() == ["alpha"]


def test_a_disk_without_room_refuses_before_anything_is_touched(serving_alpha: Host) -> None:
    serving_alpha.state.full = True
    error = failed_switch(serving_alpha)
    assert "could not be written down" in error.message
    assert error.message.endswith("nothing was touched")
    assert serving_alpha.serving() == ["alpha"]


def test_a_disk_that_fills_up_during_a_switch_ends_with_the_old_service(serving_alpha: Host) -> None:
    complete = serving_alpha.engine.complete

    def fill(spec: Spec, prompt: str, tokens: int, timeout: float) -> Answer:
        serving_alpha.state.full = True
        return complete(spec, prompt, tokens, timeout)

    serving_alpha.engine.complete = fill  # type: ignore[method-assign]
    assert "No space left" in failed_switch(serving_alpha).message
    assert serving_alpha.serving() == ["alpha"]


@pytest.mark.parametrize("change", ["missing", "truncated"])
def test_a_model_file_that_is_not_whole_is_refused_before_anything_is_touched(serving_alpha: Host, change: str) -> None:
    place = below(serving_alpha.root, BETA.files[0].path)
    if change == "missing":
        place.unlink()
    else:
        place.write_bytes(b"GG")
    error = failed_switch(serving_alpha)
    assert BETA.files[0].path in error.message
    assert serving_alpha.effects == []
    assert serving_alpha.state.history()[-1]["outcome"] == "refused"


@pytest.mark.parametrize("at", ["prepare", "drain", "stop", "load", "completion"])
def test_a_cancelled_switch_ends_with_the_old_service(serving_alpha: Host, at: str) -> None:
    if at == "load":
        serving_alpha.faults["beta"] = Fault.NEVER_LOADS
    serving_alpha.door.in_flight[8080] = 3
    reporter = serving_alpha.reporter = FakeReporter()
    reporter.cancel = lambda: at in reporter.phases
    with pytest.raises(CancelledError) as error:
        serving_alpha.switch("beta")
    assert error.value.serving == "alpha"
    assert serving_alpha.serving() == ["alpha"]
    assert serving_alpha.state.history()[-1]["outcome"] == "cancelled"


def test_a_cancelled_switch_does_not_cancel_its_way_back(serving_alpha: Host) -> None:
    serving_alpha.faults["beta"] = Fault.NEVER_LOADS
    reporter = serving_alpha.reporter = FakeReporter()
    reporter.cancel = lambda: "load" in reporter.phases
    with pytest.raises(CancelledError, match="alpha serves again"):
        serving_alpha.switch("beta")


def test_a_pinned_service_is_not_made_to_leave(host: Host) -> None:
    host.provision(ALPHA, BETA, GAMMA, default="alpha")
    below(host.root, paths.HOST_FILE).write_text(
        '{"policy": {"default_service": "alpha", "services": {"alpha": {"pinned": true, "idle_seconds": null}}}}',
        encoding="utf-8",
    )
    host.switch("alpha")
    error = failed_switch(host)
    assert "alpha stops, which is pinned" in error.message
    assert host.serving() == ["alpha"]


def test_a_service_serves_its_minimum_first_unless_it_is_to_be_now(host: Host) -> None:
    below(host.root, paths.HOST_FILE).write_text(
        '{"policy": {"default_service": "alpha", "minimum_seconds": 90}}', encoding="utf-8"
    )
    host.switch("alpha")
    effects = list(host.effects)
    with pytest.raises(LaterError, match="alpha serves for its minimum first, 90 s more") as later:
        host.switch("beta")
    assert (later.value.seconds, later.value.services, host.effects) == (90.0, frozenset({"alpha"}), effects)
    with host.state.lock():  # nobody holds the host meanwhile
        pass
    host.clock.seconds += 89
    with pytest.raises(LaterError):
        host.switch("beta")
    assert host.switch("beta", now=True).active == ("beta",)
    host.clock.seconds += 90
    assert host.switch("alpha").active == ("alpha",)


def test_one_that_hangs_or_has_crashed_has_served_long_enough(host: Host) -> None:
    below(host.root, paths.HOST_FILE).write_text(
        '{"policy": {"default_service": "alpha", "minimum_seconds": 90}}', encoding="utf-8"
    )
    host.switch("alpha")
    host.faults["alpha"] = Fault.HUNG
    assert host.switch("beta").active == ("beta",)


def test_giving_up_ends_a_service_though_it_cannot_be_written_down(serving_alpha: Host) -> None:
    serving_alpha.state.full = True
    serving_alpha.perform(Kind.STOP, "alpha", origin=Origin.HEALTH, reason="it fell 3 times")
    assert serving_alpha.units.running() == []
    with pytest.raises(OSError, match="No space"):
        serving_alpha.perform(Kind.STOP, "alpha")


def test_one_that_is_to_be_mended_does_not_wait_for_another_that_loads(serving_alpha: Host) -> None:
    serving_alpha.switch("gamma")
    serving_alpha.units.end("gamma", Unit())
    serving_alpha.units.changes.clear()
    serving_alpha.perform(Kind.RECONCILE, "alpha", origin=Origin.HEALTH, reason="alpha hangs")
    assert [change for change in serving_alpha.units.changes if change.startswith("start")] == [
        "start alpha",
        "start gamma",
    ]


def test_a_clock_that_was_set_back_makes_nobody_wait(host: Host) -> None:
    below(host.root, paths.HOST_FILE).write_text(
        '{"policy": {"default_service": "alpha", "minimum_seconds": 90}}', encoding="utf-8"
    )
    host.switch("alpha")
    host.clock.seconds -= 86400
    assert "wait" not in host.switch("beta").phases


def test_leaving_says_what_a_switch_would_stop(serving_alpha: Host) -> None:
    assert serving_alpha.switcher.leaving("beta") == ["alpha"]
    assert serving_alpha.switcher.leaving("gamma") == []


def test_health_says_why_it_switches(serving_alpha: Host) -> None:
    serving_alpha.perform(Kind.SWITCH, "beta", origin=Origin.HEALTH, reason="alpha was given up")
    event = serving_alpha.state.history()[-1]
    assert (event["origin"], event["reason"]) == ("health", "alpha was given up")
