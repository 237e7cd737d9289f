"""What the doctor says of a good host's hardware, and of a host that has none or was never told."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.checks.result import Status
from llamarig.hardware import machine
from tests.support import make_spec
from tests.unit.checks.conftest import CDI, Examined
from tests.unit.hardware.recordings import ADA, BLACKWELL

HARDWARE = [
    "memory",
    "clock",
    "reboot",
    "secure-boot",
    "driver",
    "packages-held",
    "gpus",
    "pcie",
    "persistence",
    "tuning",
    "cdi",
    "compute",
    "gpu-in-use",
]
OK = {
    "memory": "64214 MiB, declared are 64000 MiB",
    "clock": "synchronized",
    "reboot": "none is due",
    "secure-boot": "enabled; the kernel let in the module nvidia, signed by Canonical Ltd. Kernel Module Signing",
    "driver": "580.95.05, open kernel modules",
    "packages-held": "3 packages of kernel and driver",
    "gpus": "2 as declared: rtx4090, rtx5070ti",
    "pcie": "rtx4090 x16, rtx5070ti x16",
    "persistence": "on",
    "tuning": "none is declared",
    "cdi": "/var/run/cdi/nvidia.yaml, of driver 580.95.05",
    "compute": "a container computes on rtx4090, rtx5070ti",
    "gpu-in-use": "rtx4090 9000 MiB, rtx5070ti 9000 MiB",
}


def test_a_good_host_passes_every_check(rig: Examined) -> None:
    results = {result.name: result for result in rig.results()}
    assert [name for name in results if name in HARDWARE] == HARDWARE
    assert {name: results[name].message for name in HARDWARE} == OK
    assert [item for item in results.values() if item.status is not Status.OK or item.remedy] == []


def test_the_facts_of_these_tests_have_the_shape_of_real_ones(rig: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    real = machine.read(rig.root)
    assert rig.facts.keys() <= real.keys()
    assert rig.facts["driver"].keys() <= real["driver"].keys()
    assert real["cdi"] == rig.facts["cdi"]


def test_a_host_without_gpus_hears_nothing_of_them(rig: Examined) -> None:
    rig.declare(gpus=[], driver=None)
    rig.facts["cards"] = []
    rig.host.provision(make_spec("chat"))
    names = [result.name for result in rig.results()]
    assert [name for name in names if name in HARDWARE] == ["memory", "clock", "reboot"]


def test_a_host_that_was_never_told_its_hardware_is_asked_nothing_about_it(rig: Examined) -> None:
    (rig.root / "etc/llamarig/hardware.json").unlink()
    rig.facts["cards"] = []
    names = [result.name for result in rig.results()]
    assert {"memory", "driver", "gpus", "compute"}.isdisjoint(names)


def test_hardware_that_cannot_be_read_fails_what_needs_it_with_the_remedy_of_the_file(rig: Examined) -> None:
    rig.write("etc/llamarig/hardware.json", "{")
    found = rig.says("gpus")
    assert found is not None
    status, message, remedy = found
    assert (status, remedy) == (Status.FAIL, "run playbooks/site.yml for this host again")
    assert "hardware.json cannot be read" in message


def test_the_specification_of_these_tests_is_one_that_machine_reads(tmp_path: Path) -> None:
    place = tmp_path / "etc/cdi/nvidia.yaml"
    place.parent.mkdir(parents=True)
    place.write_text(CDI, encoding="utf-8")
    found = machine.read_cdi(tmp_path)
    assert found is not None
    assert set(found["devices"]) >= {ADA, BLACKWELL}
