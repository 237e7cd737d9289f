"""Outputs of test-backend-ops of llama.cpp 0.5.0, as it printed them for a BLAS backend, right and made to be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.trial import operations
from llamarig.trial.operations import Ran

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text(encoding="utf-8")


def test_cases_that_come_out_alike_are_counted() -> None:
    ran = operations.read(recorded("right"))
    assert (ran.backends, ran.passed, ran.unsupported, ran.failed, ran.no_room) == (("BLAS", "CPU"), 11, 10, (), False)
    assert ran.devices == []


def test_cases_that_do_not_are_named_with_why() -> None:
    ran = operations.read(recorded("wrong"))
    assert (ran.passed, len(ran.failed), ran.no_room) == (4, 7, False)
    assert ran.failed[0].startswith("MUL_MAT(type_a=q4_0,type_b=f32,m=2880,n=32,k=2880,")
    assert ran.failed[0].endswith(": [MUL_MAT] ERR = 0.033335366 > 0.000500000")


@pytest.mark.parametrize(
    ("out", "err"),
    [
        ("failed to allocate tensors [CUDA0] ", ""),
        (
            "",
            "alloc_buffer: allocating 512.00 MiB on device 0: cudaMalloc failed: out of memory",
        ),
        ("", "CUDA error: out of memory\n  current device: 0"),
    ],
)
def test_memory_that_ran_out_is_no_wrong_result(out: str, err: str) -> None:
    before = recorded("right")
    ran = operations.read(before + out, err)
    assert (ran.no_room, ran.failed, ran.passed) == (True, (), 11)


def test_a_case_that_could_not_be_allocated_is_not_said_to_be_wrong() -> None:
    line = "failed to allocate tensors [CUDA0]   ADD(type=f32): FAIL\n"
    assert operations.read(line) == Ran(no_room=True)


def test_runs_add_up() -> None:
    both = operations.read(recorded("right")) + operations.read("Backend 1/2: CUDA0\n  ADD(type=f32): OK\n")
    assert (both.backends, both.passed, both.devices) == (("BLAS", "CPU", "CUDA0"), 12, ["CUDA0"])


def test_every_group_is_asked_for_by_name() -> None:
    assert operations.words(("MUL_MAT", "ROPE")) == ["test", "-o", "MUL_MAT,ROPE"]
    names = [name for group in operations.GROUPS for name in group]
    assert len(names) == len(set(names))
