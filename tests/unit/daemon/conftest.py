from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import make_spec
from tests.unit.daemon.fakes import Host

ALPHA = make_spec("alpha", port=8080)
BETA = make_spec("beta", port=8090)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host that runs alpha and beta, alpha by default; nothing serves yet."""
    return Host(tmp_path, ALPHA, BETA, default="alpha")


@pytest.fixture
def serving_alpha(host: Host) -> Host:
    """The same host, with alpha active."""
    host.switcher.switch("alpha")
    host.units.changes.clear()
    host.said.clear()
    return host


@pytest.fixture
def serving_beta(host: Host) -> Host:
    """The same host, with beta active."""
    host.switcher.switch("beta")
    host.units.changes.clear()
    return host
