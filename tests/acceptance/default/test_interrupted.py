"""A switch that is cut off at any point: the old or the new service, never neither."""

from __future__ import annotations

import subprocess
import time

import pytest
from tests.acceptance.box import LAB, ROOT, SCENARIO, Box, playbook


def test_ctrl_c_ends_the_wait_and_not_the_switch(alpha: Box) -> None:
    alpha.llamarig("switch", "dense")
    alpha.run("sudo sh -c 'timeout --signal INT 0.6 llamarig switch moe' || true")
    alpha.wait_until("moe serves", lambda: alpha.serves() and alpha.active() == "moe", 60)
    assert alpha.is_healthy()


@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.4])
def test_a_switch_outlives_the_command_that_asked_for_it(alpha: Box, seconds: float) -> None:
    alpha.llamarig("switch", "dense")
    alpha.attempt(f"sudo timeout --signal KILL {seconds} llamarig switch moe")
    alpha.wait_until("one of them serves", alpha.serves, 60)
    active = alpha.active()
    assert active in ("dense", "moe")
    alpha.wait_until(f"nothing but {active} is there", lambda: alpha.only(active), 30)


# The moments differ: old one stopping, new container half-made (it holds its port at the next start), new one loading.
@pytest.mark.parametrize("seconds", [0.6, 0.85, 1.0])
def test_a_power_cut_during_a_switch_ends_with_a_service_that_serves(alpha: Box, seconds: float) -> None:
    alpha.llamarig("switch", "dense")
    ssh = ["ssh", "-F", str(LAB / "ssh_config"), "alpha", "sudo llamarig switch moe"]
    with subprocess.Popen(ssh, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(seconds)
        alpha.power_cycle(grace_seconds=0)
        process.kill()
    alpha.wait_until("a service serves", alpha.serves, 90)
    assert alpha.is_healthy()
    for service in ("moe", "dense"):
        assert alpha.llamarig("switch", service)["exit"] == 0


def test_two_switches_at_once_one_is_told_to_wait(alpha: Box) -> None:
    alpha.llamarig("switch", "dense")
    # With no container that waits a switch takes long enough for two to meet.
    for name in ("moe", "odd"):
        alpha.llamarig("stop", name)
    first = "(sudo llamarig switch moe --json > /tmp/a; echo $? > /tmp/ax) &"
    second = "sudo llamarig switch odd --json > /tmp/b; echo $?"
    codes = alpha.run(f"{first} {second}; wait; cat /tmp/ax").split()
    assert sorted(codes) == ["0", "5"]
    assert alpha.active() == ("odd" if codes[0] == "0" else "moe")


def test_a_converge_killed_half_way_ends_the_same_when_run_again(alpha: Box) -> None:
    alpha.run("sudo rm -r /opt/llamarig /etc/llamarig/services.d /usr/local/lib/llamarig")
    command = ["timeout", "--signal", "KILL", "2.5"]
    subprocess.run(
        [*command, "ansible-playbook", "-i", str(SCENARIO / "inventory"), "playbooks/site.yml", "--limit", "alpha"],
        capture_output=True,
        check=False,
        cwd=ROOT,
    )
    done = playbook("site.yml", "--limit", "alpha")
    assert done.returncode == 0, done.stdout
    assert alpha.is_healthy()
