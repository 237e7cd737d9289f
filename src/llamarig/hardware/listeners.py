"""Who listens on a machine, and through which ports it is administered, read from /proc.

The same code runs in the module ``host_probe`` before anything is installed, and in the doctor. So it uses the standard
library only, and takes the root of the file system as an argument.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

# States in /proc/net (include/net/tcp_states.h): TCP_LISTEN, and TCP_CLOSE, which is a UDP socket without a peer.
_TABLES = (("tcp", "0A", 4), ("tcp6", "0A", 6), ("udp", "07", 4), ("udp6", "07", 6))
_ROOT_UID = 0


@dataclass(frozen=True)
class Listener:
    """One socket that waits for others; ``inode`` leads to the processes that hold it."""

    protocol: str
    address: str
    port: int
    uid: int
    inode: str

    @property
    def is_loopback(self) -> bool:
        """Whether only the machine itself can reach it."""
        if ":" not in self.address:
            return IPv4Address(self.address).is_loopback
        address = IPv6Address(self.address)
        return (address.ipv4_mapped or address).is_loopback


def read_listeners(base: Path) -> list[Listener]:
    """Return every socket of this network namespace that waits for others, TCP and UDP, IPv4 and IPv6."""
    found = []
    for table, wanted, version in _TABLES:
        try:
            lines = (base / "proc/net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue  # a kernel without IPv6 has no tables for it
        for line in lines:
            words = line.split()
            address, _, port = words[1].partition(":")
            if words[3] == wanted:
                kind = IPv4Address if version == 4 else IPv6Address  # noqa: PLR2004  IP versions
                packed = _network_order(bytes.fromhex(address))
                found.append(Listener(table[:3], str(kind(packed)), int(port, 16), int(words[7]), words[9]))
    return found


def _network_order(raw: bytes) -> bytes:
    """Turn the kernel's words, each as a little-endian machine prints it, into an address."""
    return b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))


def read_processes(base: Path) -> dict[int, str]:
    """Return every process with its short name."""
    found = {}
    for place in (base / "proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found[int(place.name)] = (place / "comm").read_text(encoding="utf-8", errors="replace").strip()
    return found


def owners(base: Path, processes: dict[int, str]) -> dict[str, str]:
    """Return the name of a process for each socket that these processes hold, by the socket's inode."""
    found = {}
    for number, name in processes.items():
        with contextlib.suppress(OSError):
            for place in (base / f"proc/{number}/fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(place.readlink())
                    if target.startswith("socket:["):
                        found[target[8:-1]] = name
    return found


def sshd_ports(base: Path, listeners: list[Listener], processes: dict[int, str]) -> set[int]:
    """Return the ports on which root's sshd listens beyond loopback; another user's sshd administers nothing."""
    held = owners(base, {number: name for number, name in processes.items() if name == "sshd"})
    return {
        item.port
        for item in listeners
        if item.inode in held and item.uid == _ROOT_UID and item.protocol == "tcp" and not item.is_loopback
    }


def connection_port(base: Path, process: int) -> int | None:
    """Return the port of this machine that a process was reached through by SSH, None where it was not.

    sudo clears the environment, so the process's ancestors are asked too.
    """
    for number in _ancestors(base, process):
        with contextlib.suppress(OSError, ValueError):
            for entry in (base / f"proc/{number}/environ").read_bytes().split(b"\0"):
                if entry.startswith(b"SSH_CONNECTION="):
                    return int(entry.split()[-1])
    return None


def _ancestors(base: Path, process: int) -> Iterator[int]:
    while process > 0:
        yield process
        try:
            stat = (base / f"proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        # The name in brackets may hold spaces and brackets; after it come the state and the parent.
        process = int(stat.rpartition(")")[2].split()[1])
