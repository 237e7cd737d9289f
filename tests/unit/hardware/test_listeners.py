from __future__ import annotations

import socket
from pathlib import Path

import pytest

from llamarig.hardware import listeners

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


class Proc:
    """A /proc with sockets and processes."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.tables: dict[str, list[str]] = {}
        self.inode = 100

    def socket(self, table: str, address: str, port: int, state: str = "0A", uid: int = 0) -> int:
        """Add a line as the kernel prints it; ``address`` is in the kernel's own hexadecimal."""
        self.inode += 1
        lines = self.tables.setdefault(table, [])
        zero = "0" * len(address)
        lines.append(
            f"   0: {address}:{port:04X} {zero}:0000 {state} 00000000:00000000 00:00000000 00000000 "
            f"{uid:5} 0 {self.inode} 1 0 100 0 0 10 0\n"
        )
        path = self.base / "proc/net" / table
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + "".join(lines), encoding="ascii")
        return self.inode

    def process(self, number: int, name: str, *inodes: int, parent: int = 1, environ: bytes = b"") -> None:
        place = self.base / f"proc/{number}"
        (place / "fd").mkdir(parents=True)
        (place / "comm").write_text(f"{name}\n", encoding="utf-8")
        (place / "stat").write_text(f"{number} ({name}) S {parent} 1 1 0\n", encoding="utf-8")
        (place / "environ").write_bytes(environ)
        (place / "fd/0").symlink_to("/dev/null")
        for inode in inodes:
            (place / f"fd/{inode}").symlink_to(f"socket:[{inode}]")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def test_addresses_are_read_as_the_kernel_prints_them(proc: Proc) -> None:
    proc.socket("tcp", "0100007F", 8080)
    proc.socket("tcp", "0A0200C0", 443)
    proc.socket("tcp6", "B80D0120000000000000000001000000", 22)
    proc.socket("udp", "0A0200C0", 111, state="07")
    found = listeners.read_listeners(proc.base)
    assert [(item.protocol, item.address, item.port, item.is_loopback) for item in found] == [
        ("tcp", "127.0.0.1", 8080, True),
        ("tcp", "192.0.2.10", 443, False),
        ("tcp", "2001:db8::1", 22, False),
        ("udp", "192.0.2.10", 111, False),
    ]


def test_loopback_of_ipv4_within_ipv6_is_loopback(proc: Proc) -> None:
    proc.socket("tcp6", "0000000000000000FFFF00000100007F", 8005)
    (found,) = listeners.read_listeners(proc.base)
    assert found.is_loopback


def test_connections_are_no_listeners(proc: Proc) -> None:
    proc.socket("tcp", "0A0200C0", 22, state="01")
    proc.socket("udp", "0A0200C0", 5000, state="01")
    assert listeners.read_listeners(proc.base) == []


def test_the_kernel_of_this_machine_is_understood() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (mine,) = (item for item in listeners.read_listeners(Path("/")) if (item.protocol, item.port) == ("tcp", port))
        assert mine.address == "127.0.0.1"
        held = listeners.owners(Path("/"), listeners.read_processes(Path("/")))
        assert mine.inode in held


def test_a_socket_leads_to_its_process(proc: Proc) -> None:
    inode = proc.socket("tcp", "00000000", 5432)
    proc.process(10, "docker-proxy", inode)
    proc.process(11, "other")
    processes = listeners.read_processes(proc.base)
    assert processes == {10: "docker-proxy", 11: "other"}
    assert listeners.owners(proc.base, processes) == {str(inode): "docker-proxy"}


def test_only_roots_sshd_beyond_loopback_administers(proc: Proc) -> None:
    real, second = proc.socket("tcp", "00000000", 22), proc.socket("tcp6", "0" * 32, 2222)
    forwarded = proc.socket("tcp", "0100007F", 6010)
    users = proc.socket("tcp", "00000000", 5000, uid=1000)
    proc.process(10, "sshd", real, second, forwarded)
    proc.process(11, "sshd", users)
    proc.process(12, "nginx", proc.socket("tcp", "00000000", 80))
    found = listeners.sshd_ports(proc.base, listeners.read_listeners(proc.base), listeners.read_processes(proc.base))
    assert found == {22, 2222}


def test_the_port_of_the_connection_is_found_behind_sudo(proc: Proc) -> None:
    proc.process(2, "sshd", environ=b"LANG=C\0")
    proc.process(20, "sh", parent=2, environ=b"LANG=C\0SSH_CONNECTION=198.51.100.7 50000 192.0.2.10 2200\0")
    proc.process(21, "sudo", parent=20, environ=b"LANG=C\0")
    proc.process(22, "a (strange) name", parent=21)
    assert listeners.connection_port(proc.base, 22) == 2200
    assert listeners.connection_port(proc.base, 2) is None
