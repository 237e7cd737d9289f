"""A lab host with silicon: what it gets before its first boot, and after."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from llamarig.lab.machine import run
from llamarig.lab.silicon import binaries
from llamarig.lab.silicon.cards import card_lines

# The names under which a host reaches its own archives, beside 127.0.0.1: apt pins by host name.
_NAMES: Final = ("ubuntu.lab", "nvidia.lab", "toolkit.lab", "docker.lab")
_WANTED: Final = {
    "lab-silicon.service": "sysinit.target",
    "lab-silicon-processes.socket": "sockets.target",
    "lab-archive.service": "multi-user.target",
}
_UNITS: Final = (*_WANTED, "lab-silicon-processes@.service", "lab-silicon-nvidia.service")
# A fresh Ubuntu box has its kernel as packages; the running one is this machine's.
_SETTLE: Final = """\
set -e
! dpkg --status linux-generic >/dev/null 2>&1 || exit 0
chmod -R a+rX /srv/lab-archive
cd /srv/lab-archive/ubuntu/pool
kernel=$(uname -r)
dpkg --install linux-generic_* linux-image-generic_* linux-headers-generic_* \\
  "linux-image-${kernel}"_* "linux-headers-${kernel}"_*
rm -f /run/reboot-required /run/reboot-required.pkgs
"""


def image(base: str) -> str:
    """Return the image of hosts with silicon: the lab's own with kmod, whose modinfo and depmod are the real ones."""
    name = f"{base}-silicon"
    if run(["docker", "image", "ls", "--quiet", name]):
        return name
    install = "apt-get install -y kmod || { apt-get update && apt-get install -y kmod; }"
    container = run(["docker", "create", base, "sh", "-c", install])
    try:
        run(["docker", "start", "--attach", container])
        run(["docker", "commit", "--change", "LABEL llamarig.lab-base=1", container, name])
    finally:
        run(["docker", "rm", "--force", "--volumes", container])
    return name


def create_options() -> list[str]:
    """Return what docker create needs beyond the usual: names for the archives, and the right to open the nodes."""
    # The nodes are the kernel's log, which no container may open without a rule: see played/kernel.py.
    options = ["--device-cgroup-rule", "c 1:11 rw"]
    for name in _NAMES:
        options += ["--add-host", f"{name}:127.0.0.1"]
    return options


def equip(container: str, host: str, cards: list[str], archives: list[Path]) -> None:
    """Put cards, played kernel and archives into a container that was not started yet."""
    for archive in archives:
        run(["docker", "cp", f"{archive}/.", f"{container}:/srv/lab-archive"])
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory)
        _lay_out(tree, host, cards)
        # docker cp hands modes on, to directories that are there already too.
        for path in [tree, *tree.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        run(["docker", "cp", f"{tree}/.", f"{container}:/"])


def settle(container: str) -> None:
    """Install the kernel's packages on a host that runs."""
    run(["docker", "exec", container, "sh", "-c", _SETTLE])


def _lay_out(tree: Path, host: str, cards: list[str]) -> None:
    lines = "".join(f"{line}\n" for line in card_lines(host, cards))
    _put(tree / "var/lib/lab-silicon/cards", lines.encode(), 0o644)
    _put(tree / "usr/local/lib/lab-silicon/kernel", binaries.script("kernel"), 0o755)
    _put(tree / "usr/local/sbin/modprobe", binaries.data("modprobe").encode(), 0o755)
    units = tree / "etc/systemd/system"
    for unit in _UNITS:
        _put(units / unit, binaries.data(unit).encode(), 0o644)
    for unit, target in _WANTED.items():
        wants = units / f"{target}.wants"
        wants.mkdir(parents=True)
        (wants / unit).symlink_to(f"../{unit}")


def _put(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
