"""A host whose daemon says what a test wants, with and without threads between."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from textual.pilot import Pilot

from llamarig.dashboard.app import Dashboard
from llamarig.dashboard.client import Client, Link
from llamarig.dashboard.feed import Answered, LogBegun, Logged, Message, Refused, Said, Up, why
from llamarig.dashboard.host_screen import HostScreen
from llamarig.dashboard.panel import Panel
from llamarig.dashboard.sheet import Sheet
from llamarig.dashboard.watch import Watch
from llamarig.errors import LlamarigError

NOW = 1_800_000_000.0


def serving(service: str = "chat", **changes: Any) -> dict[str, Any]:
    """One active service."""
    known = {"service": service, "health": "ok", "url": "http://127.0.0.1:8080", "since": NOW - 8000.0, "in_flight": 0}
    return known | changes


def status(*active: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What GET /status answers; ``chat`` serves unless other services are given."""
    services = list(active) or [serving()]
    known = {"model": services[0]["service"], "model_name": "A Model", "state": "running", "status": "chat serves"}
    return known | {"active": services, "queue": [], "job": None, "time": NOW, "agent": {"version": "9.8"}} | changes


def nothing(**changes: Any) -> dict[str, Any]:
    """What GET /status answers where nothing serves."""
    return status() | {"model": None, "model_name": None, "state": "idle", "active": []} | changes


def card(**changes: Any) -> dict[str, Any]:
    """One card."""
    known = {"model": "NVIDIA GeForce RTX 4090", "memory_mib": 24576, "used_mib": 12288, "utilisation": 0.5}
    more = {"temperature_c": 60, "power_w": 300, "power_limit_w": 450, "clock_mhz": 2500, "memory_clock_mhz": 10501}
    return known | more | {"throttle": [], "services": {"chat": 11264}} | changes


GPUS = {"gpus": [card(), card(model="NVIDIA GeForce RTX 5070 Ti", memory_mib=16384, used_mib=15360)], "error": None}
MEMORY = {"total_mib": 65536, "available_mib": 32768, "model_mib": 20480, "cache_mib": 8192, "system_mib": 4096}
SYSTEM = {
    "cpu": 0.25,
    "load": [1.5, 1.0, 0.5],
    "memory": MEMORY,
    "swap": {"total_mib": 8192, "used_mib": 0},
    "services": {"chat": {"cpu": 7.5, "memory_mib": 20480}},
}
SERVICES = {
    "services": [
        {"service": "chat", "name": "Chat Model", "speed": "~120 t/s", "context": 262144, "active": True, "leaves": []},
        {"service": "code", "name": "Code Model", "speed": "~33 t/s", "context": 131072, "leaves": ["chat"]},
        {"service": "tiny", "name": "Tiny", "speed": "", "context": 1000, "leaves": []},
        {"service": "bench-chat", "name": "Chat Model", "is_bench": True, "context": 10240, "leaves": ["chat"]},
    ]
}
PLAN = {
    "service": "code",
    "active": False,
    "leaves": ["chat"],
    "stays": ["tiny"],
    "refused": None,
    "url": "http://127.0.0.1:8090",
    "memory": {
        "devices": [
            {"name": "rtx4090", "memory": 24576, "weights": 18432, "cache": 1024, "compute": 512, "context": 512}
        ],
        "host": {"weights": 2048, "other": 1024, "limit": 61440},
    },
}
HISTORY = {
    "events": [
        {"time": NOW - 50, "kind": "switch", "service": "chat", "previous": None, "outcome": "succeeded", "phases": {}},
        {
            "time": NOW,
            "kind": "switch",
            "service": "code",
            "previous": "chat",
            "outcome": "failed",
            "reason": "its weights are not there",
            "origin": "cli",
            "phases": {"drain": 1.5, "stop": 0.25, "load": 12.0},
            "log_lines": ["first", "second", "third", "fourth, which is much longer than the others"],
        },
    ]
}
JOB = {"id": "j7", "kind": "switch", "service": "code", "state": "running", "phase": "load", "started": NOW - 30.0}
JOB |= {"phases": {"drain": 2.0, "load": 3.0}, "text": "34 % of the weights"}


class Scripted:
    """A source without threads: what a test puts in comes out, and questions are answered at once."""

    def __init__(self, *said: Message, answers: Mapping[str, Any] | None = None) -> None:
        self.waiting: list[Message] = list(said)
        self.answers = {"/services": SERVICES, "/plan/code": PLAN, "/history": HISTORY, **(answers or {})}
        self.asked: list[tuple[str, Any]] = []
        self.followed: list[str] = []
        self.looked: tuple[str, ...] = ()
        self.started = self.stopped = False
        self._count = 0

    def start(self, _wake: Callable[[], None]) -> None:
        self.started = True

    def stop(self) -> None:
        self.stopped = True

    def drain(self) -> list[Message]:
        said, self.waiting = self.waiting, []
        return said

    def follow(self, service: str) -> None:
        self.followed.append(service)

    def look(self, *kinds: str, seconds: float | None = None) -> None:
        assert seconds
        self.looked = kinds

    def ask(self, question: Callable[[Client], Any]) -> int:
        self._count += 1
        try:
            self.waiting.append(Answered(self._count, question(self)))
        except LlamarigError as error:
            self.waiting.append(Refused(self._count, why(error), error.remedy))
        return self._count

    def only_looks(self) -> str:
        return ""

    def get(self, path: str, **_query: str | float) -> dict[str, Any]:
        return self._answer(path, {})

    def submit(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append((path, dict(body)))
        return self._answer(path, {"id": "j1"})

    def delete(self, path: str) -> dict[str, Any]:
        self.asked.append((path, None))
        return self._answer(path, {})

    def _answer(self, path: str, usual: dict[str, Any]) -> dict[str, Any]:
        found = self.answers.get(path, usual)
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]  # also what is no object, which a daemon should not say

    def events(self) -> Iterator[Any]:
        return iter(())

    def log(self, _service: str, lines: int = 50) -> Iterator[str]:
        return iter([""] * (lines * 0))


@dataclass
class Clock:
    """Time that goes on when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Box:
    """One host and its dashboard on a terminal that nobody sees."""

    feed: Scripted
    clock: Clock = field(default_factory=Clock)
    name: str = "gpu01"

    def __post_init__(self) -> None:
        self.watch = Watch(self.name, self.feed, clock=self.clock, wall=lambda: NOW)

    def say(self, *messages: Message) -> None:
        self.feed.waiting += messages


def box(*more: Message, answers: Mapping[str, Any] | None = None, read_only: str = "", **changes: Any) -> Box:
    """A host with two cards whose ``chat`` serves, and 100 lines of its log."""
    known: list[Message] = [
        Said("status", status(**changes)),
        Up(read_only),
        Said("gpus", GPUS),
        Said("system", SYSTEM),
    ]
    log: list[Message] = [LogBegun("chat"), *(Logged("chat", f"line {number}") for number in range(1, 101))]
    return Box(Scripted(*known, *log, *more, answers=answers))


class Terminal:
    """What a user sees and presses."""

    def __init__(self, app: Dashboard, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    async def draw(self) -> None:
        """Let what came be drawn."""
        self.app.draw()
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        """Press keys, and see what comes of each."""
        for key in keys:
            await self.pilot.press(key)
            await self.draw()

    async def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal."""
        await self.pilot.resize_terminal(columns, rows)
        await self.draw()

    @property
    def host(self) -> HostScreen:
        """The dashboard of a host."""
        return next(screen for screen in reversed(self.app.screen_stack) if isinstance(screen, HostScreen))

    @property
    def sheet(self) -> str:
        """What lies on top, empty if nothing does."""
        return "\n".join(self.app.screen.panel.words) if isinstance(self.app.screen, Sheet) else ""

    def panel(self, name: str) -> str:
        """What a panel of the host shows."""
        panel = getattr(self.host, name)
        assert isinstance(panel, Panel)
        return "\n".join(panel.words) if panel.display else ""

    @property
    def screen(self) -> list[str]:
        """What the terminal shows, line by line."""
        width, height = self.app.size
        strips = self.app.screen._compositor.render_strips()
        lines = ["".join(segment.text for segment in strip) for strip in strips]
        assert len(lines) == height
        assert all(len(text) == width for text in lines), lines
        return lines


def watch(
    boxes: Box | Sequence[Box],
    script: Callable[[Terminal], Awaitable[None]],
    *,
    size: tuple[int, int] = (80, 24),
    fleet: bool = False,
    few: bool | None = False,
) -> Dashboard:
    """Open a dashboard, and let a script use it."""
    watches = [one.watch for one in ([boxes] if isinstance(boxes, Box) else boxes)]
    app = Dashboard(watches, fleet=fleet, few=few)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            terminal = Terminal(app, pilot)
            await pilot.pause()
            await terminal.draw()
            await script(terminal)

    asyncio.run(run())
    return app


class Daemon:
    """A daemon that is asked from threads: it says what a test puts in, and is away when a test says so."""

    def __init__(self) -> None:
        self.happened: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.away: Exception | None = None
        self.asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.connected = 0
        self.held = threading.Event()
        self.held.set()

    def connect(self) -> Link:
        self.connected += 1
        if self.away is not None:
            raise self.away
        return Link(self)

    def only_looks(self) -> str:
        return ""

    def get(self, path: str, **_query: str | float) -> dict[str, Any]:
        self.held.wait()
        self.asked.put(path)
        if self.away is not None:
            raise self.away
        return {"/status": status(), "/gpus": GPUS, "/system": SYSTEM}[path]

    def submit(self, path: str, _body: Mapping[str, Any]) -> dict[str, Any]:
        raise LlamarigError(f"no {path}", "ask for something else")

    def delete(self, path: str) -> dict[str, Any]:
        raise RuntimeError(path)

    def events(self) -> Iterator[Any]:
        yield from iter(self.happened.get, None)

    def log(self, service: str, lines: int = 50) -> Iterator[str]:
        assert lines
        yield f"first of {service}"
        for text in iter(self.lines.get, None):
            if isinstance(text, Exception):
                raise text
            yield text
