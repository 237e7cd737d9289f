"""The firewall as a machine has it: loaded or not, proven or not, and what it would shut.

The same code runs in the modules ``host_probe`` and ``firewall_rules`` and in the doctor: standard library only.
"""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

try:
    from llamarig.hardware import listeners
except ImportError:  # Ansible ships this file below its own package
    from ansible.module_utils.llamarig_hardware import listeners  # type: ignore[no-redef]

# What the role prints, and what has let a new connection through and is loaded at every start.
PLANNED = "etc/llamarig/firewall.planned.nft"
KEPT = "etc/llamarig/firewall.nft"
_NFT = "/usr/sbin/nft"
_SSHD = "/usr/sbin/sshd"
_DHCP_CLIENT_PORTS = {68, 546}
# A program that only asks has a UDP socket for a moment; one that serves still has it after this.
_MOMENT_SECONDS = 1.0
_ALL_ZERO = {"00000000", "0" * 32}


def loaded_ssh_ports() -> list[int] | None:
    """Return the ports that the loaded rules keep open for SSH, None where the rules are not loaded. Needs root."""
    said = _run([_NFT, "--json", "list", "set", "inet", "llamarig", "ssh_ports"])
    if said is None:
        return None
    return sorted(port for item in json.loads(said)["nftables"] for port in item.get("set", {}).get("elem", []))


def is_pending(base: Path) -> bool:
    """Tell whether the planned rules are not those that are loaded and load at every start."""
    return _read(base / PLANNED) != _read(base / KEPT) or loaded_ssh_ports() is None


def ssh_ports(base: Path, process: int) -> list[int]:
    """Return the ports through which the machine is or will be administered.

    They are the port of the connection that ``process`` came by, those on which sshd listens now, and those on which
    its configuration will have it listen. Empty where there is no SSH.
    """
    found = listeners.sshd_ports(base, listeners.read_listeners(base), listeners.read_processes(base))
    present = listeners.connection_port(base, process)
    configured = re.findall(r"^listenaddress \S+:(\d+)$", _run([_SSHD, "-T"]) or "", re.MULTILINE)
    return sorted({*found, *map(int, configured), *([present] if present else [])})


def survey(base: Path, process: int, wanted: dict[str, Any]) -> dict[str, Any]:
    """Compare a machine with the firewall that it is to have; changes nothing.

    ``wanted`` has ``enabled``, ``openings``, ``bridges``, ``close_undeclared`` and ``ssh_port``, which counts where no
    SSH is found. Returns ``ssh_ports``, ``pending``, ``problems`` that speak against it, and ``warnings``, all
    empty where none is wanted.
    """
    if not wanted.get("enabled"):
        return {"ssh_ports": [], "pending": False, "problems": [], "warnings": []}
    ports = ssh_ports(base, process) or [wanted["ssh_port"]]
    problems = [*_other_firewalls(base), *_bridges_outwards(base, wanted["bridges"])]
    is_first = not (base / KEPT).exists()
    # Later runs do not wait to see which sockets of UDP stay.
    protocols = ["tcp", "udp"] if is_first else ["tcp"]
    undeclared = [] if wanted["close_undeclared"] else _undeclared(base, wanted["openings"], ports, protocols)
    shut = [_shut(undeclared, "would shut" if is_first else "shuts")] if undeclared else []
    return {
        "ssh_ports": ports,
        "pending": is_pending(base),
        "problems": problems + (shut if is_first else []),
        "warnings": [] if is_first else shut,
    }


def _shut(undeclared: list[str], does: str) -> str:
    return (
        f"the firewall {does} ports that nobody declared: {', '.join(undeclared)}: declare them in firewall_allow, bind"
        " the programs to 127.0.0.1, or say firewall_close_undeclared: true; with firewall_enabled: false there is none"
    )


def _undeclared(base: Path, openings: list[dict[str, Any]], ssh: list[int], protocols: list[str]) -> list[str]:
    """Return what listens beyond loopback and is not open, as people name it."""
    declared = {(item["protocol"], int(item["port"])) for item in openings} | {("tcp", port) for port in ssh}
    declared |= {("udp", port) for port in _DHCP_CLIENT_PORTS}

    def look() -> list[listeners.Listener]:
        return [
            item
            for item in listeners.read_listeners(base)
            if item.protocol in protocols and not item.is_loopback and (item.protocol, item.port) not in declared
        ]

    found = look()
    if any(item.protocol == "udp" for item in found):
        time.sleep(_MOMENT_SECONDS)
        still = {item.inode for item in look()}
        found = [item for item in found if item.protocol == "tcp" or item.inode in still]
    if not found:
        return []
    names = listeners.owners(base, listeners.read_processes(base))
    ports = sorted({(item.port, item.protocol, names.get(item.inode, "the kernel")) for item in found})
    return [f"{port}/{protocol} ({name})" for port, protocol, name in ports]


def _other_firewalls(base: Path) -> list[str]:
    """Return the firewalls that are on beside llamarig's: each would shut what another opens."""
    said = _read(base / "etc/ufw/ufw.conf") or ""
    is_on = {
        "ufw": bool(re.search(r"^\s*ENABLED=[\"']?yes", said, re.MULTILINE)) and (base / "usr/sbin/ufw").exists(),
        "firewalld": "firewalld" in listeners.read_processes(base).values(),
    }
    off = {"ufw": "ufw disable", "firewalld": "systemctl disable --now firewalld"}
    return [
        f"{name} is on, and a second firewall beside it would be in its way: {off[name]}, with its rules in"
        " firewall_allow, or firewall_enabled: false"
        for name, on in is_on.items()
        if on
    ]


def _bridges_outwards(base: Path, patterns: Iterable[str]) -> list[str]:
    """Return the interfaces that lead outwards and would be taken for bridges of containers."""
    routes = [line.split() for line in (_read(base / "proc/net/route") or "").splitlines()[1:]]
    outwards = {words[0] for words in routes if words[1] in _ALL_ZERO and words[7] in _ALL_ZERO}
    routes = [line.split() for line in (_read(base / "proc/net/ipv6_route") or "").splitlines()]
    outwards |= {words[9] for words in routes if words[0] in _ALL_ZERO and words[1] == "00"}
    return [
        f"the default route goes over {name}, which firewall_bridges takes for a bridge of containers: set"
        " firewall_bridges to the bridges that Docker has (docker0, and br- with the id of each network)"
        for name in sorted(outwards)
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]


def _run(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
