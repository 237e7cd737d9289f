"""Faults of the silicon, and what the doctor says of each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.acceptance.box import Box
from tests.acceptance.gpu_stack.stack import CARD, checks

FAULTS = "/var/lib/lab-silicon/faults"


@pytest.fixture(autouse=True)
def whole(fresh: Box) -> Iterator[None]:
    yield
    fresh.run(f"sudo rm -f {FAULTS}")


def play(box: Box, fault: str) -> None:
    box.run(f"echo '{fault}' | sudo tee {FAULTS} >/dev/null")


@pytest.mark.parametrize(
    ("fault", "check", "word"),
    [
        (f"lost={CARD}", "gpus", "rtx4090"),
        ("cuinit=999", "compute", "999"),
        ("cpu_fallback", "gpu-in-use", "CPU"),
        ("hang=30", "gpus", "does not answer"),
        ("fail=nvmlInitWithFlags:999", "gpus", "999"),
    ],
)
def test_the_doctor_finds_the_fault_and_says_what_to_do(fresh: Box, fault: str, check: str, word: str) -> None:
    play(fresh, fault)
    said = checks(fresh)[check]
    assert said["status"] == "fail"
    assert word in said["message"]
    assert said["remedy"]


def test_a_field_that_a_card_does_not_answer_is_no_fault(fresh: Box) -> None:
    play(fresh, "na=nvmlDeviceGetMaxPcieLinkWidth")
    failed = [name for name, said in checks(fresh).items() if said["status"] == "fail"]
    assert failed == []


def test_without_faults_all_is_well(fresh: Box) -> None:
    assert fresh.is_healthy()
