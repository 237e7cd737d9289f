"""The played kernel of a lab host: cards on its PCI bus, a driver that can be loaded, nodes in /dev.

Runs on the lab host with nothing but the standard library, as ``kernel boot``, ``kernel modprobe ...`` and
``kernel processes``. What it shows lives in /run/lab-silicon/sys and is bound over the machine's own /sys and /proc, so
a reboot forgets it.
"""

from __future__ import annotations

import os
import platform
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

DATA: Final = Path("/var/lib/lab-silicon")
SYS: Final = Path("/run/lab-silicon/sys")
_ORIGINAL: Final = Path("/run/lab-silicon/original")
_SHOWN: Final = {
    "module": Path("/sys/module"),
    "devices": Path("/sys/bus/pci/devices"),
    "drivers": Path("/sys/bus/pci/drivers"),
    "firmware": Path("/sys/firmware"),
    "proc-driver": Path("/proc/driver"),
}
_SECURE_BOOT: Final = "efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_SPEED: Final = {"1": "2.5", "2": "5.0", "3": "8.0", "4": "16.0", "5": "32.0", "6": "64.0"}
# Where only root may look, but what everyone may open write-only and no container may without a rule for it: the
# kernel's log. So a container that lost its devices really has lost them. Nobody writes to it.
_NODE: Final = os.makedev(1, 11)


def main(arguments: list[str]) -> int:
    """Do what is asked; return the exit status."""
    if arguments == ["boot"]:
        boot()
        return 0
    if arguments == ["processes"]:
        for pid, minor, kib in holders():
            print(pid, minor, kib)
        print("end")
        return 0
    return modprobe(arguments[1:])


def boot() -> None:
    """Show the machine with its cards, and load the driver that the module tree has, as udev would."""
    for name, place in _SHOWN.items():
        shown = SYS / name
        shown.mkdir(parents=True)
        if name in {"module", "firmware"}:
            _keep_original(name, place, shown)
    _show_secure_boot(enabled="secure_boot" in _faults())
    for card in cards():
        _show_card(card)
    for name, place in _SHOWN.items():
        if place.is_dir():
            _run("mount", "--bind", str(SYS / name), str(place))
    if "nouveau" in _faults() and "blacklist nouveau" not in _run("/usr/sbin/modprobe", "--showconfig"):
        _show_driver("nouveau")
    elif _run("modinfo", "-F", "version", "nvidia"):
        load()


def cards() -> list[dict[str, str]]:
    """Return the cards, one mapping each, in the order of their minor numbers."""
    lines = (DATA / "cards").read_text(encoding="ascii").splitlines()
    return [dict(word.split("=", 1) for word in line.split()) for line in lines if line.strip()]


def holders() -> list[tuple[int, int, int]]:
    """Return process, minor number of a card and resident KiB, for every server in a container with a card's node."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "comm").read_text(encoding="utf-8", errors="replace").strip() != "llama-server":
                continue
            if (place / "ns/mnt").stat().st_ino == Path("/proc/1/ns/mnt").stat().st_ino:
                continue
            status = (place / "status").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it ended meanwhile
        kib = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)
        minors = [minor for minor in range(len(cards())) if (place / f"root/dev/nvidia{minor}").exists()]
        found += [(int(place.name), minor, kib) for minor in minors]
    return sorted(found)


def modprobe(arguments: list[str]) -> int:
    """Load or unload nvidia; its companions come and go with it."""
    remove = any(argument in {"-r", "--remove"} for argument in arguments)
    refusal = unload() if remove else load()
    if refusal and not {"-q", "--quiet"} & set(arguments):
        print(f"modprobe: {refusal}", file=sys.stderr)
    return 1 if refusal else 0


def load() -> str | None:
    """Load the driver of the running kernel's module tree; return why it cannot be."""
    if (SYS / "module/nvidia").exists():
        return None
    release = platform.release()
    version, license_, file = (_run("modinfo", "-F", field, "nvidia") for field in ("version", "license", "filename"))
    if not version:
        return f"FATAL: Module nvidia not found in directory /lib/modules/{release}"
    if (SYS / "module/nouveau").exists():
        return "ERROR: could not insert 'nvidia': No such device"
    if "secure_boot" in _faults() and "/updates/dkms/" in file:
        return "ERROR: could not insert 'nvidia': Key was rejected by service"
    _show_nodes()
    kind = "UNIX Open Kernel Module for x86_64" if "GPL" in license_ else "UNIX x86_64 Kernel Module"
    _write(SYS / "proc-driver/nvidia/version", f"NVRM version: NVIDIA {kind}  {version}  Release Build  (lab)\n")
    _show_driver("nvidia", version)
    _run("systemctl", "start", "--no-block", "lab-silicon-nvidia.service")
    return None


def unload() -> str | None:
    """Unload the driver; return why it cannot be."""
    if Path("/run/nvidia-persistenced/nvidia-persistenced.pid").exists():
        return "FATAL: Module nvidia is in use."
    for path in [SYS / "module/nvidia/version", SYS / "proc-driver/nvidia/version"]:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            path.parent.rmdir()
    for card in cards():
        (SYS / "devices" / card["pci"] / "driver").unlink(missing_ok=True)
    for node in Path("/dev").glob("nvidia*"):
        node.unlink()
    _run("systemctl", "stop", "--no-block", "lab-silicon-nvidia.service")
    return None


def _keep_original(name: str, place: Path, shown: Path) -> None:
    """Go on showing what the machine has there, under its own names."""
    if not place.is_dir():
        return
    original = _ORIGINAL / name
    original.mkdir(parents=True)
    _run("mount", "--bind", str(place), str(original))
    for entry in original.iterdir():
        if entry.name not in {"efi", "nvidia", "nvidia_uvm", "nouveau"}:
            (shown / entry.name).symlink_to(entry)


def _show_secure_boot(*, enabled: bool) -> None:
    """Write the firmware's variable: four bytes of attributes, one of value."""
    variable = SYS / "firmware" / _SECURE_BOOT
    variable.parent.mkdir(parents=True)
    variable.write_bytes(bytes([6, 0, 0, 0, int(enabled)]))


def _show_card(card: dict[str, str]) -> None:
    generation, width = card["link_generation"], card["link_width"]
    entries = {
        "vendor": "0x10de",
        "device": f"0x{card['device']}",
        "class": "0x030000",
        "max_link_speed": f"{_SPEED[generation]} GT/s PCIe",
        "current_link_speed": f"{_SPEED[card.get('link_current_generation', generation)]} GT/s PCIe",
        "max_link_width": width,
        "current_link_width": card.get("link_current_width", width),
    }
    for name, value in entries.items():
        _write(SYS / "devices" / card["pci"] / name, f"{value}\n")


def _show_driver(name: str, version: str | None = None) -> None:
    """Show a driver as loaded and bound to every card; the version comes last, for it is what others look for."""
    (SYS / "drivers" / name).mkdir(exist_ok=True)
    for card in cards():
        (SYS / "devices" / card["pci"] / "driver").symlink_to(f"../../drivers/{name}")
    (SYS / "module" / name).mkdir()
    if version:
        _write(SYS / "module" / name / "version", f"{version}\n")


def _show_nodes() -> None:
    names = [f"nvidia{minor}" for minor in range(len(cards()))]
    for name in [*names, "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"]:
        path = Path("/dev") / name
        if not path.exists():
            os.mknod(path, 0o666 | stat.S_IFCHR, _NODE)
            path.chmod(0o666)


def _faults() -> set[str]:
    file = DATA / "faults"
    return set(file.read_text(encoding="ascii").splitlines()) if file.exists() else set()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def _run(*command: str) -> str:
    """Run a program; its output, empty where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
