"""A daemon for the verbs to ask: the real one, but that it looks after a host in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from llamarig.api.providers import Providers
from llamarig.api.server import Server
from llamarig.daemon.board import Board
from llamarig.daemon.desk import Desk
from llamarig.daemon.jobs import Jobs
from llamarig.daemon.memory import MemoryStore
from llamarig.daemon.supervisor import View
from tests.unit.daemon.fakes import Host

LOG = ['{"type": "log", "level": "info", "msg": "model loaded"}', "plain words"]
SECONDS = 20


class Views:
    """What somebody sees who looks at the services."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def view(self) -> Mapping[str, View]:
        found = {}
        for name in self.host.state.read().names:
            spec = self.host.specs.planned(name)
            if spec is not None:
                restarts = self.host.units.state(name).restarts
                in_flight = self.host.door.in_flight.get(spec.port, 0)
                found[name] = View(self.host.engine.health(spec), "", restarts, in_flight)
        return found


class RecordingDesk(Desk):
    """Also remembers what was asked for, and by whom."""

    def __init__(self, jobs: Jobs, board: Board) -> None:
        super().__init__(jobs, board.known, board.serving)
        self.asked: list[tuple[str, dict[str, Any], str]] = []

    def ask(self, kind: str, body: Mapping[str, Any], origin: str) -> dict[str, Any]:
        self.asked.append((kind, dict(body), origin))
        return super().ask(kind, body, origin)


class Log:
    """A log that comes to its end."""

    def __init__(self, lines: list[str]) -> None:
        self._reading, writing = os.pipe()
        os.write(writing, "".join(f"{line}\n" for line in lines).encode())
        os.close(writing)

    def fileno(self) -> int:
        return self._reading

    def close(self) -> None:
        os.close(self._reading)


class Logs:
    """The journal."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def lines(self, service: str, count: int) -> list[str]:
        self.host.specs.get(service)
        return LOG[-count:]

    def follow(self, service: str, count: int) -> Log:
        return Log(self.lines(service, count))


class NoGauges:
    """A machine that nobody asks about."""

    def gpus(self) -> dict[str, Any]:
        return {}

    def system(self) -> dict[str, Any]:
        return {}


class NoMetrics:
    """What nobody counts."""

    def text(self) -> str:
        return ""

    def recent(self, seconds: int) -> dict[str, Any]:
        return {"seconds": seconds}


class HostDaemon:
    """The daemon of a host in memory; ``asked`` is what it was asked to do: kind, body and origin."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.jobs = Jobs(host.switcher.perform, host.root)
        self.board = Board(
            specs=host.specs,
            state=host.state,
            memory=MemoryStore(host.root),
            jobs=self.jobs,
            door=host.door,
            views=Views(host),
        )
        self.desk = RecordingDesk(self.jobs, self.board)
        providers = Providers(self.board, self.desk, Logs(host), NoGauges(), NoMetrics(), NoMetrics())
        self.server = Server(providers, host.root)
        self.jobs.start()
        self.server.start()

    @property
    def asked(self) -> list[tuple[str, dict[str, Any], str]]:
        return self.desk.asked

    def kill(self, seconds: float = SECONDS) -> None:
        """End it; what serves goes on."""
        self.server.stop(seconds)
        self.jobs.close(SECONDS)
