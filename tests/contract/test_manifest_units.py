"""Units in a manifest: started, restarted or told to read anew, with a systemctl that says what it was asked."""

from __future__ import annotations

import grp
import os
import pwd
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.modules import run_module

SYSTEMCTL = """#!/bin/sh
case $1 in
  show)
    echo UnitFileState=enabled
    echo "ActiveState=$PLAYED_ACTIVE"
    echo "ActiveEnterTimestamp=@$PLAYED_STARTED"
    echo "StateChangeTimestamp=@$PLAYED_READ"
    ;;
  *) echo "$*" >>"$PLAYED_LOG" ;;
esac
"""
LONG_AGO = 1_000_000_000


class Host:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "some.cfg"
        systemctl = directory / "bin" / "systemctl"
        systemctl.parent.mkdir()
        systemctl.write_text(SYSTEMCTL, encoding="utf-8")
        systemctl.chmod(0o755)

    def converge(
        self,
        unit: dict[str, Any],
        *,
        started: float,
        read: float,
        active: str = "active",
        check: bool = False,
    ) -> list[str]:
        """Converge the file and its unit; return what systemd was asked for, and see that the module says the same."""
        log = self.directory / "log"
        log.unlink(missing_ok=True)
        owner = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
        files = [{"path": str(self.config), "content": "one", **owner}]
        result = run_module(
            "manifest",
            {"files": files, "units": [{"name": "some.service", "enabled": True, "active": True, **unit}]},
            self.directory,
            check=check,
            PATH=f"{self.directory}/bin:{os.environ['PATH']}",
            PLAYED_LOG=str(log),
            PLAYED_ACTIVE=active,
            PLAYED_STARTED=str(int(started)),
            PLAYED_READ=str(int(read)),
        )
        asked = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        said: list[str] = result["changed_units"]
        assert check or said == asked
        return said


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize(("key", "verb"), [("restart_on", "restart"), ("reload_on", "reload")])
def test_a_unit_that_runs_follows_what_changed(host: Host, key: str, verb: str) -> None:
    follows = {key: [str(host.config)]}
    now = time.time()
    assert host.converge(follows, started=now, read=now, check=True) == [f"{verb} some.service"]
    assert host.converge(follows, started=now, read=now) == [f"{verb} some.service"]
    later = time.time() + 5
    assert host.converge(follows, started=later, read=later) == []


def test_what_a_run_that_broke_off_wrote_is_read_by_the_next(host: Host) -> None:
    host.config.write_text("one", encoding="utf-8")
    host.config.chmod(0o644)
    written = host.config.stat().st_mtime
    follows = {"reload_on": [str(host.config)]}
    assert host.converge(follows, started=LONG_AGO, read=LONG_AGO) == ["reload some.service"]
    assert host.converge(follows, started=LONG_AGO, read=written + 5) == []


def test_a_unit_that_is_restarted_is_not_told_to_read_anew_too(host: Host) -> None:
    both = {"restart_on": [str(host.config)], "reload_on": [str(host.config)]}
    assert host.converge(both, started=LONG_AGO, read=LONG_AGO) == ["restart some.service"]


def test_a_unit_that_does_not_run_is_started_and_reads_what_is_there(host: Host) -> None:
    follows = {"reload_on": [str(host.config)]}
    assert host.converge(follows, started=0, read=0, active="inactive") == ["start some.service"]
