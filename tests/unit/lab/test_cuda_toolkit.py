from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.lab.cuda_toolkit import Toolkit, driver_names
from llamarig.lab.machine import LabError

HEADER = """\
#define cuMemAlloc cuMemAlloc_v2
    #define cuMemcpy                            __CUDA_API_PTDS(cuMemcpy)
    #define cuMemcpyHtoD __CUDA_API_PTDS(cuMemcpyHtoD_v2)
CUresult CUDAAPI cuInit(unsigned int Flags);
CUresult CUDAAPI cuMemAlloc(CUdeviceptr *dptr, size_t bytesize);
  CUresult CUDAAPI cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount);
#define CUDA_VERSION 13000
typedef CUresult (CUDAAPI *cuCallback)(void);
"""


def test_the_stub_has_what_the_header_declares_and_what_its_macros_lead_to() -> None:
    assert driver_names(HEADER) == ["cuInit", "cuMemAlloc", "cuMemAlloc_v2", "cuMemcpy", "cuMemcpyHtoD_v2"]


def stand_in(root: Path, elf: str, ptx: str) -> Toolkit:
    program = root / "bin/cuobjdump"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\ncase $1 in --list-elf) cat <<'E'\n{elf}\nE\n;; *) cat <<'E'\n{ptx}\nE\n;; esac\n", "utf-8"
    )
    program.chmod(0o755)
    return Toolkit(root)


def test_architectures_are_machine_code_and_ptx_each_once(tmp_path: Path) -> None:
    elf = "ELF file    1: a.cu.1.sm_89.cubin\nELF file    2: a.cu.2.sm_120a.cubin\nELF file    3: b.cu.1.sm_89.cubin"
    ptx = "PTX file    1: a.cu.1.sm_90.ptx"
    assert stand_in(tmp_path, elf, ptx).architectures(tmp_path / "x.so") == ["sm_89", "sm_120a", "compute_90"]


def test_a_file_without_device_code_is_an_error(tmp_path: Path) -> None:
    toolkit = stand_in(tmp_path, "cuobjdump info    : File 'x.so' does not contain device code", "")
    with pytest.raises(LabError, match=r"x\.so holds no device code"):
        toolkit.architectures(tmp_path / "x.so")


def test_cmake_is_led_to_this_toolkit_and_no_other(tmp_path: Path) -> None:
    assert Toolkit(tmp_path).environment == {
        "CUDACXX": f"{tmp_path}/bin/nvcc",
        "CUDAToolkit_ROOT": str(tmp_path),
        "CUDA_PATH": str(tmp_path),
    }
