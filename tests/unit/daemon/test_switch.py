from __future__ import annotations

import pytest

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.state import State
from llamarig.errors import BusyError, InterruptedSwitchError, NotFoundError, SwitchError
from llamarig.runtime.engine import Answer, EngineError
from tests.support import below, make_spec
from tests.unit.daemon.fakes import Fault, Host, PowerCut


def failed_switch(host: Host, service: str = "beta") -> SwitchError:
    try:
        host.switcher.switch(service)
    except SwitchError as error:
        return error
    except KeyboardInterrupt:  # would end the test run, not the test
        pytest.fail("the switch let Ctrl-C through")
    pytest.fail("the switch did not fail")


def test_the_first_switch_serves_and_starts_with_the_host(host: Host) -> None:
    outcome = host.switcher.switch("alpha")
    assert (outcome.active, outcome.previous, outcome.changed) == ("alpha", None, True)
    assert host.serving() == ["alpha"]
    assert host.units.enabled() == ["alpha"]
    assert host.state.read() == State("alpha")


def test_a_switch_stops_the_old_service_before_it_starts_the_new_one(serving_alpha: Host) -> None:
    outcome = serving_alpha.switcher.switch("beta")
    assert (outcome.active, outcome.previous) == ("beta", "alpha")
    assert outcome.answer is not None
    assert outcome.answer.text.startswith("beta answers")
    assert serving_alpha.units.changes[:2] == ["stop alpha", "start beta"]
    assert (serving_alpha.serving(), serving_alpha.units.enabled()) == (["beta"], ["beta"])
    assert serving_alpha.state.read() == State("beta")


def test_a_switch_tells_how_long_its_phases_took_and_is_recorded(serving_alpha: Host) -> None:
    outcome = serving_alpha.switcher.switch("beta")
    assert list(outcome.phases) == ["stop", "start", "load", "completion", "commit"]
    event = serving_alpha.state.history()[-1]
    assert (event["kind"], event["service"], event["previous"], event["outcome"]) == ("switch", "beta", "alpha", "ok")
    assert event["time"] == serving_alpha.clock.seconds


def test_a_switch_to_what_serves_already_touches_nothing(serving_alpha: Host) -> None:
    outcome = serving_alpha.switcher.switch("alpha")
    assert not outcome.changed
    assert serving_alpha.units.changes == []


def test_a_switch_to_the_active_service_that_crashed_starts_it_again(serving_alpha: Host) -> None:
    serving_alpha.units.crash("alpha")
    assert serving_alpha.switcher.switch("alpha").changed
    assert serving_alpha.serving() == ["alpha"]


def test_a_switch_to_an_unknown_service_is_refused(serving_alpha: Host) -> None:
    with pytest.raises(NotFoundError, match="no service 'gamma'"):
        serving_alpha.switcher.switch("gamma")
    assert serving_alpha.serving() == ["alpha"]


def test_a_switch_during_another_is_refused(serving_alpha: Host) -> None:
    with serving_alpha.state.lock(), pytest.raises(BusyError):
        serving_alpha.switcher.switch("beta")
    assert serving_alpha.units.changes == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.REFUSED, "bad unit file"),
        (Fault.EXITS, "beta did not start: its unit is failed (failed, exit-code)"),
        (Fault.NEVER_LOADS, "beta was not ready after 60 s (health: loading)"),
        (Fault.GARBAGE, "beta loaded, but the server answers one token over and over"),
    ],
)
def test_a_failed_switch_ends_with_the_old_service(serving_alpha: Host, fault: Fault, reason: str) -> None:
    serving_alpha.faults["beta"] = fault
    error = failed_switch(serving_alpha)
    assert reason in error.message
    assert error.message.endswith("alpha serves again")
    assert (error.serving, error.log_lines) == ("alpha", ["beta says goodbye"])
    assert (serving_alpha.serving(), serving_alpha.units.enabled()) == (["alpha"], ["alpha"])
    assert serving_alpha.state.read() == State("alpha")
    event = serving_alpha.state.history()[-1]
    assert (event["service"], event["outcome"], event["log_lines"]) == ("beta", "failed", ["beta says goodbye"])
    assert reason in event["reason"]


def test_ctrl_c_goes_back_to_the_old_service(serving_alpha: Host) -> None:
    serving_alpha.faults["beta"] = Fault.CTRL_C
    error = failed_switch(serving_alpha)
    assert isinstance(error, InterruptedSwitchError)
    assert error.message == "interrupted by Ctrl-C; alpha serves again"
    assert error.serving == "alpha"
    assert (serving_alpha.serving(), serving_alpha.units.enabled()) == (["alpha"], ["alpha"])
    assert serving_alpha.state.read() == State("alpha")
    assert serving_alpha.state.history()[-1]["reason"] == "interrupted by Ctrl-C"


def test_until_the_commit_the_old_service_is_the_one_that_starts_with_the_host(serving_alpha: Host) -> None:
    seen: list[tuple[list[str], State]] = []
    serving_alpha.faults["beta"] = Fault.NEVER_LOADS
    serving_alpha.clock.on_sleep = lambda: seen.append((serving_alpha.units.enabled(), serving_alpha.state.read()))
    failed_switch(serving_alpha)
    assert seen[0] == (["alpha"], State("alpha", "beta"))
    assert seen.count(seen[0]) == len(seen)


def test_waiting_for_a_model_says_how_it_goes(serving_alpha: Host) -> None:
    serving_alpha.faults["beta"] = Fault.NEVER_LOADS
    failed_switch(serving_alpha)
    assert "beta is loading, 5 s" in serving_alpha.said


def test_a_failed_first_switch_says_that_nothing_serves(host: Host) -> None:
    host.faults["beta"] = Fault.EXITS
    error = failed_switch(host)
    assert error.serving is None
    assert "nothing served before" in error.message
    assert (host.units.running(), host.units.enabled(), host.state.read()) == ([], [], State())


def test_when_the_old_service_fails_too_the_error_says_that_nothing_serves(serving_alpha: Host) -> None:
    serving_alpha.faults |= {"beta": Fault.EXITS, "alpha": Fault.EXITS}
    error = failed_switch(serving_alpha)
    assert error.serving is None
    assert "alpha could not be brought back either" in error.message
    assert serving_alpha.state.read() == State("alpha")
    assert serving_alpha.units.enabled() == ["alpha"]


def test_a_missing_model_file_is_refused_before_anything_is_stopped(serving_alpha: Host) -> None:
    below(serving_alpha.root, "/srv/llamarig/models/beta.gguf").unlink()
    error = failed_switch(serving_alpha)
    assert "model file /srv/llamarig/models/beta.gguf is missing; nothing was touched" in error.message
    assert error.serving == "alpha"
    assert serving_alpha.units.changes == []
    assert serving_alpha.state.history()[-1]["outcome"] == "refused"


def test_a_cut_model_file_is_refused_before_anything_is_stopped(serving_alpha: Host) -> None:
    below(serving_alpha.root, "/srv/llamarig/models/beta.gguf").write_bytes(b"GG")
    assert "has 2 bytes, its profile says" in failed_switch(serving_alpha).message
    assert serving_alpha.units.changes == []


def test_an_unfinished_switch_is_recorded_as_interrupted_and_the_next_goes_on(serving_alpha: Host) -> None:
    serving_alpha.state.write(State("alpha", "beta"))
    serving_alpha.switcher.switch("beta")
    events = [(event["service"], event["outcome"]) for event in serving_alpha.state.history()]
    assert events == [("alpha", "ok"), ("beta", "interrupted"), ("beta", "ok")]
    assert serving_alpha.state.read() == State("beta")


def test_ctrl_c_typed_again_while_going_back_does_not_leave_the_host_without_service(serving_alpha: Host) -> None:
    serving_alpha.faults["beta"] = Fault.CTRL_C
    start = serving_alpha.units.start
    typed: list[str] = []

    def impatient_start(service: str) -> None:
        start(service)
        if service == "alpha" and not typed:
            typed.append("^C")
            raise KeyboardInterrupt

    serving_alpha.units.start = impatient_start  # type: ignore[method-assign]
    failed_switch(serving_alpha)
    assert typed == ["^C"]
    assert serving_alpha.serving() == ["alpha"]


def test_an_error_of_the_operating_system_goes_back_like_any_other(serving_alpha: Host) -> None:
    start = serving_alpha.units.start

    def broken_start(service: str) -> None:
        if service == "beta":
            raise OSError("no space left on device")
        start(service)

    serving_alpha.units.start = broken_start  # type: ignore[method-assign]
    assert "no space left on device" in failed_switch(serving_alpha).message
    assert serving_alpha.serving() == ["alpha"]


@pytest.mark.parametrize(("old", "new"), [("alpha", "beta"), ("beta", "alpha")])
def test_a_power_cut_at_any_point_leaves_a_service_that_starts_with_the_host(host: Host, old: str, new: str) -> None:
    host.switcher.switch(old)
    for cut_after in range(20):
        host.units.changes.clear()
        host.units.cut_after = cut_after
        try:
            host.switcher.switch(new)
        except PowerCut:
            host.units.cut_after = None
            host.units.reboot()
            assert host.serving(), f"nothing serves after a power cut after: {host.units.changes}"
            host.switcher.switch(old)
        else:
            assert host.serving() == [new]
            return
    pytest.fail("the switch never came to its end")


def test_a_service_whose_spec_moved_to_another_port_is_not_taken_for_serving(serving_alpha: Host) -> None:
    serving_alpha.provision(make_spec("alpha", port=8100))
    assert serving_alpha.switcher.switch("alpha").changed
    assert serving_alpha.serving() == ["alpha"]


def test_another_program_that_answers_on_the_port_is_not_taken_for_the_service(serving_alpha: Host) -> None:
    left_behind = below(serving_alpha.root, f"{paths.RUNNING}/alpha.json")
    content = left_behind.read_bytes()
    serving_alpha.units.crash("alpha")
    left_behind.write_bytes(content)
    serving_alpha.engine.health = lambda spec: "ok"  # type: ignore[method-assign]  # noqa: ARG005  the protocol's name
    assert serving_alpha.switcher.switch("alpha").changed
    assert serving_alpha.units.running() == ["alpha"]


def test_what_serves_is_kept_for_going_back(serving_alpha: Host) -> None:
    kept = serving_alpha.state.kept("alpha")
    assert kept["spec.json"] == below(serving_alpha.root, f"{paths.SPECS}/alpha.json").read_bytes()
    assert kept["compose.yaml"] == below(serving_alpha.root, f"{paths.COMPOSE}/alpha/compose.yaml").read_bytes()


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), OSError("no space left on device")], ids=repr)
@pytest.mark.parametrize(("old", "new"), [("alpha", "beta"), ("beta", "alpha")])
def test_trouble_at_any_point_leaves_what_serves_as_what_starts_with_the_host(
    host: Host, old: str, new: str, trouble: BaseException
) -> None:
    host.switcher.switch(old)
    for number in range(20):
        host.units.changes.clear()
        host.units.trouble = (number, trouble)
        try:
            host.switcher.switch(new)
        except SwitchError:
            serving = host.serving()
            assert len(serving) == 1
            assert (host.units.enabled(), [host.state.read().active]) == (serving, serving), host.units.changes
            host.units.trouble = None
            host.switcher.switch(old)
        except KeyboardInterrupt:  # would end the test run, not the test
            pytest.fail(f"the switch let Ctrl-C through after: {host.units.changes}")
        else:
            assert host.serving() == [new]
            return
    pytest.fail("the switch never came to its end")


def test_a_stranger_on_the_port_is_found_before_anything_is_asked_of_it(serving_alpha: Host) -> None:
    beta = next(spec for spec in serving_alpha.switcher.specs.all() if spec.service == "beta")
    serving_alpha.engine.taken_ports.add(beta.port)
    error = failed_switch(serving_alpha)
    assert f"port {beta.port} is held by another program" in error.message
    assert serving_alpha.serving() == ["alpha"]
    assert "start beta" not in serving_alpha.units.changes


def test_any_error_at_all_goes_back(serving_alpha: Host) -> None:
    def broken(*_: object) -> Answer:
        raise RecursionError

    complete = serving_alpha.engine.complete
    serving_alpha.engine.complete = lambda spec, *rest: (  # type: ignore[method-assign]
        broken() if spec.service == "beta" else complete(spec, *rest)
    )
    assert "RecursionError" in failed_switch(serving_alpha).message
    assert serving_alpha.serving() == ["alpha"]


def test_switching_to_an_active_service_that_is_deadlocked_starts_it_anew(serving_alpha: Host) -> None:
    complete = serving_alpha.engine.complete
    asked: list[str] = []

    def deadlocked_once(spec: Spec, prompt: str, tokens: int, timeout: float) -> Answer:
        asked.append(spec.service)
        if len(asked) == 1:
            raise EngineError("no completion although health is ok")
        return complete(spec, prompt, tokens, timeout)

    serving_alpha.engine.complete = deadlocked_once  # type: ignore[method-assign]
    outcome = serving_alpha.switcher.switch("alpha")
    assert outcome.changed
    assert "stop alpha" in serving_alpha.units.changes


def test_a_trial_of_an_engine_gives_way_before_anything_stops(
    serving_alpha: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes memory that the new service may need."""
    seen: list[list[str]] = []

    def end_trial(root: object) -> bool:
        assert root == serving_alpha.root
        seen.append(list(serving_alpha.units.changes))
        return True

    monkeypatch.setattr("llamarig.daemon.switching.end_trial", end_trial)
    serving_alpha.switcher.switch("beta")
    assert seen == [[]]
    assert any("the trial of an engine was ended" in text for text in serving_alpha.said)
