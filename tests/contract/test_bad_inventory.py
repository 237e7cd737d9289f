"""A wrong inventory ends before any host is touched, with everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.tree import ROOT, ansible

# Addresses for documentation: nothing answers there, and nothing may ask.
HOSTS = """\
---
gpu_hosts:
  vars: {ansible_connection: ssh, ansible_ssh_common_args: -o ConnectTimeout=1}
  hosts:
    gpu01: {ansible_host: 192.0.2.1}
    gpu02: {ansible_host: 192.0.2.2}
"""
GPU01 = """\
---
host_hardware: {memory_mib: 4096, cpu_threads: 2}
llm_services:
  - {name: chat, profile: nowhere, strategy: cpu, port: 8080}
  - {name: code, profile: tiny-dense, strategy: cpu, port: 8080, bind: 0.0.0.0, server: {ctx_siez: 4096}}
"""
GPU02 = """\
---
host_hardware: {memory_mib: 4096}
llm_services:
  - {name: Chat, profile: tiny-dense, strategy: cpu, port: 80, prot: 1}
"""
GOOD = """\
---
host_hardware: {memory_mib: 4096, cpu_threads: 2}
llm_services: []
"""
# Host, service and key as they stand in the output, and a word of the remedy.
PROBLEMS = (
    ("gpu01, service 'chat': profile: there is no profile 'nowhere'", "group_vars/all/models/"),
    ("gpu01, service 'code': bind: services 'chat' and 'code' share port 8080", "a port of its own"),
    ("gpu01, service 'code': bind: 0.0.0.0 is reachable from the network", "set api_key"),
    ("gpu01, service 'code': server.ctx_siez: llama-server has no option --ctx-siez", "ctx_size"),
    ("gpu02: host_hardware.cpu_threads: is missing", "add cpu_threads"),
    ("gpu02, service 'Chat': llm_services[0].name: 'Chat' is not a valid name", "correct name"),
    ("gpu02, service 'Chat': llm_services[0].port: Input should be greater than or equal to 1024", "correct port"),
    ("gpu02, service 'Chat': llm_services[0].prot: is no key that llamarig knows", "did you mean port?"),
)


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    (tmp_path / "hosts.yml").write_text(HOSTS)
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/gpu01.yml").write_text(GPU01)
    (tmp_path / "host_vars/gpu02.yml").write_text(GPU02)
    return tmp_path


def refused(inventory: Path, *arguments: str) -> str:
    """Run the site playbook, which must fail in words and without a connection; returns all it said."""
    done = ansible("ansible-playbook", "playbooks/site.yml", "-i", str(inventory), *arguments)
    said = done.stdout + done.stderr
    assert done.returncode not in (0, 4), said
    assert "Traceback" not in said
    assert "UNREACHABLE" not in said
    assert "Make every host what its plan says" not in said, "the second play must not begin"
    return said


def assert_said(said: str, problem: str, remedy: str) -> None:
    lines = said.splitlines()
    here = [number for number, line in enumerate(lines) if problem in line]
    assert here, f"{problem}\n--- not in ---\n{said}"
    following = lines[here[0] + 1]
    assert following.strip().startswith("remedy:"), following
    assert remedy in following


def test_every_problem_of_every_host_is_said_at_once(inventory: Path) -> None:
    (inventory / "group_vars").symlink_to(ROOT / "group_vars")
    said = refused(inventory)
    for problem, remedy in PROBLEMS:
        assert_said(said, problem, remedy)


@pytest.mark.parametrize(
    "arguments", [("--check",), ("--tags", "llama_service"), ("--tags", "switch", "-e", "service=x")]
)
def test_no_tag_and_no_mode_gets_around_the_plan(inventory: Path, arguments: tuple[str, ...]) -> None:
    (inventory / "group_vars").symlink_to(ROOT / "group_vars")
    assert_said(refused(inventory, *arguments), *PROBLEMS[0])


def test_an_inventory_without_the_fleet_layer_is_told_so(inventory: Path) -> None:
    said = refused(inventory)
    for host in ("gpu01", "gpu02"):
        assert_said(said, f"{host}: group_vars: the fleet layer is not loaded", "ln -s ../../group_vars")


def test_one_wrong_host_keeps_the_run_from_all_hosts(inventory: Path) -> None:
    (inventory / "group_vars").symlink_to(ROOT / "group_vars")
    (inventory / "host_vars/gpu01.yml").write_text(GOOD)
    assert_said(refused(inventory), *PROBLEMS[-1])
