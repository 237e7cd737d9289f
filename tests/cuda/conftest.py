"""CUDA's compiler, made once for all of these tests."""

from __future__ import annotations

import platform
import shutil
from typing import Final

import pytest

from llamarig.lab.cuda_toolkit import Toolkit, ensure_toolkit
from llamarig.lab.machine import LabError
from tests.contract.tree import ROOT

CACHE: Final = ROOT / ".cache/engine"
PROGRAMS: Final = ("cmake", "ninja", "cc", "c++", "readelf", "strip")


@pytest.fixture(scope="session")
def toolkit() -> Toolkit:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install cmake ninja-build g++ binutils")
    if platform.machine() != "x86_64":
        pytest.skip(f"the pinned wheels of CUDA are for x86_64, and this is {platform.machine()}")
    try:
        return ensure_toolkit(CACHE, print)
    except LabError as error:
        pytest.skip(f"CUDA's compiler cannot be had: {error.message}")
