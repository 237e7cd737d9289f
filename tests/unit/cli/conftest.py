from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llamarig.cli.main import cli
from llamarig.config.spec import HostMemory, Memory, Spec
from tests.support import make_spec
from tests.unit.cli.host_daemon import LOG, HostDaemon
from tests.unit.daemon.fakes import Host

SMALL = Memory([], HostMemory(1024, 100, 10, 10, 10), "header", 0, 0, [])


@dataclass
class Shell:
    """Types commands on a host; every command ends as a person would accept it."""

    host: Host
    daemon: HostDaemon

    def __call__(self, *words: str, **more: Any) -> Result:
        result = CliRunner().invoke(cli, words, prog_name="llamarig", **more)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    def files(self) -> dict[str, bytes]:
        """Everything on the host's disk, but the lock, which holds nothing."""
        found = (path for path in self.host.root.rglob("*") if path.is_file() and path.name != "lock")
        return {str(path.relative_to(self.host.root)): path.read_bytes() for path in found}

    def json(self, *words: str) -> dict[str, Any]:
        """Type a command with --json and check the envelope."""
        body = json.loads(self(*words, "--json").stdout)
        assert list(body) == ["version", "command", "data", "error"]
        assert (body["version"], body["command"].split()[0]) == (1, words[0])
        assert (body["data"] is None) != (body["error"] is None)
        return dict(body)


@contextmanager
def loading(shell: Shell, service: str) -> Iterator[Callable[[], None]]:
    """Let a service load until it is told to be done, or its switch is cancelled."""
    done, begun = threading.Event(), threading.Event()
    health = shell.host.engine.health

    def slow(spec: Spec) -> str:
        if spec.service == service:
            begun.set()
            while not done.wait(0.01) and not shell.daemon.jobs._cancelled.is_set():
                continue
        return health(spec)

    shell.host.engine.health = slow  # type: ignore[method-assign]
    yield done.set
    done.set()
    shell.host.engine.health = health  # type: ignore[method-assign]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A root shell on a host whose daemon runs; alpha and beta take turns on a port, gamma has its own."""
    services = (
        make_spec("alpha", memory=SMALL, title="Alpha 7B", speed="~120 tokens/s"),
        make_spec("beta", memory=SMALL),
        make_spec("gamma", port=8090, memory=SMALL),
    )
    host = Host(tmp_path, *services, default="alpha")
    (tmp_path / "run/systemd/timesync").mkdir(parents=True)
    (tmp_path / "run/systemd/timesync/synchronized").touch()
    for name in ("LLAMARIG_URL", "LLAMARIG_API_KEY", "LLAMARIG_ORIGIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLAMARIG_ROOT", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["llamarig"])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("llamarig.runtime.systemd.Systemd", lambda: host.units)
    monkeypatch.setattr("llamarig.checks.box.Systemd", lambda: host.units)
    monkeypatch.setattr("llamarig.runtime.engine.LlamaServer", lambda _: host.engine)
    monkeypatch.setattr("llamarig.checks.box.LlamaServer", lambda _: host.engine)
    monkeypatch.setattr("llamarig.checks.box.LinkDoor", lambda _: host.door)
    monkeypatch.setattr("llamarig.runtime.systemd.journal", lambda *_: LOG)
    monkeypatch.setattr("llamarig.runtime.fit_params._DOCKER", str(tmp_path / "no-docker"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    result = Shell(host, HostDaemon(host))
    yield result
    # It ends by itself; nobody has to wait for its connections.
    result.daemon.kill(seconds=0)
    for number, handler in handlers.items():
        signal.signal(number, handler)
