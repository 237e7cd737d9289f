"""What a machine is, read from /proc, /sys and dpkg, without a driver and without any of our software on it.

The same code runs in two places: in the module ``host_probe`` before anything is installed, and in the doctor. So it
uses the standard library only, and takes the root of the file system as an argument.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from . import cards

_NVIDIA = "0x10de"
_DISPLAY_CLASSES = ("0x0300", "0x0302")
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_CDI_FILES = ("var/run/cdi/nvidia.yaml", "run/cdi/nvidia.yaml", "etc/cdi/nvidia.yaml")
# PCIe generations by the speed that the kernel says, in GT/s.
_GENERATIONS = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}
# What apt writes for $(ARCH).
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_UNFINISHED = {"half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"}


def read(root: str | Path = "/") -> dict[str, Any]:
    """Return the facts of a machine as plain types; what cannot be read is None.

    ``kernel`` is the running release; ``driver`` has the versions of the module loaded, of the module on disk for the
    running kernel, and of the user space; ``packages`` maps names to versions; ``interrupted`` says that dpkg was.
    """
    base = Path(root)
    packages, held, interrupted = _dpkg(base)
    return {
        "memory_mib": _memory_mib(base),
        "cpu_threads": len(os.sched_getaffinity(0)),
        "kernel": _text(base / "proc/sys/kernel/osrelease"),
        "kernels": _kernels(base),
        "cards": read_cards(base),
        "driver": read_driver(base),
        "cdi": read_cdi(base),
        "secure_boot": secure_boot(base),
        "clock_synchronized": clock_synchronized(base),
        "reboot_required": (base / "run/reboot-required").exists(),
        "apt_sources": read_apt_sources(base),
        "apt_keys": [f"/{place.relative_to(base)}" for place in sorted((base / "etc/apt/keyrings").glob("*"))],
        "persistenced_user": persistenced_user(base),
        "docker_options": docker_options(base),
        "snap_docker": (base / "snap/docker/current").exists(),
        "packages": packages,
        "held": held,
        "interrupted": interrupted,
    }


def read_cards(base: Path) -> list[dict[str, Any]]:
    """Return the NVIDIA cards on the PCI bus, in its order, with the link that each has."""
    found = []
    for place in sorted((base / "sys/bus/pci/devices").glob("*")):
        kind = _text(place / "class") or ""
        if _text(place / "vendor") != _NVIDIA or not kind.startswith(_DISPLAY_CLASSES):
            continue
        device = (_text(place / "device") or "0x0000").removeprefix("0x")
        driver = place / "driver"
        found.append(
            {
                "address": place.name,
                "device_id": device,
                "name": cards.name(device),
                "architecture": cards.architecture(device),
                "driver": driver.readlink().name if driver.is_symlink() else None,
                "link": {
                    "generation": _generation(_text(place / "current_link_speed")),
                    "generation_max": _generation(_text(place / "max_link_speed")),
                    "width": _number(_text(place / "current_link_width")),
                    "width_max": _number(_text(place / "max_link_width")),
                },
            }
        )
    return found


def read_driver(base: Path) -> dict[str, Any]:
    """Return the three versions that must agree, and what may stand in the driver's way."""
    libraries = [*base.glob("usr/lib/*-linux-gnu/libnvidia-ml.so.1"), *base.glob("usr/lib64/libnvidia-ml.so.1")]
    target = libraries[0].readlink().name if libraries and libraries[0].is_symlink() else ""
    license_said = _modinfo(base, "license")
    return {
        "loaded": _text(base / "sys/module/nvidia/version"),
        "on_disk": _modinfo(base, "version"),
        "userspace": _version(target.removeprefix("libnvidia-ml.so.")),
        # Of the module on disk, and of the one that is loaded: the same version may be there with either licence.
        "open": None if license_said is None else "GPL" in license_said,
        "loaded_open": "Open Kernel Module" in (_text(base / "proc/driver/nvidia/version") or ""),
        "signer": _modinfo(base, "signer"),
        # The module of every installed kernel, by the kernel's release.
        "on_disk_by_kernel": _modules_by_kernel(base),
        "nouveau": (base / "sys/module/nouveau").exists(),
        # Only NVIDIA's own installer, the .run file, leaves this program.
        "run_file": (base / "usr/bin/nvidia-uninstall").exists(),
    }


def read_cdi(base: Path) -> dict[str, Any] | None:
    """Return what the CDI specification names: devices, and the driver whose libraries it mounts. None without one."""
    for place in (base / name for name in _CDI_FILES):
        try:
            text = place.read_text(encoding="utf-8")
        except OSError:
            continue
        # A hook that links libcuda.so.1 names the library too; the driver's own version has points in it.
        library = re.search(r"libcuda\.so\.([0-9]+(?:\.[0-9]+)+)", text)
        return {
            "path": f"/{place.relative_to(base)}",
            "devices": re.findall(r"^\s*(?:- )?name:\s*\"?([A-Za-z0-9:_-]+)\"?\s*$", text, re.MULTILINE),
            "driver": library.group(1) if library else None,
        }
    return None


def read_apt_sources(base: Path) -> dict[str, list[str]]:
    """Return the files of apt's sources, each with the archives that it names and that are not switched off."""
    places = [base / "etc/apt/sources.list", *sorted((base / "etc/apt/sources.list.d").glob("*"))]
    architecture = _ARCHITECTURES.get(os.uname().machine, "")
    found = {}
    for place in places:
        if place.suffix in {".list", ".sources"}:
            stanzas = (_text(place) or "").replace("$(ARCH)", architecture).split("\n\n")
            on = [text for text in stanzas if not re.search(r"^Enabled:\s*(no|false)", text, re.MULTILINE)]
            uris = re.findall(r"^(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s*)?)(.+)$", "\n".join(on), re.MULTILINE)
            words = [word for line in uris for word in line.split() if "://" in word or word.startswith("file:")]
            found[f"/{place.relative_to(base)}"] = [word.rstrip("/") for word in words]
    return found


def docker_options(base: Path) -> dict[str, Any] | None:
    """Return what somebody else wrote into daemon.json; None where there is none, or llamarig wrote it."""
    if (base / "etc/systemd/system/containerd.service.d/llamarig.conf").exists():
        return None
    try:
        options = json.loads(_text(base / "etc/docker/daemon.json") or "null")
    except ValueError:
        return None  # Docker does not read it either
    return options if isinstance(options, dict) else None


def persistenced_user(base: Path) -> str:
    """Return the account of nvidia-persistenced, whose name is its packager's; empty where the daemon has no unit."""
    units = ("usr/lib/systemd/system", "lib/systemd/system", "etc/systemd/system")
    if not any((base / place / "nvidia-persistenced.service").exists() for place in units):
        return ""
    accounts = re.findall(r"^([^:]+):", _text(base / "etc/passwd") or "", re.MULTILINE)
    return next((name for name in ("nvidia-persistenced", "nvpd") if name in accounts), "root")


def secure_boot(base: Path) -> bool | None:
    """Tell whether the firmware starts signed code only. None where that cannot be read; without EFI it does not."""
    if not (base / "sys/firmware/efi").is_dir():
        return False
    try:
        content = (base / _SECURE_BOOT).read_bytes()
    except OSError:
        return None
    # Four bytes of attributes, then the value.
    return content[4:5] == b"\x01"


def clock_synchronized(base: Path) -> bool | None:
    """Tell whether the kernel's clock is kept right by a time service."""
    if base != Path("/"):
        return (base / "run/systemd/timesync/synchronized").exists()
    said = _run("timedatectl", "show", "--property=NTPSynchronized", "--value")
    return None if said is None else said == "yes"


def _memory_mib(base: Path) -> int | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(base / "proc/meminfo") or "", re.MULTILINE)
    return int(found.group(1)) // 1024 if found else None


def _dpkg(base: Path) -> tuple[dict[str, str], list[str], bool]:
    """Return versions of the installed packages, names of the held ones, and whether dpkg was interrupted."""
    packages: dict[str, str] = {}
    held: list[str] = []
    interrupted = any((base / "var/lib/dpkg/updates").glob("[0-9]*"))
    text = _text(base / "var/lib/dpkg/status") or ""
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version): (.*)$", block, re.MULTILINE))
        if "Status" not in fields:
            continue
        want, _, state = fields["Status"].split()
        if state == "installed":
            packages[fields["Package"]] = fields["Version"]
        interrupted = interrupted or state in _UNFINISHED
        if want == "hold":
            held.append(fields["Package"])
    return packages, sorted(held), interrupted


def _modinfo(base: Path, field: str, kernel: str = "") -> str | None:
    """Ask kmod, which can read what distributions compress modules with; by default for the running kernel."""
    release = kernel or _text(base / "proc/sys/kernel/osrelease") or ""
    return _run("modinfo", "--basedir", str(base), "--set-version", release, "--field", field, "nvidia")


def _kernels(base: Path) -> list[str]:
    # A kernel that was removed and not purged leaves its index, without modules.
    places = [place.parent for place in base.glob("lib/modules/*/modules.dep")]
    return sorted(place.name for place in places if any((place / part).is_dir() for part in ("kernel", "updates")))


def _modules_by_kernel(base: Path) -> dict[str, str]:
    versions = {kernel: _modinfo(base, "version", kernel) for kernel in _kernels(base)}
    return {kernel: version for kernel, version in versions.items() if version}


def _run(program: str, *arguments: str) -> str | None:
    environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, timeout=20, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _version(text: str) -> str | None:
    return text if re.fullmatch(r"\d+(\.\d+)+", text) else None


def _generation(speed: str | None) -> int | None:
    return _GENERATIONS.get((speed or "").split(" ", maxsplit=1)[0])


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
