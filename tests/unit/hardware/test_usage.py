from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamarig.hardware import usage
from llamarig.hardware.usage import CpuTimes, MemoryUse
from tests.unit.hardware.roots import Root

TICKS = os.sysconf("SC_CLK_TCK")
MEMINFO = """\
MemTotal:       65536000 kB
MemFree:         2048000 kB
MemAvailable:   40960000 kB
Buffers:          102400 kB
Cached:         40960000 kB
Shmem:            512000 kB
SReclaimable:     204800 kB
SwapTotal:       8192000 kB
SwapFree:        7168000 kB
HugePages_Total:       0
"""
STATUS = (
    "Name:\tllama-server\nVmRSS:\t 6144000 kB\nRssAnon:\t 1024000 kB\nRssFile:\t 5120000 kB\nRssShmem:\t 10240 kB\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def stat(state: str = "S", user: int = 300, system: int = 200, began: int = 5000, name: str = "llama-server") -> str:
    """A line of /proc/PID/stat (proc(5)), as far as it is read."""
    return f"41 ({name}) {state} " + " ".join(["1"] * 10) + f" {user} {system} 0 0 20 0 9 0 {began} 123 456"


def test_processors_are_busy_for_what_is_not_idle_and_guests_count_once(root: Root) -> None:
    root.write("proc/stat", "cpu  100 20 30 1000 50 1 2 3 40 5\ncpu0 1 2 3\n")
    assert usage.read_cpu(root.path) == CpuTimes(156 / TICKS, 1206 / TICKS)


@pytest.mark.parametrize(
    ("later", "share"), [((30.0, 140.0), 0.5), ((10.0, 140.0), 0.0), ((90.0, 140.0), 1.0), ((10.0, 100.0), None)]
)
def test_a_share_is_of_the_time_that_has_passed(later: tuple[float, float], share: float | None) -> None:
    assert CpuTimes(*later).share_since(CpuTimes(10.0, 100.0)) == share


def test_memory_is_split_into_what_files_and_the_kernel_can_give_back(root: Root) -> None:
    root.write("proc/meminfo", MEMINFO)
    assert usage.read_memory(root.path) == MemoryUse(
        total=64000, available=40000, free=2000, cache=(40960000 + 102400 + 204800) // 1024 - 500, swap_total=8000,
        swap_used=1000,
    )  # fmt: skip


def test_a_process_is_known_whatever_its_name_is(root: Root) -> None:
    root.write("proc/41/stat", stat(name="a) R (b"))
    root.write("proc/41/status", STATUS)
    found = usage.read_process(41, root.path, memory=True)
    assert found is not None
    assert (found.pid, found.began, found.cpu_seconds, found.at_work) == (41, 5000 / TICKS, 500 / TICKS, False)
    assert (found.anonymous_mib, found.file_mib) == (1010.0, 5000.0)
    assert usage.read_process(41, root.path) == usage.ProcessUse(41, 5000 / TICKS, 500 / TICKS, at_work=False)


@pytest.mark.parametrize(("state", "at_work"), [("R", True), ("D", True), ("S", False), ("T", False), ("t", False)])
def test_a_process_is_at_work_that_computes_or_waits_for_a_disk(root: Root, state: str, at_work: bool) -> None:
    root.write("proc/41/stat", stat(state))
    found = usage.read_process(41, root.path)
    assert found is not None
    assert found.at_work is at_work


@pytest.mark.parametrize("line", [stat("Z"), stat("X"), "", "41 (cut of"])
def test_a_process_that_is_gone_is_none(root: Root, line: str) -> None:
    root.write("proc/41/stat", line)
    assert usage.read_process(41, root.path) is None


def test_kills_for_want_of_memory_are_counted(root: Root) -> None:
    assert usage.read_oom_kills(root.path) is None
    root.write("proc/vmstat", "nr_free_pages 1\noom_kill 7\noom_kill_other 9\n")
    assert usage.read_oom_kills(root.path) == 7


def test_a_machine_that_says_nothing_is_told_apart_from_one_that_rests(root: Root) -> None:
    path = root.path
    assert (usage.read_cpu(path), usage.read_load(path), usage.read_memory(path)) == (None, [], None)
    assert (usage.read_uptime(path), usage.read_process(1, path)) == (None, None)
    root.write("proc/loadavg", "0.52 1.75 2.00 2/300 4711\n")
    root.write("proc/uptime", "1234.56 99.9\n")
    assert (usage.read_load(path), usage.read_uptime(path)) == ([0.52, 1.75, 2.0], 1234.56)


def test_this_machine_can_be_read() -> None:
    cpu, memory, own = usage.read_cpu(), usage.read_memory(), usage.read_process(os.getpid(), memory=True)
    assert cpu is not None
    assert 0 < cpu.busy < cpu.total
    assert memory is not None
    assert 0 <= memory.free <= memory.available <= memory.total
    assert own is not None
    assert own.anonymous_mib > 1
    uptime = usage.read_uptime()
    assert uptime is not None
    assert 0 < own.began < uptime
