"""Real kernels of llama.cpp compile for the cards that the engine is built for, with the Dockerfile's own options.

Without a card and without a driver: nvcc and cuBLAS come out of Python wheels, llama.cpp out of an sdist (530 MB and
90 MB, once, kept in .cache/engine), and the driver is the stub that a link step sees. About 3 minutes on two cores.
The whole engine takes an hour; docs/explanation/engine-builds.md says what was seen when it was built.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from llamarig.config.engine import Engine
from llamarig.lab.cuda_toolkit import Toolkit
from llamarig.lab.engine_image import TEMPLATES, cmake_options
from llamarig.lab.llama_source import ensure_source
from llamarig.lab.machine import LabError, run
from tests.cuda.conftest import CACHE

OBJECTS: Final = "ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir"
# A plain kernel; products with FP4 weights, whose instructions only 120a has; what calls cuBLAS and the driver.
KERNELS: Final = ("softmax.cu", "template-instances/mmq-instance-mxfp4.cu", "ggml-cuda.cu")


@dataclass(frozen=True)
class Build:
    directory: Path
    toolkit: Toolkit
    log: str

    def object(self, kernel: str) -> Path:
        return self.directory / OBJECTS / f"{kernel}.o"


@pytest.fixture(scope="module")
def source() -> Path:
    try:
        return ensure_source(CACHE, print)
    except LabError as error:
        pytest.skip(f"llama.cpp's source cannot be had: {error.message}")


def configure(directory: Path, source: Path, toolkit: Toolkit, architectures: str, all_quants: str = "OFF") -> Build:
    variables = {
        "cuda": "ON",
        "FA_ALL_QUANTS": all_quants,
        "ARCHITECTURES": architectures,
        "development": "OFF",
        "BUILD_NUMBER": "0",
        "short": "unknown",
    }
    options = cmake_options((TEMPLATES / "Dockerfile").read_text(encoding="utf-8"), variables)
    command = ["cmake", "-S", str(source), "-B", str(directory), "-G", "Ninja", *options, "-DGGML_CCACHE=OFF"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **toolkit.environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Build(directory, toolkit, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def built(source: Path, toolkit: Toolkit, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The kernels, compiled for the architectures that an inventory has when it says nothing."""
    architectures = ";".join(Engine.model_fields["architectures"].default)
    build = configure(tmp_path_factory.mktemp("cuda"), source, toolkit, architectures)
    run(["ninja", "-C", str(build.directory), *(f"{OBJECTS}/{kernel}.o" for kernel in KERNELS)])
    return build


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_has_machine_code_for_both_cards_and_nothing_else(built: Build, kernel: str) -> None:
    assert built.toolkit.architectures(built.object(kernel)) == ["sm_89", "sm_120a"]


def test_the_engine_is_linked_to_cublas_and_the_driver_and_not_to_nccl(built: Build, tmp_path: Path) -> None:
    """The driver is the stub: here, and in NVIDIA's devel image."""
    linked = tmp_path / "kernels.so"
    libraries = built.toolkit.root / "lib"
    search = [f"-L{libraries}", f"-L{libraries / 'stubs'}"]
    command = ["c++", "-shared", "-o", str(linked), *(str(built.object(kernel)) for kernel in KERNELS), *search]
    run([*command, "-lcudart", "-lcublas", "-lcuda"])
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", run(["readelf", "--dynamic", str(linked)])))
    assert {"libcudart.so.13", "libcublas.so.13", "libcuda.so.1"} <= needed
    assert not [name for name in needed if "nccl" in name]
    assert built.toolkit.architectures(linked) == ["sm_89", "sm_120a"]


def test_a_kernel_compiled_twice_links_to_the_same_bytes(built: Build, tmp_path: Path) -> None:
    """The object files differ, by a name that nvcc gives a temporary file; what is linked and stripped does not."""
    kernel = built.object("softmax.cu")
    links = []
    for turn in range(2):
        linked = tmp_path / f"{turn}.so"
        run(["c++", "-shared", "-o", str(linked), str(kernel)])
        run(["strip", "--strip-unneeded", str(linked)])
        links.append(linked.read_bytes())
        kernel.unlink()
        run(["ninja", "-C", str(built.directory), f"{OBJECTS}/softmax.cu.o"])
    assert links[0] == links[1]


def test_plain_120_becomes_the_architecture_that_the_plan_counts_with(
    source: Path, toolkit: Toolkit, tmp_path: Path
) -> None:
    log = configure(tmp_path / "plain", source, toolkit, "89;120").log
    assert "Using CMAKE_CUDA_ARCHITECTURES=89;120a " in log


def test_all_quants_builds_more_flash_attention(source: Path, toolkit: Toolkit, built: Build, tmp_path: Path) -> None:
    def instances(build: Build) -> int:
        listed = run(["ninja", "-C", str(build.directory), "-t", "inputs", "ggml-cuda"])
        return len([line for line in listed.splitlines() if "fattn-vec-instance" in line and line.endswith(".cu")])

    every = configure(tmp_path / "every", source, toolkit, "89-real", all_quants="ON")
    assert 0 < instances(built) < instances(every)
