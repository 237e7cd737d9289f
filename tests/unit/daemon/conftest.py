from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamarig.config.spec import HostMemory, Memory
from tests.support import make_spec
from tests.unit.daemon.fakes import Host
from tests.unit.daemon.upgraded import NEW, OLD, Box

SMALL = Memory([], HostMemory(1024, 100, 10, 10, 10), "header", 0, 0, [])
ALPHA = make_spec("alpha", port=8080, memory=SMALL)
BETA = make_spec("beta", port=8080, memory=SMALL)
GAMMA = make_spec("gamma", port=8090, memory=SMALL)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host on which alpha and beta take turns on one port, alpha by default; nothing serves yet."""
    return Host(tmp_path, ALPHA, BETA, GAMMA, default="alpha")


@pytest.fixture
def serving_alpha(host: Host) -> Host:
    """The same host, with alpha active."""
    host.switch("alpha")
    host.units.changes.clear()
    host.effects.clear()
    return host


@pytest.fixture
def serving_beta(host: Host) -> Host:
    """The same host, with beta active."""
    host.switch("beta")
    host.units.changes.clear()
    host.effects.clear()
    return host


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def box(quick_disk: None, tmp_path: Path) -> Box:  # noqa: ARG001  before anything is written
    """A host that was upgraded from the old to the new engine; alpha serves."""
    host = Box(tmp_path)
    host.converge(OLD)
    host.clock.seconds += 1
    host.converge(NEW)
    host.units.changes.clear()
    return host
