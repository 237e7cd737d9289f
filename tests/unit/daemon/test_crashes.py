"""The daemon is killed, or the power is cut, after every single effect of a request, and again while it settles."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from llamarig.runtime.gate import FileGate
from tests.support import make_spec
from tests.unit.daemon.conftest import ALPHA, BETA, GAMMA, SMALL
from tests.unit.daemon.fakes import Cut, Fault, Host

ALPHA2 = make_spec("alpha", port=8080, memory=SMALL, argv=["--model", "/models/alpha.gguf", "--ctx-size", "8192"])

Ask = Callable[[Host], object]


def switch(host: Host) -> object:
    return host.switch("beta")


def failing_switch(host: Host) -> object:
    host.faults["beta"] = Fault.EXITS
    return host.switch("beta")


def change(host: Host) -> object:
    host.provision(ALPHA2, BETA, default="alpha")
    return host.reconcile()


def failing_change(host: Host) -> object:
    host.faults[ALPHA2.spec_sha256] = Fault.GARBAGE
    return change(host)


def beside(host: Host) -> object:
    return host.switch("gamma")


ASKS = [switch, failing_switch, change, failing_change, beside]


def fresh(directory: Path) -> Host:
    host = Host(directory, ALPHA, BETA, GAMMA, default="alpha")
    host.switch("alpha")
    host.effects.clear()
    return host


def attempt(host: Host, ask: Ask, cut_after: int | None) -> bool:
    """Ask, and tell whether it was cut off."""
    host.cut_after = cut_after
    host.effects.clear()
    try:
        ask(host)
    except Cut:
        return True
    except Exception:  # noqa: BLE001  a request that fails is one of the ways it may end
        return False
    finally:
        host.cut_after = None
    return False


def settle(host: Host) -> object:
    return host.reconcile(adopt=False)


def serves(host: Host) -> None:
    """Clients get answers, from one engine for each port, and the daemon knows from which."""
    serving = host.serving()
    assert serving in (["alpha"], ["beta"], ["alpha", "gamma"])
    assert set(host.state.read().names) == set(serving)
    assert host.state.read().switching is None
    assert sorted(host.versions()) == serving
    assert host.doubles == 0
    for name in serving:
        assert host.state.read().serving(name).version == host.versions()[name]  # type: ignore[union-attr]


@pytest.mark.parametrize("power", [False, True], ids=["daemon", "power"])
@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.__name__)
def test_whenever_it_is_cut_off_the_old_or_the_new_serves(tmp_path: Path, ask: Ask, *, power: bool) -> None:
    for first in itertools.count(1):
        host = fresh(tmp_path / str(first))
        if not attempt(host, ask, first):
            break
        if power:
            host.reboot()
        settle(host)
        serves(host)
        told = [event["service"] for event in host.state.history() if event["outcome"] == "ok"]
        assert set(host.serving()) <= set(told), "the history knows how it came to be"
    assert first > 5


@pytest.mark.parametrize("power", [False, True], ids=["daemon", "power"])
@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.__name__)
def test_it_may_be_cut_off_again_while_it_settles(tmp_path: Path, ask: Ask, *, power: bool) -> None:
    for first in itertools.count(1):
        done = False
        for second in itertools.count(1):
            host = fresh(tmp_path / f"{first}-{second}")
            done = not attempt(host, ask, first)
            if done:
                break
            if power:
                host.reboot()
            again = attempt(host, settle, second)
            if power and again:
                host.reboot()
            settle(host)
            serves(host)
            if not again:
                break
        if done:
            break
    assert first > 5


def test_a_switch_that_had_come_to_its_end_is_not_undone(tmp_path: Path) -> None:
    host = fresh(tmp_path)
    attempt(host, switch, None)
    last = host.effects.index("open 8080 beta") + 1
    host = fresh(tmp_path / "again")
    assert attempt(host, switch, last)
    assert host.state.read().names == ("alpha",)
    settle(host)
    assert host.serving() == ["beta"]
    event = host.state.history()[-1]
    assert (event["service"], event["outcome"]) == ("beta", "ok")
    assert event["reason"] == "finished after the daemon was started again"


class Asleep(Host):
    """Containers wake at their gates when the bell rings, and not by an open gate alone."""

    rung = False

    def pass_time(self) -> None:
        if self.rung:
            super().pass_time()


def test_a_gate_whose_bell_never_rang_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that the container sleeps before an open gate for as long as a model may load."""
    host = Asleep(tmp_path, ALPHA, default="alpha")

    def kill(_gate: FileGate, _service: str) -> None:
        raise Cut

    def ring(_gate: FileGate, _service: str) -> None:
        host.rung = True

    monkeypatch.setattr(FileGate, "_ring", ring)
    host.switch("alpha")
    host.reboot()
    host.rung = False
    monkeypatch.setattr(FileGate, "_ring", kill)
    with pytest.raises(Cut):
        settle(host)
    monkeypatch.setattr(FileGate, "_ring", ring)
    host.units.changes.clear()
    settle(host)
    assert host.serving() == ["alpha"]
    assert host.units.changes == []
