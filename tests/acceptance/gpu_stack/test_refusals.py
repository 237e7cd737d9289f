"""Boxes that are not as they can be provisioned: refused with what to do, and left as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.acceptance.box import LAB, Box, playbook
from tests.acceptance.gpu_stack.stack import NEW, driver, packages

CHANGES = "stat --format '%Y' /var/lib/dpkg/status /etc/docker/daemon.json"


@pytest.fixture(autouse=True)
def untouched(used: Box) -> Iterator[None]:
    """Whatever is refused, the box is as before."""
    before = packages(used), used.run(CHANGES)
    yield
    assert (packages(used), used.run(CHANGES)) == before


def refused(*arguments: str) -> str:
    done = playbook("site.yml", "--limit", "used", *arguments)
    assert done.returncode != 0, done.stdout
    return done.stdout + done.stderr


def said(**inputs: object) -> list[str]:
    return ["-e", json.dumps(inputs)]


def test_an_archive_that_is_signed_by_a_stranger(half: Box) -> None:
    """The host half, which knows the toolkit's archive from llamarig alone."""
    unsigned = {
        "name": "stranger",
        "uri": "http://127.0.0.1:8999/unsigned",
        "suite": "/",
        "key_url": "http://127.0.0.1:8999/keys/toolkit.asc",
        "key_fingerprint": (LAB / "keys" / "toolkit.fingerprint").read_text(encoding="ascii").strip(),
    }
    before = packages(half)
    wish = said(nvidia_container_toolkit_repository=unsigned, nvidia_container_toolkit_version="1.19.1-1")
    done = playbook("site.yml", "--limit", "half", *wish)
    assert done.returncode != 0
    assert "the package index cannot be refreshed, nothing was installed" in done.stdout
    assert "127.0.0.1:8999/unsigned" in done.stdout
    assert packages(half) == before
    mended = playbook("site.yml", "--limit", "half")
    assert mended.returncode == 0, mended.stdout
    assert half.attempt("ls /etc/apt/sources.list.d/llamarig-stranger.sources").returncode != 0


def test_a_key_with_another_fingerprint(used: Box) -> None:
    repository = {
        "name": "stranger",
        "uri": "http://127.0.0.1:8999/nvidia",
        "suite": "/",
        "key_url": "http://127.0.0.1:8999/keys/nvidia.asc",
        "key_fingerprint": "0" * 40,
    }
    output = refused(
        *said(nvidia_container_toolkit_repository=repository), "--tags", "apt_sources,nvidia_container_toolkit"
    )
    assert "is not the key that was declared" in output
    assert "0" * 40 in output
    assert used.attempt("ls /etc/apt/keyrings/llamarig-stranger-*").returncode != 0


def test_a_toolkit_with_known_holes() -> None:
    output = refused(*said(nvidia_container_toolkit_version="1.17.7-1"))
    assert "1.17.7-1" in output
    assert "CVE-2025-23266" in output


def test_a_driver_by_the_run_file(used: Box) -> None:
    used.run("sudo touch /usr/bin/nvidia-uninstall")
    try:
        output = refused(*said(nvidia_driver_minimum="580.200.00"))
    finally:
        used.run("sudo rm /usr/bin/nvidia-uninstall")
    assert ".run file" in output
    assert "nvidia-uninstall" in output


def test_a_driver_under_the_one_that_runs_where_no_reboot_is_allowed() -> None:
    output = refused(*said(nvidia_driver_minimum="580.200.00", nvidia_driver_reboot=False))
    assert "cannot be changed under the module" in output
    assert "nvidia_driver_reboot=true" in output


def test_a_daemon_json_of_somebody_else(used: Box) -> None:
    mark = "/etc/systemd/system/containerd.service.d/llamarig.conf"
    used.run(f"sudo mv {mark} {mark}.away")
    try:
        output = refused(*said(docker_engine_daemon_options={"log-driver": "json-file"}))
    finally:
        used.run(f"sudo mv {mark}.away {mark}")
    assert "docker_engine_daemon_options: lacks default-ulimits, features" in output


def test_a_declared_card_that_is_not_there() -> None:
    card = {
        "name": "gone",
        "uuid": "GPU-8f8f67f9-ff79-546e-b1ab-b4825d53e0b1",
        "model": "NVIDIA GeForce RTX 5080",
        "memory_mib": 16303,
        "compute_capability": "12.0",
        "pci_address": "0000:09:00.0",
    }
    hardware = {"memory_mib": 2048, "cpu_threads": 2, "gpus": [card]}
    output = refused(*said(host_hardware=hardware))
    assert "gone is declared at 0000:09:00.0" in output
    assert "0000:01:00.0" in output


def test_a_driver_that_is_left_to_its_owner_and_is_not_right() -> None:
    output = refused(*said(nvidia_driver_managed=False, nvidia_driver_minimum="580.200.00"))
    assert "nvidia_driver_managed: is false" in output
    assert NEW in output


def test_a_driver_that_is_left_to_its_owner_and_is_right_is_left(used: Box) -> None:
    done = playbook("site.yml", "--limit", "used", "--check", *said(nvidia_driver_managed=False))
    assert done.returncode == 0, done.stdout
    assert driver(used) == (NEW, NEW, NEW)
