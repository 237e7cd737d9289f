"""The session that stays open, with a binding that is played; tests/contract/test_exporter.py has the real one."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml  # type: ignore[import-untyped]
import pytest

from llamarig.hardware import nvml_card, nvml_meter
from llamarig.hardware.gpus import NvmlError
from llamarig.hardware.measured import MeasuredCard, StaleLibraryError, Xid
from llamarig.hardware.nvml import MODULE_FILE, module_version
from llamarig.hardware.nvml_meter import RENEW_SECONDS, NvmlMeter, library_is_replaced


class PlayedNvml:
    """As much of the binding as a session needs; whatever else a card is asked it does not know."""

    NVMLError = pynvml.NVMLError
    NVML_TEMPERATURE_GPU = 0
    nvmlMemory_v2 = 2  # noqa: N815  its name in the binding

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.lost: set[int] = set()
        self.events: list[Any] = []
        self.fail: dict[str, int] = {}
        self.handles = [ctypes.pointer(ctypes.c_int(number)) for number in range(2)]

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in self.fail:
                raise pynvml.NVMLError(self.fail[name])
            return self._answer(name, arguments)

        return call

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> Any:
        answers: dict[str, Callable[[], Any]] = {
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda: self._handle(arguments[0]),
            "nvmlDeviceGetUUID": lambda: f"GPU-{arguments[0].contents.value}",
            "nvmlDeviceGetPciInfo_v3": lambda: SimpleNamespace(busId="00000000:01:00.0"),
            "nvmlDeviceGetName": lambda: "a card",
            "nvmlSystemGetDriverVersion": lambda: "580.95.05",
            "nvmlEventSetCreate": object,
            "nvmlEventSetWait_v2": self._event,
        }
        if name in answers:
            return answers[name]()
        if name.startswith(("nvmlInit", "nvmlShutdown", "nvmlEvent", "nvmlDeviceRegister")):
            return None
        raise pynvml.NVMLError(3)

    def _handle(self, index: int) -> Any:
        if index in self.lost:
            raise pynvml.NVMLError(15)
        return self.handles[index]

    def _event(self) -> Any:
        if not self.events:
            raise pynvml.NVMLError(10)
        return self.events.pop(0)

    def count(self, name: str) -> int:
        return self.calls.count(name)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> PlayedNvml:
    played = PlayedNvml()
    monkeypatch.setattr(nvml_meter, "binding", lambda: played)
    return played


def module(root: Path, version: str) -> None:
    path = root / MODULE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{version}\n", encoding="ascii")


def test_a_session_is_begun_once(nvml: PlayedNvml, tmp_path: Path) -> None:
    meter = NvmlMeter(tmp_path)
    assert not meter.listens
    for _ in range(3):
        assert [card.uuid for card in meter.read().cards] == ["GPU-0", "GPU-1"]
    assert (nvml.count("nvmlInit"), nvml.count("nvmlShutdown"), nvml.count("nvmlEventSetCreate")) == (1, 0, 1)


def test_a_lost_card_has_another_session_begun_once_and_again_after_a_while(nvml: PlayedNvml, tmp_path: Path) -> None:
    clock = Clock()
    meter = NvmlMeter(tmp_path, clock=clock)
    meter.read()
    nvml.lost.add(0)
    for _ in range(5):
        found = meter.read()
        assert [fault.code for fault in found.faults] == [15]
        assert [card.uuid for card in found.cards] == ["GPU-1"]
    assert nvml.count("nvmlInit") == 2, "one more, and not one for each reading"
    clock.now += RENEW_SECONDS
    meter.read()
    nvml.lost.clear()
    found = meter.read()
    assert nvml.count("nvmlInit") == 3
    assert [card.watched for card in found.cards] == [True, True]


def test_a_card_that_came_back_is_listened_to_after_a_while(nvml: PlayedNvml, tmp_path: Path) -> None:
    clock = Clock()
    meter = NvmlMeter(tmp_path, clock=clock)
    nvml.lost.add(0)
    meter.read()
    nvml.lost.clear()
    nvml.lost.add(1)
    meter.read()
    nvml.lost.clear()
    clock.now += RENEW_SECONDS
    meter.read()
    assert [card.watched for card in meter.read().cards] == [True, True]


def test_an_event_is_its_cards_by_the_handle_also_when_the_card_says_nothing_any_more(
    nvml: PlayedNvml, tmp_path: Path
) -> None:
    meter = NvmlMeter(tmp_path)
    meter.read()
    nvml.fail["nvmlDeviceGetUUID"] = 15
    nvml.events = [
        SimpleNamespace(device=nvml.handles[1], eventType=8, eventData=79),
        SimpleNamespace(device=nvml.handles[1], eventType=1, eventData=0),
        SimpleNamespace(device=ctypes.pointer(ctypes.c_int(9)), eventType=8, eventData=13),
    ]
    assert [meter.wait(0.1) for _ in range(4)] == [Xid("GPU-1", 79), None, None, None]
    assert meter.listens


def test_events_that_fail_are_given_up_until_the_next_session(nvml: PlayedNvml, tmp_path: Path) -> None:
    clock = Clock()
    meter = NvmlMeter(tmp_path, clock=clock)
    meter.read()
    nvml.fail["nvmlEventSetWait_v2"] = 999
    assert meter.wait(0.1) is None
    assert not meter.listens
    assert nvml.count("nvmlEventSetFree") == 1
    nvml.fail.clear()
    clock.now += RENEW_SECONDS
    meter.read()
    meter.read()
    assert meter.listens


@pytest.mark.parametrize("call", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents"])
def test_cards_without_events_are_measured_all_the_same(nvml: PlayedNvml, tmp_path: Path, call: str) -> None:
    nvml.fail[call] = 3
    meter = NvmlMeter(tmp_path)
    assert [card.watched for card in meter.read().cards] == [False, False]
    assert not meter.listens


def test_a_failure_ends_the_session_and_the_next_reading_begins_another(nvml: PlayedNvml, tmp_path: Path) -> None:
    meter = NvmlMeter(tmp_path)
    meter.read()
    nvml.fail["nvmlDeviceGetCount"] = 999
    for _ in range(2):
        with pytest.raises(NvmlError, match="999"):
            meter.read()
    nvml.fail.clear()
    meter.read()
    assert (nvml.count("nvmlInit"), nvml.count("nvmlShutdown")) == (3, 2)


@pytest.mark.parametrize(("before", "after"), [("580.95.05", "580.105.08"), ("", "580.95.05")])
def test_another_module_ends_it(nvml: PlayedNvml, tmp_path: Path, before: str, after: str) -> None:
    if before:
        module(tmp_path, before)
    meter = NvmlMeter(tmp_path)
    meter.read()
    module(tmp_path, after)
    asked = len(nvml.calls)
    with pytest.raises(StaleLibraryError, match=after):
        meter.read()
    assert len(nvml.calls) == asked, "the library is not asked what may crash it"


def test_a_module_that_is_gone_is_no_other(nvml: PlayedNvml, tmp_path: Path) -> None:
    module(tmp_path, "580.95.05")
    meter = NvmlMeter(tmp_path)
    (tmp_path / MODULE_FILE).unlink()
    assert len(meter.read().cards) == 2
    assert nvml.count("nvmlInit") == 1


@pytest.mark.parametrize("code", [18, 999])
def test_a_library_that_was_replaced_and_fails_ends_it(
    nvml: PlayedNvml, tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml_meter, "library_is_replaced", lambda: True)
    meter = NvmlMeter(tmp_path)
    meter.read()
    nvml.fail["nvmlSystemGetDriverVersion"] = code
    with pytest.raises(StaleLibraryError, match="is gone"):
        meter.read()


@pytest.mark.parametrize(
    ("line", "replaced"),
    [
        ("7f0 r-xp 0 08:01 1 /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05", False),
        ("7f0 r-xp 0 08:01 1 /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05 (deleted)", True),
        ("7f0 r-xp 0 08:01 1 /usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05 (deleted)", False),
        ("", False),
    ],
)
def test_whether_the_file_that_was_loaded_is_still_there(tmp_path: Path, line: str, replaced: bool) -> None:
    (tmp_path / "maps").write_text(f"{line}\n", encoding="ascii")
    assert library_is_replaced(tmp_path / "maps") is replaced
    assert not library_is_replaced(tmp_path / "none")


def test_a_card_that_fails_whatever_it_is_asked_does_not_answer(nvml: PlayedNvml) -> None:
    nvml.fail["nvmlDeviceGetMemoryInfo"] = 999
    found = nvml_card.measure(nvml, 0, (), throughput=False)
    assert (type(found).__name__, getattr(found, "code", None)) == ("CardFault", 999)


@pytest.mark.parametrize("call", ["nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3"])
def test_a_card_that_says_nonsense_of_itself_hides_no_other(nvml: PlayedNvml, tmp_path: Path, call: str) -> None:
    answer, asked = nvml._answer, []

    def nonsense(name: str, arguments: tuple[Any, ...]) -> Any:
        if name == call and arguments[0] is nvml.handles[0]:
            asked.append(name)
            return SimpleNamespace(busId=b"\xffoh") if "Pci" in name else b"\xff".decode()
        return answer(name, arguments)

    nvml._answer = nonsense  # type: ignore[method-assign]
    found = NvmlMeter(tmp_path).read()
    assert asked
    assert [card.uuid for card in found.cards] == ["GPU-1"]
    assert [(fault.index, fault.code) for fault in found.faults] == [(0, 999)]


def test_a_name_that_is_no_text_is_said_as_far_as_it_is(nvml: PlayedNvml, tmp_path: Path) -> None:
    answer = nvml._answer

    def odd(name: str, arguments: tuple[Any, ...]) -> Any:
        if name in {"nvmlDeviceGetName", "nvmlSystemGetDriverVersion"}:
            return b"580.95 \xff".decode()
        return answer(name, arguments)

    nvml._answer = odd  # type: ignore[method-assign]
    found = NvmlMeter(tmp_path).read()
    assert [card.name for card in found.cards] == ["580.95 \ufffd"] * 2
    assert found.versions.driver == "580.95 \ufffd"


def test_after_what_nobody_foresaw_another_session_is_begun(
    nvml: PlayedNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = NvmlMeter(tmp_path)
    meter.read()
    with monkeypatch.context() as broken:
        broken.setattr(nvml_meter, "known_fields", {}.__getitem__)
        with pytest.raises(KeyError):
            meter.read()
    assert len(meter.read().cards) == 2
    assert (nvml.count("nvmlInit"), nvml.count("nvmlShutdown")) == (2, 1)


@pytest.mark.parametrize(("said", "known"), [(b"", None), (b"\n", None), (b"\xff\n", "\ufffd")])
def test_a_module_that_says_nothing_of_its_version_ends_nothing(tmp_path: Path, said: bytes, known: str | None) -> None:
    module(tmp_path, "580.95.05")
    (tmp_path / MODULE_FILE).write_bytes(said)
    assert module_version(tmp_path) == known


@pytest.mark.parametrize(("kind", "told"), [(3, 5e9), (2, 5e9), (1, None)])
def test_a_count_that_goes_round_all_the_time_is_left_out(nvml: PlayedNvml, kind: int, told: float | None) -> None:
    answer, numbers = nvml._answer, SimpleNamespace(uiVal=7, ulVal=5_000_000_000, ullVal=5_000_000_000)

    def counted(name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "nvmlDeviceGetFieldValues":
            return [SimpleNamespace(nvmlReturn=0, valueType=kind, value=numbers) for _ in arguments[1]]
        return answer(name, arguments)

    nvml._answer = counted  # type: ignore[method-assign]
    fields = tuple(item for item in nvml_card.FIELDS if item.metric in {"pcie_bytes_total", "power_instant_watts"})
    found = nvml_card.measure(nvml, 0, fields, throughput=False)
    assert isinstance(found, MeasuredCard)
    said = {(value.metric, *value.labels): value.number for value in found.values}
    assert said.get(("pcie_bytes_total", "transmit")) == said.get(("pcie_bytes_total", "receive")) == told
    assert ("power_instant_watts",) in said
