from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamarig.hardware import firewall
from tests.support import ROOT
from tests.unit.hardware.test_listeners import Proc

WANTED: dict[str, Any] = {
    "enabled": True,
    "openings": [{"protocol": "tcp", "port": 8080}],
    "bridges": ["docker0", "br-*"],
    "close_undeclared": False,
    "ssh_port": 22,
}
ROUTES = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
Programs = Callable[..., None]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    """What nft and sshd say; None is a failure."""

    def play(nft: list[int] | None = None, sshd: str | None = None) -> None:
        loaded = None if nft is None else json.dumps({"nftables": [{"metainfo": {}}, {"set": {"elem": nft}}]})
        answers = {"/usr/sbin/nft": loaded, "/usr/sbin/sshd": sshd}
        monkeypatch.setattr(firewall, "_run", lambda command: answers[command[0]])

    play()
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return play


@pytest.fixture
def proc(tmp_path: Path, programs: Programs) -> Proc:  # noqa: ARG001  nothing of this machine is run
    result = Proc(tmp_path)
    result.process(10, "sshd", result.socket("tcp", "00000000", 22))
    return result


def survey(proc: Proc, **changes: Any) -> dict[str, Any]:
    return firewall.survey(proc.base, 10, WANTED | changes)


def rules(base: Path, planned: str | None = None, kept: str | None = None) -> None:
    for name, text in ((firewall.PLANNED, planned), (firewall.KEPT, kept)):
        if text is not None:
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            (base / name).write_text(text, encoding="utf-8")


def test_a_blank_host_has_nothing_against_a_firewall(proc: Proc) -> None:
    proc.socket("tcp", "00000000", 8080)
    proc.socket("tcp", "0100007F", 5432)
    proc.socket("udp", "00000000", 68, state="07")
    assert survey(proc) == {"ssh_ports": [22], "pending": True, "problems": [], "warnings": []}


def test_where_none_is_wanted_nothing_speaks_against_it(proc: Proc) -> None:
    proc.process(11, "firewalld", proc.socket("tcp", "00000000", 5432))
    nothing = {"ssh_ports": [], "pending": False, "problems": [], "warnings": []}
    assert survey(proc, enabled=False) == firewall.survey(proc.base, 10, {}) == nothing


def test_the_first_activation_is_refused_where_it_would_shut_something(proc: Proc) -> None:
    proc.process(11, "docker-proxy", proc.socket("tcp", "00000000", 5432), proc.socket("tcp6", "0" * 32, 5432))
    proc.socket("udp", "00000000", 51820, state="07")
    (problem,) = survey(proc)["problems"]
    assert "would shut ports that nobody declared: 5432/tcp (docker-proxy), 51820/udp (the kernel)" in problem
    assert "firewall_allow" in problem
    assert "firewall_enabled: false" in problem
    assert survey(proc)["warnings"] == []
    assert survey(proc, close_undeclared=True)["problems"] == []


def test_later_runs_warn_of_tcp_alone(proc: Proc) -> None:
    rules(proc.base, planned="a", kept="a")
    proc.process(11, "docker-proxy", proc.socket("tcp", "00000000", 5432))
    proc.socket("udp", "00000000", 51820, state="07")
    found = survey(proc)
    assert found["problems"] == []
    (warning,) = found["warnings"]
    assert "shuts ports that nobody declared: 5432/tcp (docker-proxy): declare" in warning


def test_a_socket_of_udp_that_is_gone_a_moment_later_was_a_question(
    proc: Proc, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.socket("udp", "00000000", 40001, state="07")
    monkeypatch.setattr(time, "sleep", lambda _: (proc.base / "proc/net/udp").unlink())
    assert survey(proc)["problems"] == []


@pytest.mark.parametrize(
    ("conf", "program", "is_on"),
    [
        ("ENABLED=yes\n", True, True),
        ('# x\nENABLED="yes"\n', True, True),
        ("ENABLED=no\n", True, False),
        ("#ENABLED=yes\nENABLED=no\n", True, False),
        ("ENABLED=yes\n", False, False),  # removed, and its configuration left
    ],
)
def test_ufw_beside_it_is_refused(proc: Proc, conf: str, program: bool, is_on: bool) -> None:
    (proc.base / "etc/ufw").mkdir(parents=True)
    (proc.base / "etc/ufw/ufw.conf").write_text(conf, encoding="utf-8")
    if program:
        (proc.base / "usr/sbin").mkdir(parents=True)
        (proc.base / "usr/sbin/ufw").touch()
    assert ["ufw disable" in problem for problem in survey(proc)["problems"]] == [True] * is_on


def test_firewalld_beside_it_is_refused(proc: Proc) -> None:
    proc.process(11, "firewalld")
    (problem,) = survey(proc)["problems"]
    assert "systemctl disable --now firewalld" in problem


def test_a_bridge_that_leads_outwards_is_no_bridge_of_containers(proc: Proc) -> None:
    def route(name: str) -> list[str]:
        text = (
            f"{ROUTES}{name} 00000000 010200C0 0003 0 0 100 00000000 0 0 0\nbr-12 000012AC 0 1 0 0 0 0000FFFF 0 0 0\n"
        )
        (proc.base / "proc/net/route").write_text(text, encoding="ascii")
        problems: list[str] = survey(proc)["problems"]
        return problems

    assert route("eth0") == []
    assert "the default route goes over br-lan" in route("br-lan")[0]


def test_a_default_route_of_ipv6_counts_too(proc: Proc) -> None:
    zero = "0" * 32
    line = f"{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00000003   br-lan\n"
    (proc.base / "proc/net/ipv6_route").write_text(line, encoding="ascii")
    assert "br-lan" in survey(proc)["problems"][0]


@pytest.mark.parametrize(
    ("planned", "kept", "loaded", "pending"),
    [
        ("a", "a", [22], False),
        ("a", "a", None, True),  # somebody flushed it
        ("b", "a", [22], True),  # a run broke off, or its rules cut SSH
        ("a", None, None, True),
    ],
)
def test_rules_are_pending_until_they_are_loaded_and_kept(
    proc: Proc, programs: Programs, planned: str, kept: str | None, loaded: list[int] | None, pending: bool
) -> None:
    rules(proc.base, planned, kept)
    programs(nft=loaded)
    assert firewall.is_pending(proc.base) is pending


def test_ssh_is_where_it_listens_and_where_it_will_listen(proc: Proc, programs: Programs) -> None:
    programs(sshd="port 22\nlistenaddress [::]:2222\nlistenaddress 0.0.0.0:2222\n")
    assert firewall.ssh_ports(proc.base, 10) == [22, 2222]


def test_the_port_of_the_connection_counts_although_nobody_seems_to_listen(proc: Proc) -> None:
    proc.process(12, "sh", environ=b"SSH_CONNECTION=198.51.100.7 50000 192.0.2.10 2300\0")
    assert firewall.ssh_ports(proc.base, 12) == [22, 2300]


def test_where_no_ssh_is_found_the_inventorys_port_counts(tmp_path: Path, programs: Programs) -> None:  # noqa: ARG001
    assert firewall.survey(tmp_path, 1, WANTED | {"ssh_port": 2022})["ssh_ports"] == [2022]


def test_loaded_ports_are_read_from_nft(programs: Programs) -> None:
    programs(nft=[2222, 22])
    assert firewall.loaded_ssh_ports() == [22, 2222]
    programs()
    assert firewall.loaded_ssh_ports() is None


def test_the_role_prints_where_the_module_looks() -> None:
    tasks = (ROOT / "roles/firewall/tasks/configure.yml").read_text(encoding="utf-8")
    assert f"path: /{firewall.PLANNED}\n" in tasks
    assert f"kept: /{firewall.KEPT}}}" in tasks
