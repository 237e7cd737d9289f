"""The reader against the library that plays NVML in the lab, through nvidia-ml-py and a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamarig.hardware import nvml_process
from llamarig.hardware.gpus import GpuProcess, NvmlError, Reading, RecordedGpus, Setting, explained
from llamarig.hardware.nvml import _throttle
from llamarig.hardware.nvml_process import NvmlProcess
from tests.unit.hardware.conftest import Silicon
from tests.unit.hardware.recordings import ADA, BLACKWELL, reading, recorded

BROKEN = [
    ("fail=nvmlInitWithFlags:12", 12, "libnvidia-ml.so.1 is not there", "run playbooks/site.yml"),
    ("fail=nvmlInitWithFlags:9", 9, "the kernel module nvidia is not loaded", "sudo modprobe nvidia"),
    ("fail=nvmlInitWithFlags:18", 18, "have different versions: user space 580.95.05, module", "reboot the host"),
    ("fail=nvmlInitWithFlags:999", 999, "does not know what is wrong", "reboot the host"),
    ("fail=nvmlDeviceGetCount_v2:15", 15, "it fell off the PCI bus", "reseat the card"),
    ("fail=nvmlDeviceGetCount_v2:4", 4, "refuses this user", "sudo llamarig"),
    ("fail=nvmlDeviceGetCount_v2:77", 77, "NVML failed with code 77", "journalctl --dmesg --grep NVRM"),
]
ABSENT = {
    "nvmlDeviceGetPersistenceMode": ["persistence"],
    "nvmlDeviceGetPowerManagementLimit": ["power_limit_w"],
    "nvmlDeviceGetPowerManagementLimitConstraints": ["power_min_w", "power_max_w"],
    "nvmlDeviceGetPowerManagementDefaultLimit": ["power_default_w"],
    "nvmlDeviceGetMaxClockInfo": ["clock_max_mhz"],
    "nvmlDeviceGetCudaComputeCapability": ["compute_capability"],
    "nvmlDeviceGetCurrPcieLinkWidth": ["link_width"],
    "nvmlDeviceGetMaxPcieLinkWidth": ["link_width_max"],
    "nvmlDeviceGetUtilizationRates": ["utilisation"],
    "nvmlDeviceGetTemperature": ["temperature_c"],
    "nvmlDeviceGetPowerUsage": ["power_w"],
    "nvmlDeviceGetClockInfo": ["clock_mhz", "memory_clock_mhz"],
    "nvmlDeviceGetCurrentClocksEventReasons": ["throttle"],
    "nvmlDeviceGetComputeRunningProcesses_v3": ["processes"],
}


def test_both_cards_are_read_as_they_are(silicon: Silicon) -> None:
    found = NvmlProcess().read()
    wanted = reading(
        {"persistence": False, "link_generation": 4},
        {"persistence": False, "link_generation": 5},
    )
    assert found == wanted
    assert silicon.setting(ADA, "persistence") is None


@pytest.mark.parametrize(("function", "fields"), ABSENT.items(), ids=ABSENT)
def test_what_a_card_does_not_know_is_absent_and_never_zero(silicon: Silicon, function: str, fields: list[str]) -> None:
    whole = NvmlProcess().read()
    silicon.fault(f"na={function}")
    found = NvmlProcess().read()
    nothing: dict[str, Any] = dict.fromkeys(fields)
    assert found == replace(whole, cards=tuple(replace(card, **nothing) for card in whole.cards))


@pytest.mark.parametrize("code", [6, 13])
def test_a_question_that_the_driver_does_not_know_is_absent_too(silicon: Silicon, code: int) -> None:
    silicon.fault(f"fail=nvmlDeviceGetPowerManagementLimit:{code}")
    assert [card.power_limit_w for card in NvmlProcess().read().cards] == [None, None]


def test_a_lost_card_hides_no_other(silicon: Silicon) -> None:
    silicon.fault(f"lost={ADA}")
    found = NvmlProcess().read()
    assert [card.uuid for card in found.cards] == [BLACKWELL]
    (fault,) = found.faults
    assert (fault.index, fault.code) == (0, 15)
    assert "fell off the PCI bus" in fault.error.message
    assert "shows the Xid" in fault.error.remedy


def test_a_card_that_fails_half_way_is_a_fault_that_still_says_who_it_is(silicon: Silicon) -> None:
    silicon.fault("fail=nvmlDeviceGetName:999")
    found = NvmlProcess().read()
    assert found.cards == ()
    assert [(fault.uuid, fault.pci_address, fault.code) for fault in found.faults] == [
        (ADA, "0000:01:00.0", 999),
        (BLACKWELL, "0000:04:00.0", 999),
    ]


@pytest.mark.parametrize(("fault", "code", "message", "remedy"), BROKEN)
def test_nvml_as_a_whole_can_fail_and_it_is_said_for_people(
    silicon: Silicon, fault: str, code: int, message: str, remedy: str
) -> None:
    silicon.fault(fault)
    with pytest.raises(NvmlError) as caught:
        NvmlProcess().read()
    assert caught.value.code == code
    assert message in caught.value.message
    assert f"(NVML {code})" in caught.value.message
    assert remedy in caught.value.remedy


def test_without_a_module_the_driver_is_not_loaded(silicon: Silicon) -> None:
    silicon.module(None)
    with pytest.raises(NvmlError, match=r"not loaded \(NVML 9\)"):
        NvmlProcess().read()


def test_after_an_upgrade_without_a_reboot_the_versions_differ(silicon: Silicon) -> None:
    silicon.module("580.82.07")
    with pytest.raises(NvmlError, match=r"user space 580\.95\.05, module .* \(NVML 18\)"):
        NvmlProcess().read()


def test_a_driver_that_hangs_does_not_hang_the_reader(silicon: Silicon) -> None:
    silicon.fault("hang=60")
    start = time.monotonic()
    with pytest.raises(NvmlError, match=r"does not answer within 0\.5 s \(NVML 10\)") as caught:
        NvmlProcess(0.5).read()
    assert time.monotonic() - start < 5
    assert "reboot the host" in caught.value.remedy


def test_a_process_that_waits_in_the_kernel_deaf_to_kill_is_left_behind(
    silicon: Silicon, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[subprocess.Popen[str]] = []

    def deaf(process: subprocess.Popen[str]) -> None:
        left.append(process)

    monkeypatch.setattr(subprocess.Popen, "kill", deaf)
    monkeypatch.setattr(nvml_process, "_GRACE_SECONDS", 0.1)
    silicon.fault("hang=60")
    start = time.monotonic()
    with pytest.raises(NvmlError, match="does not answer within"):
        NvmlProcess(0.3).read()
    assert time.monotonic() - start < 5
    monkeypatch.undo()
    (process,) = left
    assert process.poll() is None
    process.kill()
    process.wait()


def test_a_library_that_crashes_takes_only_its_own_process_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "crash.c"
    source.write_text(
        "#include <stdlib.h>\nint nvmlInitWithFlags(unsigned f) { (void)f; abort(); }\n", encoding="ascii"
    )
    subprocess.run(
        [shutil.which("gcc") or "gcc", "-shared", "-fPIC", "-o", tmp_path / "libnvidia-ml.so.1", source], check=True
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(NvmlError, match="was ended by signal 6") as caught:
        NvmlProcess().read()
    assert caught.value.code == 999


def test_a_process_that_ends_without_an_answer_says_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamarig.hardware.nvml_process._PROGRAM", "import sys; sys.exit('no memory')")
    with pytest.raises(NvmlError, match="was ended by no memory"):
        NvmlProcess().read()


@pytest.mark.parametrize(
    ("setting", "key", "kept"),
    [
        (Setting(ADA, "power_limit_w", 350), "power_limit_mw", "350000 0"),
        (Setting(ADA, "power_limit_w", 312.5), "power_limit_mw", "312500 0"),
        (Setting(ADA, "clock_lock_mhz", (210, 2520)), "locked_clocks_mhz", "210 2520"),
        (Setting(ADA, "persistence", True), "persistence", "1 0"),
    ],
)
def test_a_setting_reaches_its_card_and_no_other(silicon: Silicon, setting: Setting, key: str, kept: str) -> None:
    NvmlProcess().apply(setting)
    assert silicon.setting(ADA, key) == kept
    assert silicon.setting(BLACKWELL, key) is None


def test_a_clock_lock_can_be_taken_off(silicon: Silicon) -> None:
    NvmlProcess().apply(Setting(ADA, "clock_lock_mhz", (210, 2520)))
    NvmlProcess().apply(Setting(ADA, "clock_lock_mhz", None))
    assert silicon.setting(ADA, "locked_clocks_mhz") is None


def test_what_was_set_is_read_back(silicon: Silicon) -> None:
    for setting in (Setting(ADA, "power_limit_w", 350), Setting(BLACKWELL, "persistence", True)):
        NvmlProcess().apply(setting)
    ada, blackwell = NvmlProcess().read().cards
    assert (ada.power_limit_w, ada.persistence) == (350, False)
    assert (blackwell.power_limit_w, blackwell.persistence) == (300, True)
    assert silicon.setting(ADA, "power_limit_mw") == "350000 0"


@pytest.mark.parametrize(
    ("setting", "code"),
    [(Setting(ADA, "power_limit_w", 1000), 2), (Setting("GPU-0", "persistence", True), 6)],
)
def test_a_setting_that_nvml_refuses_is_an_error(silicon: Silicon, setting: Setting, code: int) -> None:
    with pytest.raises(NvmlError) as caught:
        NvmlProcess().apply(setting)
    assert caught.value.code == code
    assert silicon.setting(ADA, "power_limit_mw") is None


def test_a_reading_survives_json() -> None:
    whole = reading({"processes": [{"pid": 41, "used_mib": 512}, {"pid": 42, "used_mib": None}]})
    assert whole.cards[0].processes == (GpuProcess(41, 512), GpuProcess(42, None))
    assert Reading.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole


def test_recorded_cards_answer_and_change_as_cards_do() -> None:
    gpus = RecordedGpus(recorded())
    settings = [
        Setting(ADA, "power_limit_w", 350.0),
        Setting(ADA, "clock_lock_mhz", (210, 2520)),
        Setting(BLACKWELL, "persistence", False),
    ]
    for setting in settings:
        gpus.apply(setting)
    assert gpus.read() == reading({"power_limit_w": 350.0}, {"persistence": False})
    assert gpus.applied == settings
    with pytest.raises(NvmlError, match="knows no such card"):
        gpus.apply(Setting("GPU-0", "persistence", True))


def test_a_recorded_failure_is_told_as_nvml_tells_it() -> None:
    gpus = RecordedGpus({"error": {"code": 18, "detail": "user space 2, module 1"}})
    with pytest.raises(NvmlError) as caught:
        gpus.read()
    expected = explained(18, "user space 2, module 1")
    assert (caught.value.code, caught.value.message, caught.value.remedy) == (18, expected.message, expected.remedy)


@pytest.mark.parametrize(
    ("reasons", "words"),
    [(0, ()), (0x1, ()), (0x4 | 0x1, ("power-cap",)), (0x60, ("software-thermal", "hardware-thermal")), (None, None)],
)
def test_what_holds_clocks_down_is_said_in_words(reasons: int | None, words: tuple[str, ...] | None) -> None:
    assert _throttle(reasons) == words


def test_a_busy_card_is_read_with_what_it_measures() -> None:
    whole = reading({"utilisation": 0.97, "temperature_c": 71, "power_w": 431.2, "throttle": ["power-cap"]})
    assert whole.cards[0].throttle == ("power-cap",)
    assert Reading.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole
