from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.hardware import machine
from tests.unit.hardware.roots import Root

KERNEL, OTHER = "6.8.0-60-generic", "6.8.0-71-generic"
EFI = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
CDI = """\
---
cdiVersion: 0.5.0
containerEdits:
  hooks:
  - args:
    - nvidia-cdi-hook
    - update-ldcache
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: GPU-8d1c5b4e-0000-0000-0000-000000000001
- name: all
kind: nvidia.com/gpu
"""


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


@pytest.fixture
def modinfo(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
    """Fields of nvidia.ko by kernel and name, which kmod's modinfo says."""
    fields: dict[tuple[str, str], str] = {}

    def run(program: str, *arguments: str) -> str | None:
        options = dict(zip(arguments[:-1:2], arguments[1::2], strict=True))
        assert (program, arguments[-1]) == ("modinfo", "nvidia")
        return fields.get((options["--set-version"], options["--field"]))

    monkeypatch.setattr(machine, "_run", run)
    return fields


def test_of_an_empty_root_nothing_is_known(root: Root, modinfo: dict[tuple[str, str], str]) -> None:
    found = machine.read(root.path)
    assert modinfo == {}
    assert found.pop("cpu_threads") > 0
    assert found.pop("driver") == {
        **dict.fromkeys(("loaded", "on_disk", "userspace", "open", "signer")),
        "on_disk_by_kernel": {},
        "loaded_open": False,
        "nouveau": False,
        "run_file": False,
    }
    assert found.pop("apt_sources") == {"/etc/apt/sources.list": []}
    assert {key: value for key, value in found.items() if value} == {}
    assert [key for key, value in found.items() if value is None] == ["memory_mib", "kernel", "cdi", "docker_options"]


def test_a_machine_says_what_it_is(root: Root, modinfo: dict[tuple[str, str], str]) -> None:
    root.write("proc/meminfo", "MemTotal:       65778412 kB\nMemFree:        1 kB\n")
    root.write("proc/sys/kernel/osrelease", f"{KERNEL}\n")
    root.write("run/reboot-required", "*** System restart required ***\n")
    root.write("run/systemd/timesync/synchronized")
    root.write("snap/docker/current/meta")
    root.write("etc/apt/keyrings/llamarig-docker-0badcafe.asc")
    root.write("etc/apt/keyrings/docker.asc")
    found = machine.read(str(root.path))
    assert modinfo == {}
    assert (found["memory_mib"], found["kernel"]) == (64236, KERNEL)
    assert (found["reboot_required"], found["clock_synchronized"], found["snap_docker"]) == (True, True, True)
    assert found["apt_keys"] == ["/etc/apt/keyrings/docker.asc", "/etc/apt/keyrings/llamarig-docker-0badcafe.asc"]


def test_cards_are_found_on_the_bus_in_its_order(root: Root) -> None:
    root.card("0000:04:00.0", device="0x2c05", **{"class": "0x030200"})
    root.card("0000:01:00.0", driver="nvidia")
    root.card("0000:01:00.1", **{"class": "0x040300"})  # the card's sound
    root.card("0000:00:02.0", vendor="0x8086")
    first, second = machine.read_cards(root.path)
    assert (first["address"], first["name"], first["architecture"]) == (
        "0000:01:00.0",
        "NVIDIA GeForce RTX 4090",
        "Ada",
    )
    assert (first["driver"], second["driver"]) == ("nvidia", None)
    assert (second["address"], second["device_id"], second["architecture"]) == ("0000:04:00.0", "2c05", "Blackwell")


@pytest.mark.parametrize(
    ("files", "link"),
    [
        (
            {
                "current_link_speed": "2.5 GT/s PCIe",
                "max_link_speed": "16.0 GT/s PCIe",
                "current_link_width": "8",
                "max_link_width": "16",
            },
            (1, 4, 8, 16),
        ),
        ({"current_link_speed": "32.0 GT/s PCIe", "max_link_speed": "64.0 GT/s PCIe"}, (5, 6, None, None)),
        ({"current_link_speed": "Unknown", "current_link_width": "0"}, (None, None, 0, None)),
        ({}, (None, None, None, None)),
    ],
)
def test_a_link_is_read_as_generation_and_lanes(
    root: Root, files: dict[str, str], link: tuple[int | None, ...]
) -> None:
    root.card("0000:01:00.0", **files)
    (card,) = machine.read_cards(root.path)
    assert tuple(card["link"][key] for key in ("generation", "generation_max", "width", "width_max")) == link


def test_a_card_that_is_gone_while_it_is_read_is_no_traceback(root: Root) -> None:
    root.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    assert machine.read_cards(root.path) == []


def test_the_driver_is_three_versions(root: Root, modinfo: dict[tuple[str, str], str]) -> None:
    root.write("proc/sys/kernel/osrelease", KERNEL)
    root.write("sys/module/nvidia/version", "580.82.07\n")
    root.write("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05")
    root.link("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "libnvidia-ml.so.580.95.05")
    modinfo |= {
        (KERNEL, "version"): "580.95.05",
        (KERNEL, "license"): "Dual MIT/GPL",
        (KERNEL, "signer"): "Canonical Ltd. Kernel Module Signing",
    }
    found = machine.read_driver(root.path)
    assert (found["loaded"], found["on_disk"], found["userspace"]) == ("580.82.07", "580.95.05", "580.95.05")
    assert (found["open"], found["signer"]) == (True, "Canonical Ltd. Kernel Module Signing")


@pytest.mark.parametrize(("said", "is_open"), [("NVIDIA", False), ("Dual MIT/GPL", True), (None, None)])
def test_open_modules_are_known_by_their_license(
    root: Root, modinfo: dict[tuple[str, str], str], said: str | None, is_open: bool | None
) -> None:
    root.write("proc/sys/kernel/osrelease", KERNEL)
    if said:
        modinfo[KERNEL, "license"] = said
    assert machine.read_driver(root.path)["open"] is is_open


@pytest.mark.parametrize("target", ["libnvidia-ml.so.1.real", "nvidia.so", None])
def test_a_library_without_a_version_is_no_user_space(
    root: Root, modinfo: dict[tuple[str, str], str], target: str | None
) -> None:
    name = "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
    if target:
        root.write(f"usr/lib/x86_64-linux-gnu/{target}")
        root.link(name, target)
    else:
        root.write(name, "no link")
    assert modinfo == {}
    assert machine.read_driver(root.path)["userspace"] is None


def test_the_library_may_lie_in_lib64(root: Root, modinfo: dict[tuple[str, str], str]) -> None:
    root.write("usr/lib64/libnvidia-ml.so.580.95.05")
    root.link("usr/lib64/libnvidia-ml.so.1", "libnvidia-ml.so.580.95.05")
    assert modinfo == {}
    assert machine.read_driver(root.path)["userspace"] == "580.95.05"


@pytest.mark.parametrize(
    ("said", "is_open"),
    [
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder)\n", True),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 09:55:41 UTC 2025\n", False),
    ],
)
def test_the_module_that_is_loaded_says_itself_whether_it_is_open(
    root: Root, modinfo: dict[tuple[str, str], str], said: str, is_open: bool
) -> None:
    root.write("proc/driver/nvidia/version", said)
    assert modinfo == {}
    assert machine.read_driver(root.path)["loaded_open"] is is_open


def test_every_installed_kernel_is_asked_for_its_module(root: Root, modinfo: dict[tuple[str, str], str]) -> None:
    for kernel in (KERNEL, OTHER, "6.8.0-51-generic"):
        root.write(f"lib/modules/{kernel}/modules.dep")
        root.write(f"lib/modules/{kernel}/kernel/nvidia.ko")
    root.write("lib/modules/6.8.0-99-generic/modules.dep")  # removed, and not purged
    root.write("lib/modules/6.5.0-9-generic/nothing.but.leftovers")
    modinfo |= {(OTHER, "version"): "580.95.05", ("6.8.0-51-generic", "version"): "580.82.07"}
    found = machine.read(root.path)
    assert found["kernels"] == ["6.8.0-51-generic", KERNEL, OTHER]
    assert found["driver"]["on_disk_by_kernel"] == {"6.8.0-51-generic": "580.82.07", OTHER: "580.95.05"}


def test_what_stands_in_the_drivers_way_is_seen(root: Root, modinfo: dict[tuple[str, str], str]) -> None:
    root.write("sys/module/nouveau/refcnt", "1")
    root.write("usr/bin/nvidia-uninstall")
    found = machine.read_driver(root.path)
    assert modinfo == {}
    assert (found["nouveau"], found["run_file"]) == (True, True)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("printf 'first\\nsecond\\n'", "first"),
        ("echo there; exit 1", None),
        ("true", None),
        ("echo $LC_ALL", "C"),
    ],
)
def test_a_program_says_one_line_or_nothing(root: Root, program: str, said: str | None) -> None:
    place = root.write("program", f"#!/bin/sh\n{program}\n")
    place.chmod(0o755)
    assert machine._run(str(place)) == said


def test_a_program_that_is_not_there_says_nothing() -> None:
    assert machine._run("llamarig-has-no-such-program") is None


def test_a_cdi_specification_says_its_devices_and_its_driver(root: Root) -> None:
    root.write("run/cdi/nvidia.yaml", CDI)
    assert machine.read_cdi(root.path) == {
        "path": "/run/cdi/nvidia.yaml",
        "devices": ["0", "GPU-8d1c5b4e-0000-0000-0000-000000000001", "all"],
        "driver": "580.95.05",
    }


def test_the_specification_that_the_toolkit_keeps_is_read_before_one_by_hand(root: Root) -> None:
    root.write("etc/cdi/nvidia.yaml", CDI.replace("580.95.05", "570.133.20"))
    assert (machine.read_cdi(root.path) or {})["driver"] == "570.133.20"
    root.write("var/run/cdi/nvidia.yaml", CDI)
    assert (machine.read_cdi(root.path) or {})["driver"] == "580.95.05"


def test_a_specification_without_a_library_has_no_driver(root: Root) -> None:
    root.write("etc/cdi/nvidia.yaml", "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: []\n")
    assert machine.read_cdi(root.path) == {"path": "/etc/cdi/nvidia.yaml", "devices": [], "driver": None}


@pytest.mark.parametrize(
    ("variable", "enabled"), [(b"\x06\x00\x00\x00\x01", True), (b"\x06\x00\x00\x00\x00", False), (b"", False)]
)
def test_the_firmware_says_whether_secure_boot_is_on(root: Root, variable: bytes, enabled: bool) -> None:
    root.write(EFI).write_bytes(variable)
    assert machine.secure_boot(root.path) is enabled


def test_secure_boot_is_off_without_efi_and_unknown_without_its_variable(root: Root) -> None:
    assert machine.secure_boot(root.path) is False
    (root.path / "sys/firmware/efi").mkdir(parents=True)
    assert machine.secure_boot(root.path) is None


@pytest.mark.parametrize(("said", "kept"), [("yes", True), ("no", False), (None, None)])
def test_the_real_machine_is_asked_about_its_clock(
    monkeypatch: pytest.MonkeyPatch, said: str | None, kept: bool | None
) -> None:
    monkeypatch.setattr(machine, "_run", lambda *_: said)
    assert machine.clock_synchronized(Path("/")) is kept
