"""CUDA 13.0's compiler and cuBLAS out of NVIDIA's Python wheels: kernels compile where there is no card and no driver.

What a CUDA image's devel variant has in /usr/local/cuda, as far as llama.cpp asks for it. The library of the driver is
a stub with the driver's names, as the real toolkit has one for the link step; nothing can run against it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llamarig.lab.machine import LabError, run
from llamarig.lab.models import Say

VERSION: Final = "13.0.88"  # nvcc's
_PINS: Final = {
    "nvidia-cuda-nvcc==13.0.88": "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03",
    "nvidia-cuda-crt==13.0.88": "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4",
    "nvidia-nvvm==13.0.88": "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0",
    "nvidia-cuda-cccl==13.0.85": "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649",
    "nvidia-cuda-runtime==13.0.96": "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    "nvidia-cublas==13.0.2.14": "0cf238ffdbe46c00cb9aa98e7bca745c223a5ca5a53e686ac8b3e5a08fe80d6c",
    # None is published for 13.0; this one reads what 13.0 writes.
    "nvidia-cuda-cuobjdump==13.2.51": "95c69d3ddf0c2c1f535ec44c3433a66aeee19f588d9d22f73356e20b25f12b50",
}
_INSIDE: Final = "nvidia/cu13/"
_DECLARED: Final = re.compile(r"^\s*CUresult\s+CUDAAPI\s+(cu\w+)", re.MULTILINE)
_RENAMED: Final = re.compile(r"^\s*#\s*define\s+cu\w+\s+(?:__CUDA_API_PT(?:DS|SZ)\()?(cu\w+)", re.MULTILINE)
_LISTED: Final = re.compile(r"\.(sm_\d+[a-z]?|compute_\d+[a-z]?)\.(cubin|ptx)$", re.MULTILINE)
_NO_DEVICE: Final = 100  # CUDA_ERROR_NO_DEVICE


@dataclass(frozen=True, slots=True)
class Toolkit:
    """A CUDA toolkit.

    Attributes:
        root: what /usr/local/cuda is elsewhere.

    """

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """What leads CMake to it."""
        root = str(self.root)
        return {"CUDACXX": f"{root}/bin/nvcc", "CUDAToolkit_ROOT": root, "CUDA_PATH": root}

    def architectures(self, binary: Path) -> list[str]:
        """Return what a fat binary holds, in its own order: ``sm_89`` for machine code, ``compute_89`` for PTX.

        Raises:
            LabError: cuobjdump cannot read it.

        """
        cuobjdump = str(self.root / "bin/cuobjdump")
        listing = run([cuobjdump, "--list-elf", str(binary)], check=False)
        listing += "\n" + run([cuobjdump, "--list-ptx", str(binary)], check=False)
        found = [
            name if kind == "cubin" else name.replace("sm_", "compute_") for name, kind in _LISTED.findall(listing)
        ]
        if not found:
            raise LabError(f"{binary.name} holds no device code, or cuobjdump cannot read it: {listing.strip()}")
        return list(dict.fromkeys(found))


def ensure_toolkit(cache: Path, say: Say) -> Toolkit:
    """Return the toolkit below a cache directory; made of wheels where it is not there (530 MB to fetch, 1.1 GB).

    Raises:
        LabError: pip cannot get a wheel, or has another of the same name; there is no compiler for the stub.

    """
    root = cache / f"cuda-{VERSION}"
    if root.is_dir():
        return Toolkit(root)
    compiler = shutil.which("cc")
    if compiler is None:
        raise LabError("there is no C compiler for the driver's stub", "apt-get install gcc libc6-dev")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cuda-", dir=cache) as name:
        wheels, made = Path(name) / "wheels", Path(name) / "cuda"
        _fetch(wheels, say)
        for wheel in sorted(wheels.glob("*.whl")):
            _unpack(wheel, made)
        _link(made)
        _stub(made, compiler)
        made.rename(root)
    return Toolkit(root)


def driver_names(header: str) -> list[str]:
    """Return the functions that a driver's header (cuda.h) declares, with the versions that its macros lead to."""
    return sorted({*_DECLARED.findall(header), *_RENAMED.findall(header)})


def _fetch(wheels: Path, say: Say) -> None:
    say("fetching CUDA 13.0's compiler and cuBLAS from the Python index: 530 MB, once")
    requirements = wheels.parent / "requirements.txt"
    requirements.write_text("".join(f"{pin} --hash=sha256:{digest}\n" for pin, digest in _PINS.items()), "ascii")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
    ]
    done = subprocess.run(
        [*command, "--dest", str(wheels), "--requirement", str(requirements)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"pip cannot get CUDA's wheels: {done.stderr.strip()[-1000:]}", "check pip config list")


def _unpack(wheel: Path, root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if not member.filename.startswith(_INSIDE) or member.is_dir():
                continue
            mode = member.external_attr >> 16
            member.filename = member.filename.removeprefix(_INSIDE)
            path = Path(archive.extract(member, root))
            path.chmod(0o755 if mode & 0o100 else 0o644)


def _link(root: Path) -> None:
    """Give the libraries the names that a linker asks for, and the folders those that nvcc and CMake do."""
    (root / "lib64").symlink_to("lib")
    target = root / "targets/x86_64-linux"
    target.mkdir(parents=True)
    for folder in ("include", "lib"):
        (target / folder).symlink_to(f"../../{folder}")
    for library in sorted((root / "lib").glob("lib*.so.*")):
        (library.parent / f"{library.name.split('.so.')[0]}.so").symlink_to(library.name)


def _stub(root: Path, compiler: str) -> None:
    names = driver_names((root / "include/cuda.h").read_text(encoding="utf-8", errors="replace"))
    code = root / "lib/stub.c"
    code.write_text("".join(f"int {name}(void) {{ return {_NO_DEVICE}; }}\n" for name in names), "ascii")
    stub = root / "lib/stubs/libcuda.so"
    stub.parent.mkdir()
    run([compiler, "-shared", "-fPIC", "-O1", "-Wl,-soname,libcuda.so.1", "-o", str(stub), str(code)])
    code.unlink()
