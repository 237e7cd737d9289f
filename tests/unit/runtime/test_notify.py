from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path

import pytest

from llamarig.runtime.notify import Marked, notify, watchdog_seconds


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(abstract: bool, tmp_path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        name = f"llamarig-{os.getpid()}" if abstract else str(tmp_path / "n")
        systemd.bind(f"\0{name}" if abstract else name)
        notify("READY=1\nSTATUS=well", {"NOTIFY_SOCKET": f"@{name}" if abstract else name})
        assert systemd.recv(100) == b"READY=1\nSTATUS=well"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_nobody_need_listen(environment: dict[str, str]) -> None:
    notify("READY=1", environment)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "90000000"}, 90.0),
        ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": str(os.getpid())}, 90.0),
        ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_what_systemd_wants_to_hear(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds(environment) == seconds


@pytest.mark.parametrize(
    ("level", "mark"), [(logging.INFO, "<6>"), (logging.WARNING, "<4>"), (logging.ERROR, "<3>"), (25, "<6>")]
)
def test_no_line_passes_for_one_of_another_priority(level: int, mark: str) -> None:
    record = logging.LogRecord("x", level, "x", 1, "%s", ("one\n<0>two",), None)
    assert Marked().format(record) == f"{mark}one\n{mark}  <0>two"
