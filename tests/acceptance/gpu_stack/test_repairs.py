"""States that people bring a box into, and the run that mends it."""

from __future__ import annotations

import json

from tests.acceptance.box import Box, playbook
from tests.acceptance.gpu_stack.stack import NEW, OLD, boots, checks, driver, held, packages

QUIET = "sudo DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --allow-change-held-packages --allow-downgrades"
REPLACE = ["-e", json.dumps({"nvidia_driver_replace": True})]


def converge(*arguments: str) -> str:
    done = playbook("site.yml", "--limit", "half", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_half_of_an_upgrade_on_disk_is_completed(half: Box) -> None:
    """A user space that dpkg was forced to take, beside the module of another version."""
    pool = "/srv/lab-archive/ubuntu/pool"
    half.run(f"cd {pool} && sudo dpkg --install --force-depends libnvidia-compute-580-server_{OLD}*")
    assert driver(half) == (NEW, NEW, OLD)
    assert "failed to initialize nvml" in half.run("nvidia-smi", check=False).lower()
    assert "user space" in checks(half)["driver"]["message"]
    converge()
    assert driver(half) == (NEW, NEW, NEW)
    assert half.run("sudo dpkg --audit") == ""


def test_a_dpkg_that_was_interrupted_is_completed(half: Box) -> None:
    half.run("sudo dpkg --unpack /srv/lab-archive/toolkit/libnvidia-container1_1.20.0-1_*.deb")
    assert "libnvidia-container1" in half.run("sudo dpkg --audit")
    converge()
    assert half.run("sudo dpkg --audit") == ""


def test_a_hold_that_was_taken_away_is_put_back(half: Box) -> None:
    half.run("sudo apt-mark unhold nvidia-utils-580-server linux-image-generic")
    assert checks(half)["packages-held"]["status"] == "warn"
    converge()
    assert {"nvidia-utils-580-server", "linux-image-generic"} <= held(half)


def test_a_stale_cdi_specification_is_made_anew(half: Box) -> None:
    half.run(f"sudo sed -i 's/{NEW}/{OLD}/' /var/run/cdi/nvidia.yaml")
    assert "Make the CDI specification now" in converge()
    assert OLD not in half.run("cat /var/run/cdi/nvidia.yaml")


def test_a_driver_of_another_branch_is_refused_and_explained(half: Box) -> None:
    half.run("sudo apt-mark unhold $(apt-mark showhold)")
    half.run(
        f"{QUIET} linux-modules-nvidia-570-server-open-generic nvidia-headless-no-dkms-570-server-open "
        "nvidia-utils-570-server"
    )
    before_reboot = boots(half)
    half.run("sudo systemctl reboot", check=False)
    half.wait_until("it is back", lambda: boots(half) not in {before_reboot, "", "0"}, 90)
    before = packages(half)
    done = playbook("site.yml", "--limit", "half")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "driver 570 is installed" in said
    assert "nvidia_driver_replace=true" in said
    assert packages(half) == before


def test_it_is_replaced_when_that_is_allowed_with_one_reboot(half: Box) -> None:
    before = boots(half)
    converge(*REPLACE)
    assert driver(half) == (NEW, NEW, NEW)
    assert not [name for name in packages(half) if "-570" in name]
    assert boots(half) != before


def test_a_reboot_that_nobody_allowed_is_asked_for_and_not_made(half: Box) -> None:
    kernel = half.run("uname -r")
    half.run(
        f"{QUIET} nvidia-utils-580-server={OLD}* nvidia-headless-no-dkms-580-server-open={OLD}* "
        f"libnvidia-compute-580-server={OLD}* nvidia-compute-utils-580-server={OLD}* "
        f"nvidia-kernel-common-580-server={OLD}* libnvidia-cfg1-580-server={OLD}* "
        f"linux-modules-nvidia-580-server-open-{kernel}=6.8.0-85.85 "
        "linux-modules-nvidia-580-server-open-generic=6.8.0-85.85"
    )
    before = boots(half)
    done = playbook("site.yml", "--limit", "half", "-e", json.dumps({"nvidia_driver_reboot": False}))
    assert done.returncode != 0
    assert f"the module {NEW} is loaded, {OLD} is installed" in done.stdout
    assert "nvidia_driver_reboot=true" in done.stdout
    assert boots(half) == before
    converge()
    assert boots(half) != before
    assert driver(half) == (OLD, OLD, OLD), "within the branch and not below the minimum: left alone"
