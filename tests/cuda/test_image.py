"""The Dockerfile's CUDA side, really built by docker with nvcc 13 and cuBLAS, from a source with one kernel.

The bases are what lab hosts are made of, with CUDA out of Python wheels where NVIDIA's images have it. No card, no
driver. About 2 minutes on two cores, once CUDA is there (tests/cuda/test_kernels.py says where it comes from).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from llamarig.lab.cuda_toolkit import Toolkit
from llamarig.lab.engine_image import BINARIES, build, buildkit_docker, cpu_arguments, ensure_bases
from llamarig.lab.machine import LabError, run
from tests.image.toy import COMMIT, EPOCH, VERSION, write_source

IMAGE: Final = "llamarig-test-cuda:built"
BUILD: Final = """\
FROM {base}
COPY . /usr/local/cuda
ENV PATH=/usr/local/cuda/bin:$PATH
RUN echo /usr/local/cuda/lib >/etc/ld.so.conf.d/cuda.conf && ldconfig
"""
# NVIDIA's base image has cudart and cuda-compat; cuBLAS stands for the package that the build installs there.
RUNTIME: Final = """\
FROM {base}
COPY {libraries} /usr/local/cuda/lib/
ENV CUDA_VERSION=13.0.3
RUN mkdir /usr/local/cuda-13.0 /usr/local/cuda-13.0/compat && touch /usr/local/cuda-13.0/compat/libcuda.so.1 && \
    echo /usr/local/cuda/lib >/etc/ld.so.conf.d/cuda.conf && ldconfig
"""


def derive(image: str, dockerfile: str, context: Path) -> str:
    command = [buildkit_docker(), "build", "--quiet", "--tag", image, "--file", "-", str(context)]
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    done = subprocess.run(command, input=dockerfile, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return image


@pytest.fixture(scope="module")
def arguments(toolkit: Toolkit) -> Iterator[dict[str, str]]:
    """As the plan gives them, with bases for CUDA."""
    try:
        bases = ensure_bases(print)
    except LabError as error:
        pytest.skip(f"there is no docker, or nothing to make a base image with: {error.message}")
    libraries = "lib/libcudart.so.13 lib/libcublas.so.13 lib/libcublasLt.so.13"
    made = (
        derive("llamarig-test-cuda:build", BUILD.format(base=bases[0]), toolkit.root),
        derive("llamarig-test-cuda:runtime", RUNTIME.format(base=bases[1], libraries=libraries), toolkit.root),
    )
    cuda = {"BACKEND": "cuda", "ARCHITECTURES": "89-real;120a-real"}
    yield {**cpu_arguments(VERSION, COMMIT, EPOCH, made), **cuda}
    run(["docker", "image", "rm", "--force", *made], check=False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module", autouse=True)
def built(tree: Path, arguments: dict[str, str]) -> Iterator[None]:
    build(tree, IMAGE, arguments)
    yield
    run(["docker", "image", "rm", "--force", IMAGE], check=False)


def inside(command: str) -> str:
    return run(["docker", "run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", IMAGE, "-c", command])


def test_the_module_in_the_image_is_for_both_cards(toolkit: Toolkit, tmp_path: Path) -> None:
    container = run(["docker", "create", IMAGE])
    run(["docker", "cp", f"{container}:{BINARIES}/libggml-cuda.so", str(tmp_path)])
    run(["docker", "rm", container])
    assert toolkit.architectures(tmp_path / "libggml-cuda.so") == ["sm_89", "sm_120a"]


def test_the_module_lacks_the_driver_and_nothing_else() -> None:
    """No stub came along: the driver's library is the host's."""
    lost = [line.split()[0] for line in inside(f"ldd {BINARIES}/libggml-cuda.so").splitlines() if "not found" in line]
    assert lost == ["libcuda.so.1"]
    assert inside("find / -xdev -name 'libcuda.so*' 2>/dev/null || true") == ""


def test_what_only_fits_data_centre_cards_is_gone() -> None:
    assert inside("ls -d /usr/local/cuda*/compat 2>/dev/null || true") == ""


def test_the_image_says_which_cuda_it_was_built_with() -> None:
    labels = json.loads(run(["docker", "image", "inspect", IMAGE]))[0]["Config"]["Labels"]
    assert (labels["llamarig.cuda"], labels["llamarig.architectures"]) == ("13.0.3", "89-real;120a-real")
    version = json.loads(inside("cat /version.json"))
    assert (version["cuda"], version["architectures"]) == ("13.0.88", ["89-real", "120a-real"])


def test_a_runtime_without_cublas_is_refused_by_its_name(tree: Path, arguments: dict[str, str]) -> None:
    bare = {**arguments, "RUNTIME_IMAGE": ensure_bases(print)[1]}
    with pytest.raises(LabError, match=r"RUNTIME_IMAGE lacks libcu\w+\.so\.13, and no package of BUILD_IMAGE has it"):
        build(tree, f"{IMAGE}-refused", bare)


def test_an_image_for_no_card_is_refused(tree: Path, arguments: dict[str, str]) -> None:
    with pytest.raises(LabError, match="ARCHITECTURES is empty"):
        build(tree, f"{IMAGE}-refused", {**arguments, "ARCHITECTURES": ""})
