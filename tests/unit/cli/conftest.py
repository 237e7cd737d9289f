from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llamarig.cli.main import cli
from tests.support import make_spec
from tests.unit.daemon.fakes import Host

LOG = ['{"type": "log", "level": "info", "msg": "model loaded"}', "plain words"]


@dataclass
class Shell:
    """Types commands on a host; every command ends as a person would accept it."""

    host: Host

    def __call__(self, *words: str) -> Result:
        result = CliRunner().invoke(cli, words, prog_name="llamarig")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    def json(self, *words: str) -> dict[str, Any]:
        """Type a command with --json and check the envelope."""
        body = json.loads(self(*words, "--json").stdout)
        assert list(body) == ["version", "command", "data", "error"]
        assert (body["version"], body["command"]) == (1, words[0])
        assert (body["data"] is None) != (body["error"] is None)
        return dict(body)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A root shell on a host that runs alpha and beta, nothing active."""
    host = Host(tmp_path, make_spec("alpha"), make_spec("beta", port=8090), default="alpha")
    (tmp_path / "run/systemd/timesync").mkdir(parents=True)
    (tmp_path / "run/systemd/timesync/synchronized").touch()
    monkeypatch.setenv("LLAMARIG_ROOT", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("llamarig.runtime.systemd.Systemd", lambda: host.units)
    monkeypatch.setattr("llamarig.runtime.engine.LlamaServer", lambda _: host.engine)
    monkeypatch.setattr("llamarig.runtime.systemd.journal", lambda *_: LOG)
    monkeypatch.setattr("llamarig.runtime.fit_params._DOCKER", str(tmp_path / "no-docker"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield Shell(host)
    for number, handler in handlers.items():
        signal.signal(number, handler)
