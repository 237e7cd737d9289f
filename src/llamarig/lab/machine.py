"""The machine that the lab runs on: its mirror, its capabilities, its docker."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llamarig.config.debian import KEYRING, MINIMAL_ROOT
from llamarig.errors import LlamarigError

# Capabilities in the order of their bits (linux/capability.h); docker wants names, the kernel tells bits.
_CAPABILITIES: Final = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
# A lab host is a guest: it must not load modules, set the clock or reach the raw hardware of this machine.
_WITHHELD: Final = {"SYS_MODULE", "SYS_RAWIO", "SYS_TIME", "SYS_BOOT"}
# How C becomes a library that can be preloaded.
COMPILE: Final = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared")
# Suites whose archives are signed with Debian's keyring.
_DEBIAN: Final = {"sid", "trixie"}


class LabError(LlamarigError):
    """The lab cannot be brought up here."""


@dataclass(frozen=True, slots=True)
class Base:
    """The distribution that lab hosts run, and where its packages come from."""

    suite: str
    mirror: str
    components: str


def run(command: Sequence[str], *, check: bool = True, stdin: str | None = None) -> str:
    """Run a program and return its output.

    Raises:
        LabError: it failed; the message is its own.

    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=stdin)
    if check and done.returncode != 0:
        msg = f"{' '.join(command[:3])} ... failed: {(done.stderr or done.stdout).strip()[-2000:]}"
        raise LabError(msg)
    return done.stdout.strip()


def need_mmdebstrap() -> None:
    """See that root file systems can be made here.

    Raises:
        LabError: they cannot.

    """
    if shutil.which("mmdebstrap") is None:
        msg = "mmdebstrap is not installed"
        raise LabError(msg, "apt-get install mmdebstrap debian-archive-keyring")


def minimal_root(tar: Path, base: Base, packages: Sequence[str], hooks: Sequence[str] = ()) -> None:
    """Write a minimal root file system with these packages to ``tar``; hooks are mmdebstrap's.

    Raises:
        LabError: the archive does not answer, or lacks a package.

    """
    run(
        [
            *MINIMAL_ROOT,
            f"--components={base.components}",
            f"--include={','.join(packages)}",
            *(f"--customize-hook={hook}" for hook in hooks),
            *([f"--keyring={KEYRING}"] if base.suite in _DEBIAN and Path(KEYRING).exists() else []),
            base.suite,
            str(tar),
            base.mirror,
        ]
    )


def compile_library(directory: Path, name: str, source: str) -> Path | None:
    """Compile C into ``name``.so of a directory; None where this machine has no compiler.

    Raises:
        LabError: the compiler refuses it.

    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    code = directory / f"{name}.c"
    code.write_text(source, encoding="utf-8")
    run([compiler, *COMPILE, "-o", str(directory / f"{name}.so"), str(code)])
    return directory / f"{name}.so"


def ensure_docker() -> None:
    """Start dockerd where nothing runs it; a machine with an init that does so is left alone."""
    if shutil.which("dockerd") is None or shutil.which("docker") is None:
        msg = "docker is not installed"
        raise LabError(msg, "apt-get install docker.io, and docker-cli where that is a package of its own")
    if _docker_answers():
        return
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker.service"])
    else:
        # A pid file left by a machine that was switched off would keep the daemon from starting.
        for stale in (Path("/run/docker.pid"), Path("/var/run/docker/containerd/containerd.pid")):
            if stale.exists() and not Path(f"/proc/{stale.read_text(encoding='ascii').strip()}").exists():
                stale.unlink()
        # It outlives this process, so it is nobody's child here: setsid forks it away and ends at once.
        with Path("/var/log/dockerd.log").open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", "dockerd"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=True
            )
    for _ in range(120):
        if _docker_answers():
            return
        time.sleep(0.25)
    msg = "dockerd does not answer after 30 s"
    raise LabError(msg, "see /var/log/dockerd.log or journalctl -u docker")


def capabilities() -> list[str]:
    """Return what this machine may give away: its bounding set, as far as its docker knows the names."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^CapBnd:\s*([0-9a-f]+)", status, re.MULTILINE)
    bits = int(found.group(1), 16) if found else 0
    names = [name for bit, name in enumerate(_CAPABILITIES) if bits >> bit & 1 and name not in _WITHHELD]
    version = run(["docker", "version", "--format", "{{.Server.Version}}"])
    known_since_23 = {"PERFMON", "BPF", "CHECKPOINT_RESTORE"}
    old = int(version.split(".")[0]) < 23  # noqa: PLR2004  a version
    return [name for name in names if not (old and name in known_since_23)]


def hidden_bus(bus: Path = Path("/sys/bus/pci/devices")) -> list[str]:
    """Return what hides the PCI bus from a container: a lab host must not provision the cards of its machine."""
    return ["--tmpfs", str(bus)] if bus.is_dir() else []


def legacy_cgroups() -> bool:
    """Tell whether this machine has cgroup v1, which systemd 257 must be told to accept."""
    return not Path("/sys/fs/cgroup/cgroup.controllers").exists()


def debian_mirror() -> str:
    """Return where this machine takes Debian's packages from; the engine image of the lab is made of them."""
    return _mirror("debian") or "http://deb.debian.org/debian"


def base() -> Base:
    """Choose what lab hosts are made of: Ubuntu 24.04 on Ubuntu, Debian 13 elsewhere, from this machine's mirror."""
    release = platform.freedesktop_os_release()
    if release.get("ID") == "ubuntu":
        return Base("noble", _mirror("ubuntu") or "http://archive.ubuntu.com/ubuntu", "main,universe")
    return Base("trixie", debian_mirror(), "main")


def _mirror(distribution: str) -> str | None:
    """Return the first archive of apt's own sources, in either of their formats."""
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for place in places:
        if not place.is_file() or place.suffix not in {".list", ".sources"}:
            continue
        for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
            found = re.match(r"^(?:URIs:|deb\s+(?:\[[^]]*\]\s+)?)\s*(\S+)", line.strip())
            if found and found.group(1).rstrip("/").endswith(f"/{distribution}"):
                return found.group(1).rstrip("/")
    return None


def _docker_answers() -> bool:
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
