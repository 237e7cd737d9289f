from __future__ import annotations

import errno
import http.client
import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from llamarig.daemon import observer as module
from llamarig.daemon.observer import CannotAskError, Observer, Seen
from llamarig.daemon.sights import Health, Proof, Record, Sight
from llamarig.hardware.gpus import CardFault, Reading, explained
from llamarig.runtime.bus import BusError
from llamarig.runtime.door import DoorError, Traffic
from llamarig.runtime.engine import Answer, EngineError, GarbageError, Slot
from llamarig.runtime.systemd import UnitState
from tests.support import make_spec
from tests.unit.daemon.conftest import ALPHA, BETA, GAMMA
from tests.unit.daemon.fakes import Host
from tests.unit.hardware.recordings import ADA, BLACKWELL, reading

SECONDS = 20
READY = Record(ends=0, ready=True, proven=True, run=(0, None))
BUSY = [Slot(0, busy=True, prompt_tokens=5, decoded=7)]
ON_CARDS = make_spec("alpha", port=8080, gpus=[ADA, BLACKWELL])


def failing(text: str, cause: BaseException | None = None) -> EngineError:
    error = EngineError(text)
    error.__cause__ = cause
    return error


class Engine:
    """llama-server, whose answers a test gives by service; what is held back hangs until it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.healths: dict[str, str] = {}
        self.doing: dict[str, list[Slot] | EngineError] = {}
        self.answers: Answer | EngineError = Answer("hello", [1, 2, 3], 0.1, 50.0)
        self.held: dict[str, threading.Event] = {}

    def health(self, spec: Any) -> str:
        self._wait(f"health {spec.service}")
        return self.healths.get(spec.service, "ok")

    def slots(self, spec: Any, timeout: float) -> list[Slot]:
        assert timeout > 0
        self._wait(f"slots {spec.service}")
        found = self.doing.get(spec.service, [])
        if isinstance(found, EngineError):
            raise found
        return found

    def complete(self, spec: Any, prompt: str, tokens: int, timeout: float) -> Answer:
        self.asked.append(f"complete {spec.service} {len(prompt) > 0} {tokens} {timeout:.0f}")
        if isinstance(self.answers, EngineError):
            raise self.answers
        return self.answers

    def hold(self, what: str) -> threading.Event:
        self.held[what] = threading.Event()
        return self.held[what]

    def _wait(self, what: str) -> None:
        self.asked.append(what)
        if what in self.held:
            assert self.held[what].wait(SECONDS)


class Rig:
    """A host with three services that serve, and whoever looks at them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.engine = Engine()
        self.reads: Callable[[], Reading] = reading
        self.traffic: Traffic | DoorError = Traffic(0, 3, 40)
        self.specs = {"alpha": ALPHA, "gamma": GAMMA}
        self.records = {"alpha": READY, "gamma": READY}
        host.door.traffic = self._traffic  # type: ignore[method-assign]
        self.observer = Observer(
            units=host.units,
            engine=self.engine,
            engines=host.engines,
            door=host.door,
            gate=host.gate,
            specs=host.specs,
            cards=self._read,
            root=host.root,
            clock=host.clock,
            now=lambda: 1_000_000.0,
        )

    def look(self, seconds: float = 5.0) -> dict[str, Seen]:
        self.host.clock.seconds += seconds
        return self.observer.look(self.specs, self.records, dict.fromkeys(self.specs, 500.0))

    def sight(self, service: str = "alpha") -> Sight:
        return self.look()[service].sight

    def _read(self) -> Reading:
        return self.reads()

    def _traffic(self, port: int) -> Traffic:
        assert port in {8080, 8090}
        if isinstance(self.traffic, DoorError):
            raise self.traffic
        return self.traffic


@pytest.fixture
def rig(host: Host, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", float(SECONDS))
    host.switch("alpha")
    host.switch("gamma")
    return Rig(host)


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.5)


# ---- engines ----


def test_what_an_engine_does_is_seen_with_all_that_stands_around_it(rig: Rig) -> None:
    rig.engine.doing["alpha"] = BUSY
    seen = rig.look()["alpha"]
    assert seen.traffic == Traffic(0, 3, 40)
    assert seen.sight == Sight(
        time=rig.host.clock.seconds,
        unit=UnitState("active", "running"),
        docker=5.0,
        proven_since=True,
        health="ok",
        slots=tuple(BUSY),
        gate=True,
        door=True,
    )


def test_one_that_loads_is_asked_for_its_health_alone(rig: Rig) -> None:
    rig.records["alpha"] = Record()
    rig.engine.healths["alpha"] = "loading"
    assert (rig.sight().health, rig.sight().slots) == ("loading", None)
    assert "slots alpha" not in rig.engine.asked


def test_a_service_whose_unit_is_over_is_not_asked(rig: Rig) -> None:
    rig.host.units.crash("alpha")
    sight = rig.sight()
    assert (sight.is_over, sight.slots, sight.words) == (True, None, "alpha says goodbye")
    assert not any("alpha" in what for what in rig.engine.asked)


def test_one_engine_that_hangs_delays_no_look_at_another_and_is_asked_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.look()
    impatient(monkeypatch)
    end = rig.engine.hold("slots alpha")
    rig.engine.doing["gamma"] = BUSY
    for _ in range(5):
        seen = rig.look()
        assert (seen["alpha"].sight.health, seen["alpha"].sight.slots) == ("down", None)
        assert seen["gamma"].sight.slots is not None
    assert rig.engine.asked.count("slots alpha") == 2
    assert rig.engine.asked.count("slots gamma") == 6
    end.set()


def test_of_one_whose_main_loop_is_silent_it_is_remembered_that_health_says_ok(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.engine.doing["alpha"] = failing("no answer", TimeoutError())
    assert rig.sight().health == "ok"
    impatient(monkeypatch)
    end = rig.engine.hold("slots alpha")
    assert (rig.sight().health, rig.sight().slots) == ("ok", None)
    end.set()


def test_an_answer_that_comes_after_its_look_counts_in_the_next(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    rig.engine.doing["alpha"] = BUSY
    end = rig.engine.hold("slots alpha")
    assert rig.sight().slots is None
    end.set()
    assert rig.observer._asked["alpha"].errand.wait(SECONDS)
    rig.engine.hold("slots alpha")
    assert rig.sight().slots == tuple(BUSY)
    assert rig.sight().slots is None
    rig.engine.held["slots alpha"].set()


def test_an_answer_of_the_start_before_is_none_of_this_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    end = rig.engine.hold("slots alpha")
    rig.look()
    rig.host.units.units["alpha"].restarts = 1
    rig.records["alpha"] = Record()
    rig.engine.healths["alpha"] = "loading"
    monkeypatch.setattr(module, "PATIENCE_SECONDS", float(SECONDS))
    assert rig.sight().health == "loading"
    end.set()


@pytest.mark.parametrize("cause", [TimeoutError("timed out"), ConnectionResetError(), http.client.IncompleteRead(b"")])
def test_no_answer_is_silence(rig: Rig, cause: BaseException) -> None:
    rig.engine.doing["alpha"] = failing("the server does not say", cause)
    assert (rig.sight().health, rig.sight().slots) == ("ok", None)
    rig.engine.healths["alpha"] = "down"
    assert (rig.sight().health, rig.sight().slots) == ("down", None)


@pytest.mark.parametrize("cause", [None, PermissionError("the API key cannot be read")])
def test_an_answer_that_tells_nothing_is_no_silence(rig: Rig, cause: BaseException | None) -> None:
    rig.engine.doing["alpha"] = failing("the server does not say what it is doing (HTTP 501)", cause)
    assert (rig.sight().health, rig.sight().slots) == ("ok", ())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_an_engine_that_cannot_be_asked_for_want_of_a_socket_is_not_down(rig: Rig, number: int) -> None:
    rig.engine.doing["alpha"] = failing("the server does not say", OSError(number, "Too many open files"))
    rig.engine.healths["alpha"] = "down"  # nor can that be asked
    rig.engine.doing["gamma"] = BUSY
    seen = rig.look()
    assert list(seen) == ["gamma"]
    rig.engine.doing["alpha"] = BUSY
    assert rig.sight().slots == tuple(BUSY)


def test_one_that_loads_is_not_down_either_where_no_socket_can_be_opened(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    rig.records["alpha"] = Record()
    rig.engine.healths["alpha"] = "down"
    with monkeypatch.context() as patch:
        patch.setattr("llamarig.daemon.observer.socket.socket", none_left)
        assert "alpha" not in rig.look()
    assert rig.sight().health == "down"


def test_a_proof_for_which_no_socket_can_be_opened_is_none(rig: Rig) -> None:
    rig.engine.answers = failing("the server cut the connection", OSError(errno.EMFILE, "Too many open files"))
    with pytest.raises(CannotAskError):
        rig.observer.prove(ALPHA)


def test_an_engine_that_may_sleep_is_woken_by_requests_alone(rig: Rig) -> None:
    rig.specs["alpha"] = replace(ALPHA, argv=[*ALPHA.argv, "--sleep-idle-seconds", "60"])
    for _ in range(3):
        assert rig.sight().slots == ()
    assert "slots alpha" not in rig.engine.asked
    rig.traffic = Traffic(0, 4, 0)
    rig.look()
    assert rig.engine.asked.count("slots alpha") == 1
    rig.traffic = Traffic(1, 5, 0)
    rig.look()
    rig.look()
    assert rig.engine.asked.count("slots alpha") == 3
    rig.traffic = DoorError("the door does not answer", "")
    rig.look()
    assert rig.engine.asked.count("slots alpha") == 3


# ---- what stands around them ----


def test_a_door_that_does_not_answer_or_leads_elsewhere_is_seen(rig: Rig) -> None:
    rig.host.door.close(8080)
    assert rig.sight().door is False
    rig.traffic = DoorError("the door does not answer", "")
    seen = rig.look()["alpha"]
    assert (seen.sight.door, seen.traffic) == (None, None)


def test_a_systemd_that_does_not_answer_leaves_nothing_to_be_seen(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(service: str) -> UnitState:
        raise BusError(f"systemd says nothing of {service}", "")

    monkeypatch.setattr(rig.host.units, "state", silent)
    assert rig.look() == {}


def test_a_unit_of_which_systemd_says_nothing_hides_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    state = rig.host.units.state

    def odd(service: str) -> UnitState:
        if service == "alpha":
            raise BusError(f"systemd says nothing of {service}", "")
        return state(service)

    monkeypatch.setattr(rig.host.units, "state", odd)
    assert list(rig.look()) == ["gamma"]


def test_a_systemd_that_is_slow_to_say_nothing_is_not_asked_again_in_the_same_look(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def slow(service: str) -> UnitState:
        asked.append(service)
        raise BusError("systemd did not answer within 25 s", "")

    monkeypatch.setattr(rig.host.units, "state", slow)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", -1.0)
    assert rig.look() == {}
    assert len(asked) == 1


def test_a_door_that_hangs_is_waited_for_once_in_a_look(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def hangs(port: int) -> Traffic:
        asked.append(port)
        raise DoorError("the door does not answer: timed out", "")

    monkeypatch.setattr(rig.host.door, "traffic", hangs)
    assert [seen.traffic for seen in rig.look().values()] == [None, None]
    assert len(asked) == 1


def test_processes_and_gates_that_cannot_be_looked_at_hide_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    is_open, pids = rig.host.gate.is_open, rig.host.engines.pids

    def odd(service: str) -> bool:
        if service == "alpha":
            raise PermissionError(13, "Permission denied")
        return is_open(service)

    def none_left(service: str) -> list[int]:
        if service == "gamma":
            raise OSError(errno.EMFILE, "Too many open files")
        return pids(service)

    monkeypatch.setattr(rig.host.gate, "is_open", odd)
    rig.observer.processes._pids = none_left
    seen = rig.look()
    assert (list(seen), seen["gamma"].sight.works) == (["gamma"], None)


def test_a_journal_that_hangs_delays_no_look_and_is_asked_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, asked = threading.Event(), []

    def hangs(service: str, lines: int) -> list[str]:
        asked.append(service)
        assert go_on.wait(SECONDS)
        return [f"{service} says it at last, after {lines}"]

    monkeypatch.setattr(rig.host.units, "log", hangs)
    impatient(monkeypatch)
    rig.host.units.crash("alpha")
    for _ in range(3):
        sight = rig.sight()
        assert (sight.is_over, sight.words) == (True, "")
    assert asked == ["alpha"]
    go_on.set()
    assert rig.observer._journals["alpha"].wait(SECONDS)
    monkeypatch.undo()
    assert rig.sight().words == "alpha says goodbye", "what was said of an end before is none of this one"


@pytest.mark.parametrize("error", [OSError(2, "no journalctl"), BusError("no", "")])
def test_a_journal_that_cannot_be_asked_says_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> list[str]:
        raise error

    monkeypatch.setattr(rig.host.units, "log", fails)
    rig.host.units.crash("alpha")
    assert (rig.sight().is_over, rig.sight().words) == (True, "")


def test_one_that_was_proven_before_the_clock_was_set_back_is_proven_anew(rig: Rig) -> None:
    root = rig.host.root / "proc"
    pid = rig.host.units.units["alpha"].pid
    (root / str(pid)).mkdir(parents=True)
    (root / "uptime").write_text("10000.00 1.0\n", encoding="ascii")
    text = f"{pid} (llama-server) S {' '.join(['1'] * 10)} 0 0 0 0 20 0 9 0 0 1"
    (root / str(pid) / "stat").write_text(text, encoding="ascii")
    for since, is_proven in ((1_000_000.0, True), (1_000_030.0, True), (1_086_400.0, False)):
        seen = rig.observer.look(rig.specs, rig.records, dict.fromkeys(rig.specs, since))
        assert seen["alpha"].sight.proven_since is is_proven


def test_a_process_that_began_after_the_proof_was_not_proven(rig: Rig) -> None:
    root = rig.host.root / "proc"
    pid = rig.host.units.units["alpha"].pid
    (root / str(pid)).mkdir(parents=True)
    (root / "uptime").write_text("10000.00 1.0\n", encoding="ascii")
    for began, is_proven in ((600, False), (400, True)):
        ticks = (10_000 - (1_000_000 - began)) * 100
        text = f"{pid} (llama-server) S {' '.join(['1'] * 10)} 0 0 0 0 20 0 9 0 {ticks} 1"
        (root / str(pid) / "stat").write_text(text, encoding="ascii")
        assert rig.sight().proven_since is is_proven


def test_a_port_that_was_changed_is_known_at_once(rig: Rig) -> None:
    assert rig.observer.spec("alpha", "0" * 64) is None
    assert rig.observer.spec("alpha", ALPHA.spec_sha256) == ALPHA
    moved = replace(ALPHA, port=9000)
    rig.host.provision(moved, default="alpha")
    assert rig.observer.spec("alpha", ALPHA.spec_sha256) == moved


# ---- proofs ----


@pytest.mark.parametrize(
    ("error", "health"),
    [
        (GarbageError("the server answers one token over and over ('&'): the weights are damaged"), Health.GARBAGE),
        (GarbageError("the server answered a completion without a single token"), Health.GARBAGE),
        (failing("the server answered a completion with HTTP 500: Compute error."), Health.FAILING),
        (failing("the server cut the connection", ConnectionResetError()), Health.FAILING),
        (failing("no completion within 120 s", TimeoutError()), None),
        (failing("the server lets nobody in", BlockingIOError(11, "Resource temporarily unavailable")), None),
        (failing("the API key cannot be read", PermissionError()), Health.OK),
    ],
)
def test_a_completion_that_fails_is_told_by_how(rig: Rig, error: EngineError, health: Health | None) -> None:
    rig.engine.answers = error
    assert rig.observer.prove(ALPHA).health is health


def test_a_model_that_is_silently_on_the_cpu_is_found(rig: Rig) -> None:
    assert rig.observer.prove(ON_CARDS) == Proof(
        Health.CPU_FALLBACK, f"it holds no memory of {ADA}, {BLACKWELL}: the model is silently on the CPU"
    )
    rig.reads = lambda: reading({"processes": None}, {"processes": None})
    assert rig.observer.prove(ON_CARDS) == Proof(Health.OK)
    assert rig.observer.prove(ALPHA) == Proof(Health.OK)
    assert rig.engine.asked == ["complete alpha True 16 120"] * 3


# ---- cards ----


def lost(rig: Rig) -> tuple[str, ...] | None:
    """Which cards are lost by the reading that the last look asked for."""
    rig.look(31.0)
    errand = rig.observer._cards_asked
    assert errand is not None
    errand.wait(SECONDS)
    found = rig.sight().lost
    return None if found is None else found.cards


@pytest.fixture
def on_cards(rig: Rig) -> Rig:
    rig.specs["alpha"] = ON_CARDS
    return rig


def whole(*faults: CardFault, cards: int = 2) -> Reading:
    return replace(reading(), cards=reading().cards[2 - cards :], faults=faults)


@pytest.mark.parametrize(
    ("answer", "cards"),
    [
        (whole(), ()),
        (whole(cards=1), (f"card ({ADA})",)),
        (whole(CardFault(index=0, code=15), cards=1), (f"card ({ADA})",)),
        (whole(CardFault(index=0, code=15, uuid=ADA), cards=1), (f"card ({ADA})",)),
        (whole(CardFault(index=0, code=999, uuid=ADA), cards=1), ()),
        (whole(CardFault(index=0, code=999), cards=1), None),
    ],
)
def test_a_card_is_lost_where_nvml_says_so_and_not_where_it_says_something_else(
    on_cards: Rig, answer: Reading, cards: tuple[str, ...] | None
) -> None:
    on_cards.reads = lambda: answer
    assert lost(on_cards) == cards
    assert on_cards.sight("gamma").lost is None


@pytest.mark.parametrize("error", [explained(18), OSError(errno.EMFILE, "Too many open files"), KeyError("cards")])
def test_nvml_that_fails_as_a_whole_makes_no_card_lost(on_cards: Rig, error: Exception) -> None:
    def mismatch() -> Reading:
        raise error

    on_cards.reads = mismatch
    assert lost(on_cards) is None


def test_cards_are_read_now_and_then_and_soon_again_where_one_is_missing(on_cards: Rig) -> None:
    reads = []

    def count() -> Reading:
        reads.append(on_cards.host.clock.seconds)
        return whole(cards=2 if len(reads) < 4 else 1)

    on_cards.reads = count
    for _ in range(30):
        on_cards.look()
        if on_cards.observer._cards_asked is not None:
            on_cards.observer._cards_asked.wait(SECONDS)
    gaps = [later - sooner for sooner, later in itertools.pairwise(reads)]
    assert gaps[:4] == [35.0, 35.0, 35.0, 10.0]
    assert set(gaps[4:]) == {10.0}


def test_a_host_whose_services_have_no_cards_asks_none(rig: Rig) -> None:
    def never() -> Reading:
        raise AssertionError

    rig.reads = never
    for _ in range(20):
        rig.look()
    assert rig.observer._cards_asked is None


def test_a_card_that_is_gone_has_the_name_that_the_plan_gives_it(on_cards: Rig) -> None:
    assert BETA.gpus == []
    on_cards.reads = lambda: whole(cards=0)
    assert lost(on_cards) == (f"card ({ADA})", f"card ({BLACKWELL})")
