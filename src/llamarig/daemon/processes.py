"""What engines' processes do: which one is it, does it compute, and was one killed for want of memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from llamarig.config import paths
from llamarig.hardware.usage import ProcessUse, read_oom_kills, read_process

# An engine that rests wakes up for questions only: far less than a hundredth of a processor.
_AT_WORK: Final = 0.01
# Processes that came later are looked for so often; a look at all of /proc is dear.
_SEARCH_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Work:
    """A service's processes.

    Attributes:
        first: number and beginning (seconds since the machine started) of the oldest.
        works: whether they computed since the look before, or wait for a disk; None where there was no look before.

    """

    first: tuple[int, float]
    works: bool | None


@dataclass(frozen=True, slots=True)
class _Group:
    """Processes of a service as last seen, and when all of /proc was searched for them."""

    uses: tuple[ProcessUse, ...]
    time: float
    searched: float

    @property
    def first(self) -> tuple[int, float]:
        began, pid = min((use.began, use.pid) for use in self.uses)
        return pid, began


class Processes:
    """Engines' processes on this host, looked at again and again; ``pids`` searches for those of a service."""

    def __init__(self, pids: Callable[[str], list[int]], root: Path, clock: Callable[[], float]) -> None:
        self._pids = pids
        self._root = root
        self._clock = clock
        self._groups: dict[str, _Group] = {}
        self._counters: dict[str, Path] = {}

    def look(self, service: str) -> Work | None:
        """Return what a service's processes did since the last call; None where it has none."""
        time = self._clock()
        before = self._groups.get(service)
        uses, searched = self._known(before, time), before.searched if before else time
        if uses is None:
            uses, searched = self._read(self._pids(service)), time
        if not uses:
            self._groups.pop(service, None)
            return None
        group = self._groups[service] = _Group(uses, time, searched)
        return Work(group.first, self._works(before, group))

    def oom_kills(self, service: str) -> int | None:
        """Return a count that rises when the kernel kills a process for want of memory.

        Of the service's own cgroup where the kernel counts that (cgroup v2), else of the whole machine.
        """
        place = self._counters.get(service)
        if place is None:
            place = self._counter(service)
            if not place.exists():  # as yet: a service that has not begun has no cgroup
                return read_oom_kills(self._root)
            self._counters[service] = place
        try:
            found = re.search(r"^oom_kill (\d+)$", place.read_text(encoding="ascii"), re.MULTILINE)
        except OSError:
            return None
        return int(found[1]) if found else None

    def _known(self, group: _Group | None, time: float) -> tuple[ProcessUse, ...] | None:
        """Return the same processes as they are now; None where one has gone, or others may have come."""
        if group is None or time - group.searched > _SEARCH_SECONDS:
            return None
        uses = self._read(use.pid for use in group.uses)
        same = [(use.pid, use.began) for use in uses] == [(use.pid, use.began) for use in group.uses]
        return uses if same else None

    def _read(self, pids: Iterable[int]) -> tuple[ProcessUse, ...]:
        return tuple(use for pid in pids if (use := read_process(pid, self._root)) is not None)

    @staticmethod
    def _works(before: _Group | None, group: _Group) -> bool | None:
        if any(use.at_work for use in group.uses):
            return True
        if before is None or before.first != group.first or group.time <= before.time:
            return None
        earlier = {use.pid: use.cpu_seconds for use in before.uses}
        computed = sum(use.cpu_seconds - earlier.get(use.pid, use.cpu_seconds) for use in group.uses)
        return computed >= _AT_WORK * (group.time - before.time)

    def _counter(self, service: str) -> Path:
        """Return the file that counts; slices are nested at each dash."""
        words = paths.slice_unit(service).removesuffix(".slice").split("-")
        nested = [f"{name}.slice" for name in accumulate(words, "{}-{}".format)]
        return self._root.joinpath("sys/fs/cgroup", *nested, "memory.events")
