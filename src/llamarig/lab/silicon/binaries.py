"""The compiled parts of the played driver: libraries, nvidia-smi, nvidia.ko; built once for each version."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from llamarig.lab.machine import LabError, run

_COMMON: Final = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2"]
_SHARED: Final = ["-fPIC", "-shared", "-fvisibility=hidden"]


@dataclass(frozen=True, slots=True)
class Driver:
    """A version of the driver; cuda is the newest CUDA it speaks, as cuDriverGetVersion says it."""

    version: str
    cuda: int

    @property
    def branch(self) -> str:
        """The first number of the version."""
        return self.version.split(".")[0]


def data(name: str) -> str:
    """Return the text of a file of the lab's silicon."""
    return files("llamarig").joinpath("data", "lab", "silicon", name).read_text(encoding="utf-8")


def digest(*names: str) -> str:
    """Return a short hash of these, by content where they are sources of this package or files of its data."""
    data_files = files("llamarig").joinpath("data", "lab", "silicon")
    result = hashlib.sha256()
    for name in names:
        sources = (Path(__file__).parent / name, data_files.joinpath(name))
        found = next((source for source in sources if source.is_file()), None)
        result.update(name.encode() + b"\0" + (found.read_bytes() if found else b""))
    return result.hexdigest()[:12]


def script(name: str, **constants: str) -> bytes:
    """Return a program of ``played`` as an executable, with these of its constants set."""
    text = files("llamarig.lab.silicon").joinpath("played", f"{name}.py").read_text(encoding="utf-8")
    for constant, value in constants.items():
        text, found = re.subn(rf"^{constant}: Final = .*$", f"{constant}: Final = {value!r}", text, flags=re.MULTILINE)
        if found != 1:
            msg = f"played/{name}.py has no constant {constant}"
            raise LabError(msg)
    return f"#!/usr/bin/python3\n{text}".encode()


@cache
def nvml(driver: Driver) -> bytes:
    """Return libnvidia-ml.so.1."""
    return _library("nvml*.c", "libnvidia-ml.so.1", driver)


@cache
def cuda(driver: Driver) -> bytes:
    """Return libcuda.so.1."""
    return _library("cuda.c", "libcuda.so.1", driver)


@cache
def smi() -> bytes:
    """Return nvidia-smi, the same for every version: it asks the library."""
    return _compile("nvidia-smi.c", ["-ldl"])


@cache
def module(driver: Driver, kernel: str, *, open_source: bool) -> bytes:
    """Return nvidia.ko for a kernel release."""
    defines = {
        "DRIVER_VERSION": f'"{driver.version}"',
        "LICENSE": '"Dual MIT/GPL"' if open_source else '"NVIDIA"',
        "VERMAGIC": f'"{kernel} SMP preempt mod_unload "',
    }
    return _compile("nvidia.c", ["-c", *(f"-D{name}={value}" for name, value in defines.items())])


def _library(sources: str, soname: str, driver: Driver) -> bytes:
    defines = [f'-DDRIVER_VERSION="{driver.version}"', f"-DCUDA_VERSION={driver.cuda}"]
    return _compile(sources, [*_SHARED, *defines, f"-Wl,-soname,{soname}"])


def _compile(sources: str, arguments: list[str]) -> bytes:
    with (
        as_file(files("llamarig").joinpath("data", "lab", "silicon")) as directory,
        tempfile.NamedTemporaryFile(suffix=".out") as out,
    ):
        try:
            run(["gcc", *_COMMON, "-o", out.name, *map(str, sorted(directory.glob(sources))), *arguments])
        except FileNotFoundError as error:
            msg = "gcc is not installed"
            raise LabError(msg, "apt-get install gcc libc6-dev") from error
        return Path(out.name).read_bytes()
