"""The played nvidia-smi, nvidia-ctk and nvidia.ko, against the played libraries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamarig.lab.silicon import binaries, drivers
from llamarig.lab.silicon.cards import card_uuid
from llamarig.lab.silicon.played import ctk
from tests.unit.lab.conftest import Box

FIRST, SECOND = card_uuid("box", 0), card_uuid("box", 1)


@pytest.fixture
def smi(tmp_path: Path) -> str:
    program = tmp_path / "nvidia-smi"
    program.write_bytes(binaries.smi())
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def toolkit(tmp_path: Path, box: Box) -> str:
    program = tmp_path / "nvidia-ctk"
    program.write_bytes(binaries.script("ctk", VERSION="1.19.1", LIBRARIES=str(box.libraries)))
    return str(program)


def test_smi_lists_the_cards(box: Box, smi: str) -> None:
    assert box.run(smi, "-L").stdout == (
        f"GPU 0: NVIDIA GeForce RTX 4090 (UUID: {FIRST})\nGPU 1: NVIDIA GeForce RTX 5070 Ti (UUID: {SECOND})\n"
    )


def test_smi_answers_the_fields_that_are_asked_for(box: Box, smi: str) -> None:
    fields = "index,uuid,name,pci.bus_id,driver_version,compute_cap,memory.total,memory.reserved,power.limit"
    done = box.run(smi, f"--query-gpu={fields}", "--format=csv,noheader,nounits")
    assert done.stdout.splitlines() == [
        f"0, {FIRST}, NVIDIA GeForce RTX 4090, 00000000:01:00.0, 580.95.05, 8.9, 24564, 400, 450.00",
        f"1, {SECOND}, NVIDIA GeForce RTX 5070 Ti, 00000000:02:00.0, 580.95.05, 12.0, 16303, 400, 300.00",
    ]


def test_smi_shows_units_and_what_a_card_does_not_have(box: Box, smi: str) -> None:
    fields = "memory.total,power.draw,serial,persistence_mode"
    assert box.run(smi, f"--query-gpu={fields}", "--format=csv", "-i", SECOND).stdout.splitlines() == [
        fields,
        "16303 MiB, 21.00 W, [N/A], Disabled",
    ]
    assert box.run(smi, "--query-gpu=colour", "--format=csv").returncode == 2


def test_smi_says_why_it_cannot(box: Box, smi: str) -> None:
    box.load(drivers.OLD.version, 2)
    mismatch = box.run(smi)
    assert (mismatch.returncode, mismatch.stdout.splitlines()[0]) == (
        18,
        "Failed to initialize NVML: Driver/library version mismatch",
    )
    (box.root / "sys/module/nvidia/version").unlink()
    absent = box.run(smi)
    assert (absent.returncode, "couldn't communicate with the NVIDIA driver" in absent.stdout) == (9, True)
    (box.libraries / "libnvidia-ml.so.1").unlink()
    assert box.run(smi).returncode == 12


def test_smi_names_a_lost_card_and_an_empty_machine(box: Box, smi: str) -> None:
    box.fault(f"lost={SECOND}")
    lost = box.run(smi, "-L")
    assert (lost.returncode, "GPU1: GPU is lost" in lost.stdout) == (15, True)
    box.write("var/lib/lab-silicon/cards", "")
    empty = box.run(smi, "-L")
    assert (empty.returncode, empty.stdout) == (6, "No devices were found\n")


def test_ctk_writes_a_specification_for_the_cards(box: Box, toolkit: str) -> None:
    output = box.root / "run/cdi/nvidia.yaml"
    done = box.run(sys.executable, toolkit, "cdi", "generate", f"--output={output}")
    assert done.returncode == 0, done.stderr
    spec = yaml.safe_load(output.read_text(encoding="utf-8"))
    assert (spec["cdiVersion"], spec["kind"]) == ("0.5.0", "nvidia.com/gpu")
    nodes = {device["name"]: _paths(device) for device in spec["devices"]}
    assert nodes == {
        "0": ["/dev/nvidia0"],
        FIRST: ["/dev/nvidia0"],
        "1": ["/dev/nvidia1"],
        SECOND: ["/dev/nvidia1"],
        "all": ["/dev/nvidia0", "/dev/nvidia1"],
    }
    assert "/dev/nvidiactl" in _paths(spec)
    assert spec["containerEdits"]["env"] == ["NVIDIA_VISIBLE_DEVICES=void"]
    mounted = {mount["containerPath"] for mount in spec["containerEdits"]["mounts"]}
    assert {str(box.libraries / "libcuda.so.1"), str(box.libraries / "libnvidia-ml.so.1")} <= mounted
    assert {"/var/lib/lab-silicon", "/run/lab-silicon"} <= mounted


def _paths(device: dict[str, Any]) -> list[str]:
    return [node["path"] for node in device["containerEdits"]["deviceNodes"]]


def test_ctk_writes_nothing_where_the_driver_does_not_answer(box: Box, toolkit: str) -> None:
    output = box.root / "nvidia.yaml"
    box.load(drivers.OLD.version, 2)
    done = box.run(sys.executable, toolkit, "cdi", "generate", "--output", str(output))
    assert (done.returncode, output.exists()) == (1, False)
    assert "failed to initialize NVML: Driver/library version mismatch" in done.stderr
    (box.libraries / "libnvidia-ml.so.1").unlink()
    assert "Library Not Found" in box.run(sys.executable, toolkit, "cdi", "generate").stderr


def test_ctk_lists_what_is_in_the_specifications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ctk.specification([(0, FIRST), (1, SECOND)], [], ["uuid"])
    (tmp_path / "nvidia.yaml").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(ctk, "_SPECIFICATIONS", (tmp_path,))
    assert ctk.main(["cdi", "list"]) == 0
    names = [f"nvidia.com/gpu={name}" for name in (FIRST, SECOND, "all")]
    assert capsys.readouterr().out.splitlines() == names


def test_ctk_says_its_version(box: Box, toolkit: str) -> None:
    assert box.run(sys.executable, toolkit, "--version").stdout.startswith(
        "NVIDIA Container Toolkit CLI version 1.19.1\n"
    )


@pytest.mark.parametrize(("open_source", "license_"), [(True, b"Dual MIT/GPL"), (False, b"NVIDIA")])
def test_the_module_is_an_object_file_that_says_what_it_is(*, open_source: bool, license_: bytes) -> None:
    content = binaries.module(drivers.OLD, "6.8.0-85-generic", open_source=open_source)
    assert content[:4] == b"\x7fELF"
    assert content[16] == 1, "a relocatable file"
    assert b".modinfo\0" in content
    for entry in (b"version=580.82.07", b"license=" + license_, b"vermagic=6.8.0-85-generic SMP preempt mod_unload "):
        assert entry + b"\0" in content
