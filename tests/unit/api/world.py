"""The API as it runs, on sockets in a directory of its own, in front of a daemon of which a test says what it does."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamarig.api.counts import Counts
from llamarig.api.providers import Providers
from llamarig.api.server import Server
from llamarig.config import paths
from llamarig.config.address import Address
from llamarig.daemon.desk import Desk
from llamarig.daemon.jobs import Act, Jobs
from llamarig.errors import LlamarigError, NotFoundError
from llamarig.runtime.connections import UnixConnection
from tests.support import below
from tests.unit.daemon.acting import SECONDS, Acting

SERVICES = ("chat", "code")
JSON = {"Content-Type": "application/json"}


def active(service: str, since: float = 900.0, **changes: Any) -> dict[str, Any]:
    """A service that serves."""
    return {
        "service": service,
        "profile": "small",
        "name": service.title(),
        "url": "http://127.0.0.1:8080",
        "port": 8080,
        "health": "ok",
        "reason": "",
        "since": since,
        "pinned": False,
        "idle_seconds": None,
        "in_flight": 0,
        "restarts": 0,
        "version": "a" * 64,
        "planned": True,
        **changes,
    }


class FakeBoard:
    """Says what a test has it say; ``trouble`` is raised by whatever reads."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.model: str | None = "chat"
        self.events: list[dict[str, Any]] = []
        self.trouble: Exception | None = None
        self.hold: threading.Event | None = None
        self._reads = threading.Semaphore(0)

    def wait_for_reads(self, count: int) -> None:
        """Wait until so many more are reading."""
        for _ in range(count):
            assert self._reads.acquire(timeout=SECONDS)

    def status(self) -> dict[str, Any]:
        job = self.jobs.current()
        return {
            "model": self.model,
            "model_name": "Chat" if self.model else "",
            "state": "starting" if job else "running" if self.model else "idle",
            "status": "chat serves",
            "active": [active(self.model)] if self.model else [],
            "default": "chat",
            "stopped": False,
            "job": job.to_dict() if job else None,
            "queue": [waiting.to_dict() for waiting in self.jobs.waiting()],
            "given_up": {"vision": {"time": 1.5, "reason": "it crashed"}},
            "warnings": [],
            "agent": self.version(),
            "time": 1000.0,
        }

    def models(self) -> dict[str, Any]:
        models = [
            {"id": name, "name": name.title(), "speed": "", "ctx_size": "4096", "is_bench": False, "active": False}
            for name in SERVICES
        ]
        return {"models": models}

    def services(self) -> dict[str, Any]:
        self._read()
        service: dict[str, Any] = {
            "service": "chat",
            "profile": "small",
            "name": "Chat",
            "description": "",
            "speed": "",
            "context": None,
            "strategy": "cpu",
            "is_bench": False,
            "url": "http://127.0.0.1:8080",
            "port": 8080,
            "active": True,
            "pinned": False,
            "default": True,
            "state": "ok",
            "memory": None,
            "leaves": [],
        }
        return {"services": [service]}

    def plan(self, service: str) -> dict[str, Any]:
        self._read()
        _check(service)
        return {
            "service": service,
            "active": service == self.model,
            "leaves": ["chat"],
            "stays": [],
            "refused": None,
            "remedy": "",
            "memory": {"devices": []},
            "url": "http://127.0.0.1:8080",
        }

    def history(self, lines: int) -> list[dict[str, Any]]:
        self._read()
        return self.events[-lines:]

    def history_mark(self) -> object:
        return len(self.events)

    def version(self) -> dict[str, Any]:
        return {"version": "0.1.0", "release": None, "host": "gpu01"}

    def _read(self) -> None:
        self._reads.release()
        if self.hold is not None:
            self.hold.wait(SECONDS)
        if self.trouble is not None:
            raise self.trouble


class FakeFollower:
    """A log of which a test writes the lines."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.closed = threading.Event()

    def fileno(self) -> int:
        return self.reading

    def write(self, text: str) -> None:
        os.write(self.writing, text.encode())

    def end(self) -> None:
        os.close(self.writing)

    def close(self) -> None:
        os.close(self.reading)
        self.closed.set()


class FakeLogs:
    """Logs; ``followers`` are those that were opened."""

    def __init__(self) -> None:
        self.followers: list[FakeFollower] = []

    def lines(self, service: str, count: int) -> list[str]:
        _check(service)
        return [f"{service} line {number}" for number in range(count)]

    def follow(self, service: str, count: int) -> FakeFollower:
        _check(service)
        follower = FakeFollower()
        follower.write("".join(f"{line}\n" for line in self.lines(service, count)))
        self.followers.append(follower)
        return follower


class FakeGauges:
    """A machine at rest; a test says what its cards say."""

    def __init__(self) -> None:
        self.cards: dict[str, Any] = {"gpus": [{"uuid": "GPU-1"}], "age_seconds": 0.5, "error": None}

    def gpus(self) -> dict[str, Any]:
        return self.cards

    def system(self) -> dict[str, Any]:
        memory = {"total_mib": 4096, "available_mib": 2048}
        return {"cpu": 0.1, "load": [0.0, 0.0, 0.0], "memory": memory, "swap": {"total_mib": 0}, "services": {}}


class FakeMetrics:
    """Metrics of which a test says what they are, and how long they take."""

    def __init__(self) -> None:
        self.said = "# HELP llamarig_stopped Whether.\n# TYPE llamarig_stopped gauge\nllamarig_stopped 0\n"
        self.hold: threading.Event | None = None

    def text(self) -> str:
        if self.hold is not None:
            self.hold.wait(SECONDS)
        return self.said


class FakeSamples:
    """Samples of which a test says what they are."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {"every_seconds": 10.0, "time": 1000.0, "times": [990], "gpus": []}
        self.asked: list[int] = []

    def recent(self, seconds: int) -> dict[str, Any]:
        self.asked.append(seconds)
        return self.said


@dataclass(frozen=True)
class Said:
    """An answer."""

    status: int
    data: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class World:
    """The API, and what stands behind it."""

    root: Path
    acting: Acting
    jobs: Jobs
    board: FakeBoard
    logs: FakeLogs
    server: Server
    gauges: FakeGauges = field(default_factory=FakeGauges)
    metrics: FakeMetrics = field(default_factory=FakeMetrics)
    samples: FakeSamples = field(default_factory=FakeSamples)
    counts: Counts = field(default_factory=Counts)

    def connect(self, where: str = "manage") -> http.client.HTTPConnection:
        """Connect to the API: where one may ``manage``, where one may ``read``, or on its ``port``."""
        if where == "port":
            return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=SECONDS)
        path = paths.MANAGE_SOCKET if where == "manage" else paths.READ_SOCKET
        return UnixConnection(str(below(self.root, path)), SECONDS)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        where: str = "manage",
        headers: Mapping[str, str] | None = None,
    ) -> Said:
        """Ask, and read the whole answer."""
        with contextlib.closing(self.connect(where)) as connection:
            text = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
            sent = dict(JSON if headers is None and method != "GET" else headers or {})
            connection.request(method, path, text, sent)
            response = connection.getresponse()
            raw = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
            kind = found.get("content-type", "application/json")
            data = json.loads(raw) if raw and kind == "application/json" else raw.decode() or None
            return Said(response.status, data, found)

    @contextlib.contextmanager
    def events(self, path: str, *, where: str = "manage", after: int | None = None) -> Iterator[Events]:
        """Follow events."""
        with contextlib.closing(self.connect(where)) as connection:
            headers = {"Last-Event-ID": str(after)} if after is not None else {}
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            with response:
                yield Events(response)


class Events:
    """Events as they are read: number, kind and data."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.response = response
        self.status = response.status

    def next(self, kind: str | None = None) -> tuple[int | None, str, Any] | None:
        """Return the next event, of a kind if one is named; None at the end."""
        number, name, data = None, "", None
        while line := self.response.readline():
            text = line.decode().rstrip("\n")
            if text.startswith("id: "):
                number = int(text[4:])
            elif text.startswith("event: "):
                name = text[7:]
            elif text.startswith("data: "):
                data = json.loads(text[6:])
            elif not text and name:
                if kind in {None, name}:
                    return number, name, data
                number, name, data = None, "", None
        return None

    def all(self) -> list[tuple[int | None, str, Any]]:
        """Return events until the end."""
        found = []
        while (event := self.next()) is not None:
            found.append(event)
        return found


def _check(service: str) -> None:
    if service not in SERVICES:
        raise NotFoundError(f"this host runs no service {service!r}", f"choose one of: {', '.join(SERVICES)}")


def broken() -> LlamarigError:
    return LlamarigError("a spec cannot be read", "run playbooks/site.yml")


@contextlib.contextmanager
def world(act: Act | None = None) -> Iterator[World]:
    """Run the API in front of a Switcher, by default one of which the test says when and how it ends.

    Its directory has a short name, for a socket's path has at most 107 characters.
    """
    with tempfile.TemporaryDirectory(prefix="api") as directory:
        root, acting = Path(directory), Acting()
        jobs = Jobs(act or acting.perform, root)
        board, logs = FakeBoard(jobs), FakeLogs()
        desk = Desk(jobs, lambda: SERVICES, lambda: ("chat", "gone"))
        gauges, metrics, samples, counts = FakeGauges(), FakeMetrics(), FakeSamples(), Counts()
        providers = Providers(board, desk, logs, gauges, metrics, samples)
        server = Server(providers, root, Address("127.0.0.1", 0), counts)
        jobs.start()
        server.start()
        try:
            yield World(root, acting, jobs, board, logs, server, gauges, metrics, samples, counts)
        finally:
            server.stop(SECONDS)
            jobs.close(0)
            for _ in jobs.all():
                acting.end()
            assert jobs.close(SECONDS)
