"""What each box became: the driver that was wanted, throughout, and a doctor that is content."""

from __future__ import annotations

import json
import re

import pytest
from tests.acceptance.box import Box
from tests.acceptance.gpu_stack.stack import NEW, TOOLKIT, checks, driver, held, packages

EVERY = ("fresh", "used", "half", "kernel")
each_box = pytest.mark.parametrize("name", EVERY)


@each_box
def test_module_and_user_space_are_of_one_version(name: str) -> None:
    assert driver(Box(name)) == (NEW, NEW, NEW)


@each_box
def test_the_doctor_fails_nothing(name: str) -> None:
    failed = {name: check["message"] for name, check in checks(Box(name)).items() if check["status"] == "fail"}
    assert failed == {}


@each_box
def test_the_toolkit_is_at_the_pinned_version_throughout(name: str) -> None:
    installed = packages(Box(name))
    assert {installed[package] for package in TOOLKIT} == {"1.20.0-1"}


@each_box
def test_driver_kernel_toolkit_and_docker_are_held(name: str) -> None:
    box = Box(name)
    moving = {p for p in packages(box) if p.startswith(("nvidia-", "libnvidia-", "linux-modules-nvidia-", "docker"))}
    # Modules of one kernel follow their metapackage, and go with their kernel.
    moving -= {p for p in moving if re.search(r"-\d+\.\d+\.\d+-", p)}
    assert moving | {"linux-generic", "linux-image-generic", "linux-headers-generic"} <= held(box)


@each_box
def test_unattended_upgrades_and_needrestart_leave_them_alone(name: str) -> None:
    box = Box(name)
    blacklist = box.run("apt-config dump Unattended-Upgrade::Package-Blacklist")
    assert all(f'"{pattern}"' in blacklist for pattern in ("nvidia-", "libnvidia-", "linux-modules-nvidia-", "docker"))
    rules = box.run("cat /etc/needrestart/conf.d/llamarig.conf")
    assert box.run(f"perl -e '{rules.splitlines()[-1]} print %{{$nrconf{{override_rc}}}}'").endswith("0")


@each_box
def test_the_cards_are_named_for_containers_and_kept_awake(name: str) -> None:
    box = Box(name)
    cards = box.run("nvidia-smi --query-gpu=uuid,persistence_mode --format=csv,noheader").splitlines()
    named = box.run("nvidia-ctk cdi list")
    for card in cards:
        uuid, persistence = card.split(", ")
        assert f"nvidia.com/gpu={uuid}" in named
        assert persistence == "Enabled"


def test_fresh_a_service_has_its_own_card_by_uuid_and_no_other(fresh: Box) -> None:
    card = "GPU-d1010e2b-9cee-53cc-8f77-ed1bde164f56"
    info = json.loads(fresh.run("sudo docker inspect llama-dense"))[0]
    requests = info["HostConfig"]["DeviceRequests"]
    assert [request["DeviceIDs"] for request in requests] == [[f"nvidia.com/gpu={card}"]]
    assert fresh.run("sudo docker exec llama-dense ls /dev").split().count("nvidia0") == 1
    assert "nvidia1" not in fresh.run("sudo docker exec llama-dense ls /dev").split()
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in info["Config"]["Env"]
    assert fresh.answers(8080)


def test_fresh_nouveau_is_gone(fresh: Box) -> None:
    assert fresh.attempt("test -e /sys/module/nouveau").returncode != 0


def test_fresh_docker_is_docker_coms_and_pinned(fresh: Box) -> None:
    assert packages(fresh)["docker-ce"].startswith("5:26.1.5")
    assert "990" in fresh.run("apt-cache policy docker-ce")


def test_used_keeps_its_docker_and_its_driver(used: Box) -> None:
    installed = packages(used)
    assert "docker-ce" in installed
    assert "docker.io" not in installed
    # The driver was right: nothing of it was installed again.
    log = used.run("grep -c ' upgrade .*nvidia-.*-580' /var/log/dpkg.log", check=False)
    assert log == "0"


def test_kernel_has_the_module_of_the_kernel_that_runs(kernel: Box) -> None:
    release = kernel.run("uname -r")
    assert f"linux-modules-nvidia-580-server-open-{release}" in packages(kernel)
