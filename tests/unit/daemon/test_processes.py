from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamarig.daemon.processes import Processes, Work
from llamarig.runtime.engines import HostEngines

TICKS = os.sysconf("SC_CLK_TCK")


class Proc:
    """A machine's processes in a directory, and a clock; ``searches`` counts the looks at all of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.time = 100.0
        self.searches = 0
        (root / "proc").mkdir()

    def put(self, pid: int, service: str = "chat", state: str = "S", seconds: float = 0.0, began: float = 50.0) -> None:
        place = self.root / f"proc/{pid}"
        place.mkdir(exist_ok=True)
        ticks = f"{round(seconds * TICKS)} 0"
        text = f"{pid} (llama-server) {state} {' '.join(['1'] * 10)} {ticks} 0 0 20 0 9 0 {round(began * TICKS)} 1"
        (place / "stat").write_text(text, encoding="ascii")
        (place / "cgroup").write_text(
            f"0::/llama.slice/llama-{service}.slice/docker-{'0' * 64}.scope\n", encoding="ascii"
        )

    def end(self, pid: int) -> None:
        for name in ("stat", "cgroup"):
            (self.root / f"proc/{pid}/{name}").unlink()

    def pids(self, service: str) -> list[int]:
        self.searches += 1
        return HostEngines(self.root).pids(service)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


@pytest.fixture
def processes(proc: Proc) -> Processes:
    return Processes(proc.pids, proc.root, lambda: proc.time)


def test_the_oldest_process_names_the_start(proc: Proc, processes: Processes) -> None:
    proc.put(41, began=60.0)
    proc.put(52, began=50.0)
    proc.put(63, service="other", began=10.0)
    assert processes.look("chat") == Work((52, 50.0), works=None)
    assert processes.look("nobody") is None


@pytest.mark.parametrize(("computed", "works"), [(0.0, False), (0.04, False), (0.06, True), (40.0, True)])
def test_a_process_that_computes_is_told_from_one_that_waits_for_questions(
    proc: Proc, processes: Processes, computed: float, works: bool
) -> None:
    proc.put(41, seconds=10.0)
    processes.look("chat")
    proc.time += 5
    proc.put(41, seconds=10.0 + computed)
    assert processes.look("chat") == Work((41, 50.0), works)


@pytest.mark.parametrize("state", ["R", "D"])
def test_one_that_runs_or_waits_for_a_disk_is_at_work(proc: Proc, processes: Processes, state: str) -> None:
    proc.put(41, state=state)
    assert processes.look("chat") == Work((41, 50.0), works=True)


def test_a_stopped_process_does_nothing(proc: Proc, processes: Processes) -> None:
    proc.put(41)
    processes.look("chat")
    proc.time += 5
    proc.put(41, state="T")
    assert processes.look("chat") == Work((41, 50.0), works=False)


def test_all_processes_are_searched_only_where_one_has_gone_or_now_and_then(proc: Proc, processes: Processes) -> None:
    proc.put(41)
    for _ in range(10):
        proc.time += 5
        processes.look("chat")
    assert proc.searches == 1
    proc.time += 20
    processes.look("chat")
    assert proc.searches == 2
    proc.end(41)
    proc.put(42, began=70.0)
    assert processes.look("chat") == Work((42, 70.0), works=None)
    assert proc.searches == 3


def test_a_number_that_is_used_again_is_another_process(proc: Proc, processes: Processes) -> None:
    proc.put(41, seconds=10.0)
    processes.look("chat")
    proc.time += 5
    proc.put(41, seconds=10.0, began=90.0)
    assert processes.look("chat") == Work((41, 90.0), works=None)


def test_a_service_whose_processes_are_gone_has_none(proc: Proc, processes: Processes) -> None:
    proc.put(41)
    processes.look("chat")
    proc.end(41)
    assert processes.look("chat") is None


def test_kills_are_counted_in_the_services_own_slice_where_the_kernel_does_that(
    proc: Proc, processes: Processes
) -> None:
    place = proc.root / "sys/fs/cgroup/llama.slice/llama-code.slice/llama-code-2.slice/memory.events"
    place.parent.mkdir(parents=True)
    place.write_text("low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\n", encoding="ascii")
    (proc.root / "proc/vmstat").write_text("oom_kill 9\n", encoding="ascii")
    assert (processes.oom_kills("code-2"), processes.oom_kills("chat")) == (1, 9)
    place.unlink()
    assert processes.oom_kills("code-2") is None  # never a count of something else


def test_a_service_that_begins_later_is_counted_in_its_own_slice_from_then_on(proc: Proc, processes: Processes) -> None:
    (proc.root / "proc/vmstat").write_text("oom_kill 9\n", encoding="ascii")
    assert processes.oom_kills("chat") == 9
    place = proc.root / "sys/fs/cgroup/llama.slice/llama-chat.slice/memory.events"
    place.parent.mkdir(parents=True)
    place.write_text("oom_kill 0\n", encoding="ascii")
    assert processes.oom_kills("chat") == 0
