"""Prometheus's own programs, where the machine or scripts/test has them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.contract.tree import ROOT

_PATH = os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / ".cache/promtool/usr/bin")])
PROGRAMS = {name: shutil.which(name, path=_PATH) for name in ("promtool", "amtool", "prometheus")}


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(PROGRAMS[program] is None, reason=f"there is no {program} here: scripts/test brings it")


def said(program: str, *arguments: str | Path, input: str | None = None) -> tuple[int, str]:  # noqa: A002  as subprocess calls it
    """Run it, on an input where it reads one, and return its exit status and all that it said."""
    command = [str(PROGRAMS[program]), *map(str, arguments)]
    done = subprocess.run(command, input=input, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr
