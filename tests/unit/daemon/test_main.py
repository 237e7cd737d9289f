"""llamarigd as a process, on a host without a bus: what it listens on, what it says, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from llamarig.config import paths
from llamarig.errors import DaemonGoneError
from llamarig.runtime.connections import UnixConnection
from llamarig.runtime.management import Management
from tests.support import ROOT, below, make_spec, provision

SECONDS = 60


class Running:
    """A daemon below a root; ``said`` is what systemd was told."""

    def __init__(self, root: Path, **environment: str) -> None:
        self.root = root
        self._systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._systemd.bind(str(root / "notify"))
        self._systemd.settimeout(SECONDS)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llamarig.daemon.main"],
            env={
                **os.environ,
                "LLAMARIG_ROOT": str(root),
                "PYTHONPATH": str(ROOT / "src"),
                "NOTIFY_SOCKET": str(root / "notify"),
                **environment,
            },
            stderr=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        """Return what systemd is told next."""
        return self._systemd.recv(1000).decode().partition("\n")[0]

    def end(self, number: int = signal.SIGTERM) -> str:
        """End it, and return what it logged."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=SECONDS)
        self._systemd.close()
        return log

    def close(self) -> None:
        self._systemd.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory with a short name: a socket's path has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="d") as directory:
        place = Path(directory)
        provision(place, make_spec("chat"), default="chat")
        (place / "proc").mkdir()
        configure(place, {"port": 0})
        yield place


def configure(root: Path, data: object) -> None:
    below(root, paths.DAEMON_FILE).write_text(json.dumps(data), encoding="utf-8")


@contextlib.contextmanager
def running(root: Path, **environment: str) -> Iterator[Running]:
    found = Running(root, **environment)
    try:
        assert found.hear() == "READY=1"
        yield found
    finally:
        found.close()


def test_it_answers_when_systemd_is_told_that_it_is_ready_and_ends_when_it_is_told_to(root: Path) -> None:
    client = Management(root, origin="cli")
    with running(root) as daemon:
        assert client.get("/version")["version"]
        assert [model["id"] for model in client.get("/models")["models"]] == ["chat"]
        jobs = client.get("/jobs")["jobs"]
        assert (jobs[0]["kind"], jobs[0]["origin"]) == ("reconcile", "start"), "it begins with what should serve"
        for job in jobs:
            *_, last = client.follow(job["id"])
            assert last["state"] == "failed", "this host has no bus"
            assert "bus" in last["error"]["message"]
        log = daemon.end()
    assert daemon.process.returncode == 0
    assert "llamarigd looks after chat" in log
    assert "told to end; services go on" in log
    with pytest.raises(DaemonGoneError):
        client.get("/status")


def test_what_it_was_asked_is_still_known_after_it_was_killed(root: Path) -> None:
    client = Management(root, origin="cli")
    with running(root) as daemon:
        (job, *_) = client.get("/jobs")["jobs"]
        list(client.follow(job["id"]))
        daemon.end(signal.SIGKILL)
    (root / "notify").unlink()
    with running(root):
        assert client.job(job["id"])["state"] == "failed"


def test_it_gives_its_metrics_its_samples_and_its_page_to_everybody_on_the_host(root: Path) -> None:
    def ask(path: str) -> str:
        with contextlib.closing(UnixConnection(str(below(root, paths.READ_SOCKET)), SECONDS)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200
            return response.read().decode()

    with running(root):
        assert '\nllamarig_service_active{service="chat"} 0.0\n' in ask("/metrics")
        assert json.loads(ask("/samples"))["gpus"] == [], "this host has no card"
        assert ask("/ui").startswith("<!doctype html>")


def test_there_is_one_daemon_on_a_host(root: Path) -> None:
    with running(root):
        done = subprocess.run(
            [sys.executable, "-m", "llamarig.daemon.main"],
            env={**os.environ, "LLAMARIG_ROOT": str(root), "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 1
        assert "another llamarigd runs on this host" in done.stderr
        assert Management(root).get("/healthz") == {"ok": True}


def test_the_watchdog_hears_of_it(root: Path) -> None:
    with running(root, WATCHDOG_USEC="150000") as daemon:
        assert [daemon.hear() for _ in range(3)] == ["WATCHDOG=1"] * 3


def test_a_configuration_that_cannot_be_read_takes_the_port_and_nothing_else(root: Path) -> None:
    configure(root, {"bind": "everywhere"})
    with running(root) as daemon:
        (warning,) = Management(root).get("/status")["warnings"]
        assert "the API listens on no port" in warning
        assert "everywhere" in warning
        assert warning in daemon.end()


def test_a_port_that_is_taken_is_said_in_the_status(root: Path) -> None:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        configure(root, {"port": taken.getsockname()[1]})
        with running(root):
            (warning,) = Management(root).get("/status")["warnings"]
    assert "Address already in use" in warning


def test_where_it_cannot_listen_it_says_so_and_ends(root: Path) -> None:
    place = below(root, paths.READ_SOCKET)
    place.parent.mkdir(parents=True)
    place.write_text("no socket")
    done = subprocess.run(
        [sys.executable, "-m", "llamarig.daemon.main"],
        env={**os.environ, "LLAMARIG_ROOT": str(root), "PYTHONPATH": str(ROOT / "src"), "JOURNAL_STREAM": "8:1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("<3>llamarigd cannot serve:"), "systemd reads the priority in front of the line"


def test_memory_stays_small(root: Path) -> None:
    with running(root) as daemon:
        for where in (paths.MANAGE_SOCKET, paths.READ_SOCKET):
            for path in ("/status", "/models", "/services", "/jobs", "/history", "/system", "/openapi.json"):
                with contextlib.closing(UnixConnection(str(below(root, where)), SECONDS)) as connection:
                    assert ask(connection, path) == 200
        status = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="utf-8")
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        assert resident < 60 * 1024


def ask(connection: HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    return response.status
