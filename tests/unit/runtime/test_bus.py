from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from jeepney import HeaderFields

from llamarig.errors import ExitCode, LlamarigError, NotAllowedError, NotFoundError
from llamarig.runtime.bus import BusError, BusUnits, unit_path
from llamarig.runtime.systemd import Units, UnitState
from tests.unit.runtime.fake_bus import FakeBus, fake_bus

CHAT = "/org/freedesktop/systemd1/unit/llama_2dchat_2eservice"
DOCKER = "/org/freedesktop/systemd1/unit/docker_2eservice"


@pytest.fixture
def bus() -> Iterator[FakeBus]:
    with fake_bus() as bus:
        yield bus


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def units(bus: FakeBus, pauses: list[float]) -> BusUnits:
    return BusUnits(bus.root, sleep=pauses.append)


def chat(bus: FakeBus, active: str = "active", sub: str = "running") -> None:
    bus.properties |= {
        (CHAT, "ActiveState"): ("s", active),
        (CHAT, "SubState"): ("s", sub),
        (CHAT, "Result"): ("s", "success"),
        (CHAT, "NRestarts"): ("u", 3),
        (CHAT, "ExecMainStatus"): ("i", 137),
    }


def test_it_is_what_switching_needs(units: BusUnits) -> None:
    needed: Units = units
    assert needed is units


@pytest.mark.parametrize(
    ("unit", "path"),
    [
        ("docker.service", "docker_2eservice"),
        ("llama-a_b.service", "llama_2da_5fb_2eservice"),
        ("8.service", "_38_2eservice"),
        ("llama-ä.service", "llama_2d_c3_a4_2eservice"),
    ],
)
def test_units_have_the_objects_that_systemd_gives_them(unit: str, path: str) -> None:
    assert unit_path(unit) == f"/org/freedesktop/systemd1/unit/{path}"


def test_the_state_of_a_unit_is_read_in_one_go(bus: FakeBus, units: BusUnits) -> None:
    chat(bus)
    assert units.state("chat") == UnitState("active", "running", "success", 3, 137)
    assert [body for _, body in bus.calls] == [
        ("org.freedesktop.systemd1.Unit", "ActiveState"),
        ("org.freedesktop.systemd1.Unit", "SubState"),
        ("org.freedesktop.systemd1.Service", "Result"),
        ("org.freedesktop.systemd1.Service", "NRestarts"),
        ("org.freedesktop.systemd1.Service", "ExecMainStatus"),
    ]


def test_a_unit_is_started_and_stopped_without_asking_anybody(bus: FakeBus, units: BusUnits) -> None:
    units.start("chat")
    units.stop("chat")
    assert bus.calls == [
        ("StartUnit", ("llama-chat.service", "replace")),
        ("StopUnit", ("llama-chat.service", "replace")),
    ]
    for message in bus.messages:
        assert message.header.flags == 0, "no flag allows interactive authorisation"
        assert message.header.fields[HeaderFields.destination] == "org.freedesktop.systemd1"
        assert message.header.fields[HeaderFields.path] == "/org/freedesktop/systemd1"


def test_the_units_that_are_up_are_listed_by_service(bus: FakeBus, units: BusUnits) -> None:
    bus.units = ["llama-chat.service", "llama-a-b.service"]
    assert units.running() == ["chat", "a-b"]
    assert bus.calls == [("ListUnitsByPatterns", (["active", "activating"], ["llama-*.service"]))]


@pytest.mark.parametrize(("active", "since"), [("active", 12.5), ("failed", None), ("activating", None)])
def test_docker_is_up_since_it_became_active(bus: FakeBus, units: BusUnits, active: str, since: float | None) -> None:
    bus.properties |= {
        (DOCKER, "ActiveState"): ("s", active),
        (DOCKER, "ActiveEnterTimestampMonotonic"): ("t", 12_500_000),
    }
    assert units.docker_since() == since


@pytest.mark.parametrize("verb", ["start", "stop"])
@pytest.mark.parametrize("name", ["AccessDenied", "InteractiveAuthorizationRequired"])
def test_what_polkit_refuses_names_the_unit_and_the_remedy(bus: FakeBus, units: BusUnits, verb: str, name: str) -> None:
    bus.errors[f"{verb.title()}Unit"] = (f"org.freedesktop.DBus.Error.{name}", None)
    with pytest.raises(NotAllowedError, match=f"let this user {verb} llama-chat.service") as caught:
        getattr(units, verb)("chat")
    assert caught.value.exit_code is ExitCode.NOT_ALLOWED
    assert "site.yml" in caught.value.remedy
    assert len(bus.calls) == 1


def test_a_unit_that_is_not_there_cannot_be_started_and_need_not_be_stopped(bus: FakeBus, units: BusUnits) -> None:
    bus.errors = dict.fromkeys(("StartUnit", "StopUnit"), ("org.freedesktop.systemd1.NoSuchUnit", None))
    with pytest.raises(NotFoundError, match=r"no unit llama-chat\.service"):
        units.start("chat")
    units.stop("chat")


def test_a_masked_unit_says_how_to_unmask_it(bus: FakeBus, units: BusUnits) -> None:
    bus.errors["StartUnit"] = ("org.freedesktop.systemd1.UnitMasked", None)
    with pytest.raises(LlamarigError, match="masked") as caught:
        units.start("chat")
    assert caught.value.remedy == "systemctl unmask llama-chat.service"


def test_any_other_refusal_carries_systemds_words(bus: FakeBus, units: BusUnits) -> None:
    bus.errors["StopUnit"] = ("org.freedesktop.systemd1.TransactionIsDestructive", None)
    with pytest.raises(LlamarigError, match=r"refused to stop llama-chat\.service: StopUnit is refused here"):
        units.stop("chat")


def test_a_property_that_is_refused_is_an_error(bus: FakeBus, units: BusUnits) -> None:
    bus.errors["Get"] = ("org.freedesktop.DBus.Error.UnknownProperty", None)
    with pytest.raises(BusError, match=r"nothing of llama-chat\.service"):
        units.state("chat")


def test_one_connection_serves_a_thread(bus: FakeBus, units: BusUnits) -> None:
    for _ in range(3):
        units.start("chat")
    assert bus.connections == 1
    thread = threading.Thread(target=units.start, args=("chat",))
    thread.start()
    thread.join()
    assert bus.connections == 2
    assert len(bus.calls) == 4


def test_a_connection_that_broke_while_idle_is_made_anew_at_once(
    bus: FakeBus, units: BusUnits, pauses: list[float]
) -> None:
    units.start("chat")
    bus.hang_up()
    units.stop("chat")
    assert [method for method, _ in bus.calls] == ["StartUnit", "StopUnit"]
    assert sum(pauses) == 0


def test_a_bus_that_cuts_every_connection_is_given_up(bus: FakeBus, units: BusUnits, pauses: list[float]) -> None:
    bus.cut = 1000
    with pytest.raises(BusError, match="the system bus cannot be asked") as caught:
        units.start("chat")
    assert caught.value.remedy == "systemctl status dbus"
    assert 0 < sum(pauses) < 5


def test_a_systemd_that_executes_itself_anew_is_waited_for(bus: FakeBus, units: BusUnits, pauses: list[float]) -> None:
    bus.errors["StartUnit"] = ("org.freedesktop.DBus.Error.NameHasNoOwner", 3)
    units.start("chat")
    assert len(bus.calls) == 4
    assert len(pauses) == 3


def test_a_systemd_that_stays_away_is_an_error(bus: FakeBus, units: BusUnits) -> None:
    bus.errors["ListUnitsByPatterns"] = ("org.freedesktop.DBus.Error.ServiceUnknown", None)
    with pytest.raises(BusError, match="not on the bus"):
        units.running()


def test_no_bus_is_an_error(tmp_path: Path, pauses: list[float]) -> None:
    with pytest.raises(BusError, match="cannot be asked") as caught:
        BusUnits(tmp_path, sleep=pauses.append).state("chat")
    assert caught.value.remedy


def test_a_bus_that_lets_nobody_in_is_an_error(bus: FakeBus, units: BusUnits) -> None:
    bus.refuses_everybody = True
    with pytest.raises(BusError, match="cannot be asked"):
        units.running()


def test_a_systemd_that_does_not_answer_is_not_waited_for_for_ever(bus: FakeBus) -> None:
    bus.silent = {"StartUnit"}
    units = BusUnits(bus.root, seconds=1)
    with pytest.raises(BusError, match="did not answer"):
        units.start("chat")
    # What comes late is not taken for the answer to the next question.
    assert bus.connections == 1
    bus.silent = set()
    units.stop("chat")
    assert bus.connections == 2
