from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamarig.daemon import gauges as module
from llamarig.daemon.gauges import Gauges
from llamarig.hardware.gpus import CardFault, NvmlError, Reading, explained
from llamarig.runtime.specs import SpecStore
from tests.support import make_spec, provision
from tests.unit.hardware.recordings import ADA, BLACKWELL, declare, hardware, reading

TICKS = os.sysconf("SC_CLK_TCK")
SECONDS = 20
MEMINFO = "MemTotal: {} kB\nMemFree: {} kB\nMemAvailable: {} kB\nCached: {} kB\nSwapTotal: 2048 kB\nSwapFree: 1024 kB\n"


class Box:
    """A machine in a directory, a clock, and cards that answer what a test says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.time = 100.0
        self.says: Reading | NvmlError = reading()
        self.asked = 0
        self.hangs = threading.Event()
        self.hangs.set()
        self.meanwhile: list[Any] = []
        self.gauges = Gauges(root, SpecStore(root), self.read, clock=lambda: self.time, sleep=self.sleep)

    def read(self) -> Reading:
        self.asked += 1
        assert self.hangs.wait(SECONDS)
        if isinstance(self.says, NvmlError):
            raise self.says
        return self.says

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        for happens in self.meanwhile:
            happens()

    def write(self, name: str, text: str) -> None:
        place = self.root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="ascii")

    def processors(self, busy: float, idle: float) -> None:
        self.write("proc/stat", f"cpu  {round(busy * TICKS)} 0 0 {round(idle * TICKS)} 0 0 0 0 0 0\n")

    def process(self, pid: int, service: str, seconds: float = 0.0, own: int = 0, mapped: int = 0) -> None:
        ticks = f"{round(seconds * TICKS)} 0"
        self.write(f"proc/{pid}/stat", f"{pid} (llama-server) S {' '.join(['1'] * 10)} {ticks} 0 0 20 0 9 0 50 1\n")
        self.write(f"proc/{pid}/status", f"RssAnon:\t{own * 1024} kB\nRssFile:\t{mapped * 1024} kB\n")
        self.write(f"proc/{pid}/cgroup", f"0::/llama.slice/llama-{service}.slice/docker-{'0' * 64}.scope\n")

    def memory(self, total: int, free: int, cache: int) -> None:
        self.write("proc/meminfo", MEMINFO.format(total * 1024, free * 1024, (free + cache) * 1024, cache * 1024))


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", float(SECONDS))
    monkeypatch.setattr(module, "_FIRST_SECONDS", float(SECONDS))
    provision(tmp_path, make_spec("chat"), make_spec("code"), default="chat")
    box = Box(tmp_path)
    box.processors(10, 90)
    box.memory(64000, 2000, 40000)
    yield box
    box.hangs.set()


# ---- cards ----


def test_a_card_says_what_it_does_and_for_whom(box: Box) -> None:
    box.process(41, "chat")
    box.process(42, "chat")
    box.process(43, "somebody-elses")
    holders = [{"pid": pid, "used_mib": 1000} for pid in (41, 42, 43, 999)]
    busy = {"utilisation": 0.34, "power_w": 270.5, "throttle": ["power-cap"], "processes": holders}
    box.says = reading({**busy, "memory_used_mib": 3000}, {"temperature_c": None, "throttle": None, "processes": None})
    declare(box.root, hardware())
    found = box.gauges.gpus()
    assert (found["age_seconds"], found["error"]) == (0.0, None)
    assert found["gpus"] == [
        {
            "uuid": ADA,
            "name": "rtx4090",
            "model": "NVIDIA GeForce RTX 4090",
            "memory_mib": 24564,
            "used_mib": 3000,
            "utilisation": 0.34,
            "temperature_c": 34,
            "power_w": 270.5,
            "power_limit_w": 450.0,
            "clock_mhz": 210,
            "memory_clock_mhz": 405,
            "throttle": ["power-cap"],
            "services": {"chat": 2000},
        },
        {**found["gpus"][1], "name": "rtx5070ti", "temperature_c": None, "throttle": None, "services": {}},
    ]
    assert json.loads(json.dumps(found)) == found


def test_memory_that_the_driver_does_not_count_is_none_and_not_zero(box: Box) -> None:
    box.process(41, "chat")
    box.process(42, "chat")
    box.says = reading({"processes": [{"pid": 41, "used_mib": None}, {"pid": 42, "used_mib": 5}]})
    assert box.gauges.gpus()["gpus"][0]["services"] == {"chat": None}


def test_a_reading_serves_everybody_for_a_while(box: Box) -> None:
    box.gauges.gpus()
    box.time += 1.4
    assert (box.gauges.gpus()["age_seconds"], box.asked) == (1.4, 1)
    box.time += 0.2
    assert box.gauges.gpus()["age_seconds"] == 0.0
    assert box.asked == 2


def test_a_driver_that_hangs_blocks_nobody_and_its_last_reading_ages(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.gauges.gpus()
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.05)
    box.hangs.clear()
    for _ in range(3):
        box.time += 5.0
        found = box.gauges.gpus()
    assert box.asked == 2
    assert len(found["gpus"]) == 2
    assert found["age_seconds"] == 15.0
    assert found["error"] == "NVML has not answered for 10.0 s"
    box.hangs.set()
    while box.gauges.gpus()["error"] is not None:
        box.time += 5.0
    assert box.gauges.gpus()["age_seconds"] == 0.0


def test_a_driver_that_hung_from_the_beginning_has_no_reading(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_SECONDS", 0.05)
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.05)
    box.hangs.clear()
    box.gauges.gpus()
    box.time += 1.0
    assert box.gauges.gpus() == {"gpus": [], "age_seconds": None, "error": "NVML has not answered for 1.0 s"}


def test_an_error_is_said_beside_the_last_reading(box: Box) -> None:
    box.gauges.gpus()
    box.says = explained(999)
    box.time += 2.0
    found = box.gauges.gpus()
    assert (len(found["gpus"]), found["age_seconds"], found["error"]) == (2, 2.0, explained(999).message)


def test_a_lost_card_is_named_and_hides_no_other(box: Box) -> None:
    whole = reading()
    box.says = Reading(driver_version="1", cards=whole.cards[1:], faults=(CardFault(index=0, code=15, uuid=ADA),))
    found = box.gauges.gpus()
    assert [card["uuid"] for card in found["gpus"]] == [BLACKWELL]
    assert found["error"] == f"card {ADA}: {explained(15).message}"


@pytest.mark.parametrize("code", [9, 12])
def test_a_host_that_declares_no_card_needs_no_driver(box: Box, code: int) -> None:
    box.says = explained(code)
    assert box.gauges.gpus()["error"] is None
    declare(box.root, hardware())
    assert box.gauges.gpus()["error"] == explained(code).message


def test_specs_that_cannot_be_read_cost_only_the_names(box: Box) -> None:
    box.write("etc/llamarig/services.d/torn.json", "{")
    box.write("etc/llamarig/hardware.json", "{")
    box.process(41, "chat")
    box.says = reading({"processes": [{"pid": 41, "used_mib": 5}]})
    assert box.gauges.gpus()["gpus"][0]["services"] == {}


# ---- processors and memory ----


def test_shares_are_of_the_time_since_somebody_asked_last(box: Box) -> None:
    box.process(41, "chat", seconds=10.0)
    box.gauges.system()
    box.time += 4.0
    box.processors(12, 96)
    box.process(41, "chat", seconds=16.0)
    box.write("proc/loadavg", "0.5 1.5 2.5 1/100 4711\n")
    found = box.gauges.system()
    assert (found["cpu"], found["load"], found["services"]["chat"]["cpu"]) == (0.25, [0.5, 1.5, 2.5], 1.5)


def test_where_nobody_asked_lately_a_moment_is_waited_for(box: Box) -> None:
    box.process(41, "chat", seconds=10.0)
    box.gauges.system()
    box.time += 3600.0
    box.meanwhile = [lambda: box.processors(10.1, 90.1), lambda: box.process(41, "chat", seconds=10.4)]
    found = box.gauges.system()
    assert (found["cpu"], found["services"]["chat"]["cpu"]) == (0.5, 2.0)


def test_an_answer_serves_everybody_for_a_while(box: Box) -> None:
    first = box.gauges.system()
    box.processors(90, 100)
    box.time += 1.0
    assert box.gauges.system() is first
    box.time += 1.0
    assert box.gauges.system() is not first


def test_memory_is_split_into_models_cache_and_the_rest(box: Box) -> None:
    box.process(41, "chat", own=3000, mapped=20_000)
    box.process(42, "code", own=1000)
    box.process(43, "somebody-elses", own=9000, mapped=9000)
    box.process(44, "chat", own=9000)
    box.write(
        "proc/44/cgroup", "0::/llama.slice/llama-chat.slice/llama-chat.service\n"
    )  # compose, beside its container
    found = box.gauges.system()
    assert found["memory"] == {
        "total_mib": 64000,
        "available_mib": 42000,
        "model_mib": 24_000,
        "cache_mib": 20_000,
        "system_mib": 18_000,
    }
    assert found["swap"] == {"total_mib": 2, "used_mib": 1}
    assert {name: one["memory_mib"] for name, one in found["services"].items()} == {"chat": 23_000, "code": 1000}


def test_a_file_that_two_engines_have_mapped_is_in_memory_once(box: Box) -> None:
    box.process(41, "chat", mapped=30_000)
    box.process(42, "code", mapped=30_000)
    memory = box.gauges.system()["memory"]
    assert (memory["model_mib"], memory["cache_mib"], memory["system_mib"]) == (40_000, 0, 22_000)


def test_a_machine_that_does_not_say_is_not_said_to_rest(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    found = Box(tmp_path).gauges.system()
    assert found == {"cpu": None, "load": [], "memory": None, "swap": None, "services": {}}


def test_this_machine_can_be_asked() -> None:
    found = Gauges(Path("/"), SpecStore(Path("/")), reading, sleep=lambda _: None).system()
    parts = ("model_mib", "cache_mib", "system_mib")
    assert 0 < sum(found["memory"][part] for part in parts) <= found["memory"]["total_mib"]
