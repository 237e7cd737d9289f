"""The played kernel, with the machine's files below a directory and its programs played."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llamarig.lab.silicon.cards import card_lines
from llamarig.lab.silicon.played import kernel


@dataclass
class Machine:
    """A machine that boots: its files, what its module tree has, the programs that were run."""

    root: Path
    module: dict[str, str] = field(default_factory=dict)
    blacklist: str = ""
    ran: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, *command: str) -> str:
        self.ran.append(command)
        if command[0] == "mount" and "/original/" in command[3]:
            for entry in Path(command[2]).iterdir():
                (Path(command[3]) / entry.name).mkdir()
        if command[0] == "modinfo":
            return self.module.get(command[2], "")
        return self.blacklist if command[0] == "/usr/sbin/modprobe" else ""

    def shown(self, path: str) -> str:
        return (self.root / "run/lab-silicon/sys" / path).read_text(encoding="ascii").strip()

    def driver(self) -> str | None:
        link = self.root / "run/lab-silicon/sys/devices/0000:01:00.0/driver"
        return link.readlink().name if link.is_symlink() else None

    def fault(self, line: str) -> None:
        (self.root / "var/lib/lab-silicon/faults").write_text(f"{line}\n", encoding="ascii")


PREBUILT = {"version": "580.95.05", "license": "Dual MIT/GPL", "filename": "/lib/modules/x/kernel/nvidia.ko"}
BUILT = PREBUILT | {"filename": "/lib/modules/x/updates/dkms/nvidia.ko"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with an RTX 4090 in a slot of half its width, and an RTX 5080; no driver in its module tree."""
    machine = Machine(tmp_path)

    def below(path: Path | str) -> Path:
        return tmp_path / str(path).lstrip("/")

    monkeypatch.setattr(kernel, "Path", below)
    monkeypatch.setattr(kernel, "DATA", below(kernel.DATA))
    monkeypatch.setattr(kernel, "SYS", below(kernel.SYS))
    monkeypatch.setattr(kernel, "_ORIGINAL", below(kernel._ORIGINAL))
    monkeypatch.setattr(kernel, "_SHOWN", {name: below(path) for name, path in kernel._SHOWN.items()})
    monkeypatch.setattr(kernel, "_run", machine.run)
    monkeypatch.setattr(os, "mknod", lambda path, mode, device: Path(path).write_text(f"{mode:o} {device}"))
    for path in ("sys/module/ext4", "sys/module/nvidia", "sys/firmware/acpi", "dev"):
        (tmp_path / path).mkdir(parents=True)
    lines = card_lines("box", ["rtx-4090", "rtx-5080"])
    lines[0] += " link_current_width=8 link_current_generation=3"
    kernel.DATA.mkdir(parents=True)
    (kernel.DATA / "cards").write_text("\n".join(lines), encoding="ascii")
    return machine


@pytest.fixture
def boot(machine: Machine) -> Callable[..., Machine]:
    """Boot the machine, with a fault and a module tree."""

    def boot(fault: str = "", **module: str) -> Machine:
        machine.fault(fault)
        machine.module |= module
        assert kernel.main(["boot"]) == 0
        return machine

    return boot


def test_cards_are_on_the_bus_before_any_driver(boot: Callable[..., Machine]) -> None:
    machine = boot()
    names = (
        "vendor",
        "device",
        "class",
        "max_link_speed",
        "current_link_speed",
        "max_link_width",
        "current_link_width",
    )
    assert [machine.shown(f"devices/0000:01:00.0/{name}") for name in names] == [
        "0x10de",
        "0x2684",
        "0x030000",
        "16.0 GT/s PCIe",
        "8.0 GT/s PCIe",
        "16",
        "8",
    ]
    assert machine.shown("devices/0000:02:00.0/current_link_speed") == "32.0 GT/s PCIe"
    assert machine.driver() is None
    bound = {command[2:] for command in machine.ran if command[:2] == ("mount", "--bind")}
    shown = machine.root / "run/lab-silicon/sys"
    assert (str(shown / "devices"), str(machine.root / "sys/bus/pci/devices")) not in bound, "no such bus here"
    assert (str(shown / "module"), str(machine.root / "sys/module")) in bound


def test_the_machines_own_modules_stay_visible_but_not_its_driver(boot: Callable[..., Machine]) -> None:
    (link,) = (boot().root / "run/lab-silicon/sys/module").iterdir()
    assert (link.name, link.is_dir(), link.readlink().parent.name) == ("ext4", True, "module")


def test_a_driver_of_the_module_tree_is_loaded_at_boot(boot: Callable[..., Machine]) -> None:
    machine = boot(**PREBUILT)
    assert machine.shown("module/nvidia/version") == "580.95.05"
    assert machine.shown("proc-driver/nvidia/version").startswith(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05 "
    )
    assert machine.driver() == "nvidia"
    nodes = {path.name for path in (machine.root / "dev").iterdir()}
    assert nodes == {"nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"}
    assert ("systemctl", "start", "--no-block", "lab-silicon-nvidia.service") in machine.ran


def test_modprobe_says_that_there_is_no_module(
    boot: Callable[..., Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    boot()
    assert kernel.main(["modprobe", "nvidia"]) == 1
    assert "FATAL: Module nvidia not found in directory /lib/modules/" in capsys.readouterr().err
    assert kernel.main(["modprobe", "-q", "nvidia"]) == 1
    assert not capsys.readouterr().err


def test_modprobe_loads_once_and_unloads(boot: Callable[..., Machine]) -> None:
    machine = boot()
    machine.module = PREBUILT | {"license": "NVIDIA"}
    assert kernel.main(["modprobe", "nvidia"]) == 0
    assert "Kernel Module  580.95.05" in machine.shown("proc-driver/nvidia/version")
    machine.module = PREBUILT | {"version": "580.82.07"}
    assert kernel.main(["modprobe", "nvidia-uvm"]) == 0
    assert machine.shown("module/nvidia/version") == "580.95.05"
    assert kernel.main(["modprobe", "-r", "nvidia"]) == 0
    assert (machine.driver(), list((machine.root / "dev").iterdir())) == (None, [])
    assert kernel.main(["modprobe", "nvidia"]) == 0
    assert machine.shown("module/nvidia/version") == "580.82.07"


def test_a_module_in_use_stays(boot: Callable[..., Machine], capsys: pytest.CaptureFixture[str]) -> None:
    machine = boot(**PREBUILT)
    pid = machine.root / "run/nvidia-persistenced/nvidia-persistenced.pid"
    pid.parent.mkdir()
    pid.write_text("1\n", encoding="ascii")
    assert kernel.main(["modprobe", "--remove", "nvidia"]) == 1
    assert capsys.readouterr().err == "modprobe: FATAL: Module nvidia is in use.\n"
    assert machine.driver() == "nvidia"


def test_nouveau_keeps_the_cards_until_it_is_blacklisted_and_the_box_rebooted(
    boot: Callable[..., Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    machine = boot("nouveau", **PREBUILT)
    assert machine.driver() == "nouveau"
    assert kernel.main(["modprobe", "nvidia"]) == 1
    assert capsys.readouterr().err == "modprobe: ERROR: could not insert 'nvidia': No such device\n"


def test_a_blacklisted_nouveau_leaves_the_cards_to_the_driver(machine: Machine, boot: Callable[..., Machine]) -> None:
    machine.blacklist = "options x y=1\nblacklist nouveau\n"
    assert boot("nouveau", **PREBUILT).driver() == "nvidia"


@pytest.mark.parametrize(
    ("fault", "module", "loads"),
    [("secure_boot", BUILT, False), ("secure_boot", PREBUILT, True), ("", BUILT, True)],
)
def test_secure_boot_refuses_a_module_that_was_built_here(
    boot: Callable[..., Machine],
    fault: str,
    module: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    *,
    loads: bool,
) -> None:
    machine = boot(fault, **module)
    variable = machine.root / "run/lab-silicon/sys/firmware/efi/efivars"
    (value,) = [path.read_bytes() for path in variable.glob("SecureBoot-*")]
    assert value == bytes([6, 0, 0, 0, int(fault == "secure_boot")])
    assert kernel.main(["modprobe", "nvidia"]) == (0 if loads else 1)
    assert ("Key was rejected by service" in capsys.readouterr().err) != loads


def test_it_says_which_server_in_a_container_has_which_card(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(pid: int, comm: str, *minors: int, namespace: str = "") -> None:
        place = machine.root / f"proc/{pid}"
        (place / "ns").mkdir(parents=True)
        (place / "comm").write_text(f"{comm}\n", encoding="ascii")
        (place / "status").write_text(f"Name:\t{comm}\nVmRSS:\t {pid * 100} kB\n", encoding="ascii")
        own = place / "ns/mnt"
        own.hardlink_to(machine.root / f"proc/{namespace}/ns/mnt") if namespace else own.touch()
        for minor in minors:
            (place / "root/dev").mkdir(parents=True, exist_ok=True)
            (place / f"root/dev/nvidia{minor}").touch()

    start(1, "systemd")
    start(7, "llama-server", 1)
    start(8, "llama-server", 0, 1)
    start(9, "llama-server", 0, namespace="1")
    start(10, "llama-bench", 0)
    start(11, "llama-server")
    (machine.root / "proc/12").mkdir()
    assert kernel.main(["processes"]) == 0
    assert capsys.readouterr().out == "7 1 700\n8 0 800\n8 1 800\nend\n"
