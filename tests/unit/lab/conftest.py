from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llamarig.lab.silicon import binaries, drivers
from llamarig.lab.silicon.binaries import Driver
from llamarig.lab.silicon.cards import card_lines

PROBE = """\
import json, pynvml
from pynvml import *
def code(call, *arguments):
    try:
        return call(*arguments)
    except NVMLError as error:
        return f"error {error.value}"
def card(index):
    return nvmlDeviceGetHandleByIndex(index)
nvmlInit()
print(json.dumps(%s))
"""


@dataclass(frozen=True)
class Box:
    """A played machine in a directory: its cards, its faults, what its kernel shows; and its installed driver."""

    root: Path
    libraries: Path

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")

    def install(self, driver: Driver) -> None:
        """Install the user space of a driver."""
        (self.libraries / "libnvidia-ml.so.1").write_bytes(binaries.nvml(driver))
        (self.libraries / "libcuda.so.1").write_bytes(binaries.cuda(driver))

    def plug(self, *models: str) -> list[str]:
        """Put cards in; return their lines."""
        lines = card_lines("box", list(models))
        self.write("var/lib/lab-silicon/cards", "".join(f"{line}\n" for line in lines))
        return lines

    def load(self, version: str, nodes: int) -> None:
        """Show the kernel module as loaded, and nodes of its cards."""
        self.write("sys/module/nvidia/version", f"{version}\n")
        for name in ["nvidiactl", *(f"nvidia{minor}" for minor in range(nodes))]:
            self.write(f"dev/{name}", "")

    def fault(self, *lines: str) -> None:
        self.write("var/lib/lab-silicon/faults", "".join(f"{line}\n" for line in lines))

    def start(self, pid: int, comm: str, rss_kib: int, *minors: int, namespace: str = "container") -> None:
        """Run a process, as /proc shows it; with ``host`` as its namespace it is in that of pid 1."""
        self.write("proc/1/ns/mnt", "")
        self.write(f"proc/{pid}/comm", f"{comm}\n")
        self.write(f"proc/{pid}/status", f"Name:\t{comm}\nVmRSS:\t{rss_kib} kB\n")
        for minor in minors:
            self.write(f"proc/{pid}/root/dev/nvidia{minor}", "")
        own = self.root / f"proc/{pid}/ns/mnt"
        if namespace == "host":
            own.parent.mkdir()
            own.hardlink_to(self.root / "proc/1/ns/mnt")
        else:
            self.write(f"proc/{pid}/ns/mnt", "")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program that sees this machine and its libraries."""
        environment = os.environ | {"LAB_SILICON_ROOT": str(self.root), "LD_LIBRARY_PATH": str(self.libraries)}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    def ask(self, expression: str) -> Any:
        """Return an expression's value after nvmlInit, or the error of nvmlInit; ``code(f, ...)`` catches others."""
        done = self.run(sys.executable, "-c", PROBE % expression)
        lines = done.stderr.splitlines()
        return json.loads(done.stdout) if done.returncode == 0 else lines[-1].split(":")[0].removeprefix("pynvml.")

    def cuda(self) -> tuple[int, int, int]:
        """Return what cuInit says, the number of devices, the version of CUDA."""
        probe = (
            "import ctypes; cuda = ctypes.CDLL('libcuda.so.1'); count, version = ctypes.c_int(-1), ctypes.c_int()\n"
            "code = cuda.cuInit(0); cuda.cuDeviceGetCount(ctypes.byref(count))\n"
            "cuda.cuDriverGetVersion(ctypes.byref(version)); print(code, count.value, version.value)"
        )
        code, count, version = self.run(sys.executable, "-c", probe).stdout.split()
        return int(code), int(count), int(version)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A machine with an RTX 4090 and an RTX 5070 Ti, its driver installed and loaded."""
    (tmp_path / "lib").mkdir()
    box = Box(tmp_path / "root", tmp_path / "lib")
    box.install(drivers.NEW)
    box.plug("rtx-4090", "rtx-5070-ti")
    box.load(drivers.NEW.version, 2)
    return box
