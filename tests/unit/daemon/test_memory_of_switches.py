"""What a switch remembers of memory, and what it refuses for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llamarig.config.spec import Spec
from llamarig.daemon.memory import MemoryStore
from llamarig.daemon.state import State
from llamarig.daemon.switching import Switcher
from llamarig.errors import LlamarigError, SwitchError
from llamarig.runtime.breakdown import read_log
from llamarig.runtime.specs import SpecStore
from tests.support import make_spec
from tests.unit.daemon.conftest import ALPHA, BETA
from tests.unit.daemon.fakes import Fault, Host
from tests.unit.daemon.judged import parts, record
from tests.unit.runtime.test_breakdown import recorded

LOG = recorded("no_device")
TOO_LARGE = parts((100, 4000, 64))


@pytest.fixture
def logging(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The same host, whose engines log what they allocate."""
    monkeypatch.setattr(host.units, "log", lambda service, lines: [f"{service} says hello", *LOG][-lines:])
    return host


def measured(host: Host, spec: Spec) -> object:
    found = MemoryStore(host.root).read(spec).measured
    return found.parts if found else None


def judged_too_large(host: Host, spec: Spec) -> None:
    MemoryStore(host.root).write(record(spec, TOO_LARGE))


def test_a_switch_remembers_what_the_engine_allocated(logging: Host) -> None:
    logging.switcher.switch("alpha")
    assert measured(logging, ALPHA) == read_log(LOG)
    assert MemoryStore(logging.root).read(ALPHA).predicted is None
    assert measured(logging, BETA) is None


def test_going_back_remembers_it_too(logging: Host) -> None:
    logging.switcher.switch("alpha")
    MemoryStore(logging.root).prune([])
    logging.faults["beta"] = Fault.EXITS
    with pytest.raises(SwitchError):
        logging.switcher.switch("beta")
    assert measured(logging, ALPHA) == read_log(LOG)
    assert measured(logging, BETA) is None


def test_reconciling_measures_what_serves_and_was_never_measured(logging: Host) -> None:
    logging.switcher.switch("alpha")
    MemoryStore(logging.root).prune([])
    logging.switcher.reconcile(dry=True)
    assert measured(logging, ALPHA) is None
    logging.switcher.reconcile()
    assert measured(logging, ALPHA) == read_log(LOG)


@pytest.mark.parametrize("trouble", [OSError("no journal"), ValueError("what?"), RuntimeError("?")], ids=repr)
def test_no_switch_fails_for_a_log_that_cannot_be_read(
    host: Host, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    def log(_service: str, _lines: int) -> list[str]:
        raise trouble

    monkeypatch.setattr(host.units, "log", log)
    assert host.switcher.switch("alpha").active == "alpha"
    assert host.serving() == ["alpha"]


def test_no_switch_fails_for_a_record_that_cannot_be_written(logging: Host) -> None:
    (logging.root / "var/lib/llamarig/memory").write_bytes(b"a file where a directory should be")
    assert logging.switcher.switch("alpha").active == "alpha"


def test_what_the_engine_says_cannot_fit_is_refused_before_anything_stops(serving_alpha: Host) -> None:
    judged_too_large(serving_alpha, BETA)
    with pytest.raises(SwitchError) as caught:
        serving_alpha.switcher.switch("beta")
    assert caught.value.message == (
        "beta: host: the engine needs 4164 MiB, and the service may take 1024; nothing was touched"
    )
    assert "ctx_size" in caught.value.remedy
    assert caught.value.serving == "alpha"
    assert serving_alpha.units.changes == []
    assert serving_alpha.state.history()[-1]["outcome"] == "refused"
    with pytest.raises(SwitchError):
        serving_alpha.switcher.switch("beta", dry=True)


def test_what_serves_goes_on_and_what_served_comes_back_whatever_is_estimated(serving_alpha: Host) -> None:
    judged_too_large(serving_alpha, ALPHA)
    serving_alpha.switcher.reconcile()
    assert serving_alpha.units.changes == []
    serving_alpha.faults["beta"] = Fault.EXITS
    with pytest.raises(SwitchError) as caught:
        serving_alpha.switcher.switch("beta")
    assert caught.value.serving == "alpha"
    assert serving_alpha.serving() == ["alpha"]


def switcher_with(host: Host, judge: Callable[[Spec], None]) -> Switcher:
    return Switcher(
        specs=SpecStore(host.root),
        state=host.state,
        units=host.units,
        engine=host.engine,
        clock=host.clock,
        now=host.clock,
        sleep=host.clock.sleep,
        judge=judge,
    )


def test_the_engine_is_asked_while_nothing_runs_and_before_anything_starts(serving_alpha: Host) -> None:
    seen: list[tuple[str, list[str]]] = []
    outcome = switcher_with(
        serving_alpha, lambda spec: seen.append((spec.service, serving_alpha.units.running()))
    ).switch("beta")
    assert seen == [("beta", [])]
    assert list(outcome.phases)[:3] == ["stop", "judge", "start"]


def test_what_it_refuses_then_does_not_start_and_what_served_comes_back(serving_alpha: Host) -> None:
    def judge(spec: Spec) -> None:
        msg = f"{spec.service} needs more than there is"
        raise LlamarigError(msg)

    with pytest.raises(SwitchError, match="beta needs more than there is; alpha serves again"):
        switcher_with(serving_alpha, judge).switch("beta")
    assert serving_alpha.serving() == ["alpha"]
    assert "start beta" not in serving_alpha.units.changes
    assert serving_alpha.units.enabled() == ["alpha"]


def test_the_files_of_an_active_service_that_must_not_start_as_it_is_are_put_back(serving_alpha: Host) -> None:
    before = serving_alpha.files()
    serving_alpha.provision(make_spec("alpha", memory_mib=4096))
    assert serving_alpha.files() != before
    assert serving_alpha.switcher.withhold(["alpha", "beta"]) == "alpha"
    assert serving_alpha.files() == before
    assert serving_alpha.units.changes == []
    serving_alpha.units.reboot()
    assert serving_alpha.serving() == ["alpha"]


def test_other_services_and_unchanged_ones_keep_their_files(serving_alpha: Host) -> None:
    serving_alpha.provision(make_spec("beta", port=8090, memory_mib=4096))
    before = serving_alpha.files()
    assert serving_alpha.switcher.withhold(["beta"]) is None
    assert serving_alpha.switcher.withhold(["alpha"]) is None
    assert serving_alpha.files() == before


def test_where_nothing_is_active_or_known_nothing_is_put_back(host: Host, tmp_path: Path) -> None:
    assert host.root == tmp_path
    assert host.switcher.withhold(["alpha"]) is None
    host.state.write(State(active="gone"))
    assert host.switcher.withhold(["gone"]) is None
