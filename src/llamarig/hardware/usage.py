"""What a machine is busy with, read from /proc: its processors, its memory, and single processes.

No file of a cgroup is needed for it, so that it is the same on cgroup v1 and v2.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
# Columns of the first line of /proc/stat in which a processor does nothing: idle, and idle while a disk is waited for.
_IDLE: Final = (3, 4)
# guest and guest_nice are in user and nice already.
_COUNTED: Final = 8
# Fields of /proc/PID/stat after the name, which stands in brackets and may hold anything (proc(5)).
_STATE, _USER, _SYSTEM, _BEGAN = 0, 11, 12, 19
# States in which a process computes, or waits for a disk or a driver; a sleeping or stopped one does neither.
_AT_WORK: Final = frozenset("RD")


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds that all processors together were busy since the machine started, and that there were."""

    busy: float
    total: float

    def share_since(self, earlier: CpuTimes) -> float | None:
        """Return the share of time, 0 to 1, in which they were busy; None where no time has passed."""
        passed = self.total - earlier.total
        return min(1.0, max(0.0, (self.busy - earlier.busy) / passed)) if passed > 0 else None


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The machine's memory, in MiB.

    Attributes:
        total, available, free: as the kernel says them.
        cache: files that are kept in memory, mapped ones among them, and what the kernel can give back.
        swap_total, swap_used: of swap.

    """

    total: int
    available: int
    free: int
    cache: int
    swap_total: int
    swap_used: int


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """One process.

    Attributes:
        pid: its number.
        began: seconds between the start of the machine and its own; pid and this together name it for good.
        cpu_seconds: what it has computed, all its threads together.
        at_work: whether its first thread computes now, or waits for a disk or a driver.
        anonymous_mib: memory of its own, shared memory included.
        file_mib: files that it has mapped, as far as they are in memory.

    """

    pid: int
    began: float
    cpu_seconds: float
    at_work: bool
    anonymous_mib: float = 0.0
    file_mib: float = 0.0


def read_cpu(root: Path = Path("/")) -> CpuTimes | None:
    """Return what the processors did; None where /proc does not say."""
    line = _text(root / "proc/stat").partition("\n")[0]
    if not line.startswith("cpu "):
        return None
    ticks = [int(word) for word in line.split()[1 : 1 + _COUNTED]]
    total = sum(ticks)
    idle = sum(ticks[column] for column in _IDLE)
    return CpuTimes((total - idle) / _TICKS, total / _TICKS)


def read_load(root: Path = Path("/")) -> list[float]:
    """Return the load averages over one, five and fifteen minutes; empty where /proc does not say."""
    return [float(word) for word in _text(root / "proc/loadavg").split()[:3]]


def read_memory(root: Path = Path("/")) -> MemoryUse | None:
    """Return what the memory is used for; None where /proc does not say."""
    values = {
        name: int(kib) for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    }
    if "MemTotal" not in values:
        return None

    def mib(*names: str) -> int:
        return sum(values.get(name, 0) for name in names) // 1024

    return MemoryUse(
        total=mib("MemTotal"),
        available=mib("MemAvailable"),
        free=mib("MemFree"),
        # Shared memory counts as cached and is no file's.
        cache=max(0, mib("Cached", "Buffers", "SReclaimable") - mib("Shmem")),
        swap_total=mib("SwapTotal"),
        swap_used=mib("SwapTotal") - mib("SwapFree"),
    )


def read_process(pid: int, root: Path = Path("/"), *, memory: bool = False) -> ProcessUse | None:
    """Return what one process uses, its memory only where asked; None where it is gone, be it as a zombie."""
    fields = _text(root / f"proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) <= _BEGAN or fields[_STATE] in "ZX":
        return None
    held = _kib(_text(root / f"proc/{pid}/status")) if memory else {}
    return ProcessUse(
        pid=pid,
        began=int(fields[_BEGAN]) / _TICKS,
        cpu_seconds=(int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS,
        at_work=fields[_STATE] in _AT_WORK,
        anonymous_mib=(held.get("RssAnon", 0) + held.get("RssShmem", 0)) / 1024,
        file_mib=held.get("RssFile", 0) / 1024,
    )


def read_uptime(root: Path = Path("/")) -> float | None:
    """Return the seconds since the machine started; None where /proc does not say."""
    words = _text(root / "proc/uptime").split()
    return float(words[0]) if words else None


def read_oom_kills(root: Path = Path("/")) -> int | None:
    """Return how many processes the kernel has killed for want of memory, on the whole machine and for any limit."""
    found = re.search(r"^oom_kill (\d+)$", _text(root / "proc/vmstat"), re.MULTILINE)
    return int(found[1]) if found else None


def _kib(text: str) -> dict[str, int]:
    return {name: int(kib) for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
