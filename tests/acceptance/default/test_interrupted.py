"""A switch that is cut off at any point: the old or the new service, never neither."""

from __future__ import annotations

import shlex
import subprocess
import time

import pytest
from tests.acceptance.box import ROOT, SCENARIO, Box, playbook

# On the host: somebody who types Ctrl-C as soon as a switch says anything.
CTRL_C = """
import signal, subprocess
signal.signal(signal.SIGINT, signal.default_int_handler)
switch = subprocess.Popen(['llamarig', 'switch', 'moe'], stderr=subprocess.PIPE, text=True)
print(switch.stderr.readline())
switch.send_signal(signal.SIGINT)
print(switch.stderr.read())
"""


def test_ctrl_c_ends_the_wait_and_not_the_switch(alpha: Box) -> None:
    alpha.llamarig("switch", "dense")
    with alpha.request_under_way():
        said = alpha.run(f"sudo python3 -c {shlex.quote(CTRL_C)}")
        assert "goes on" in said
        assert alpha.active() == "dense"
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
    ssh = alpha.ssh("sudo llamarig switch moe")
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
    with alpha.request_under_way():
        alpha.run("(sudo llamarig switch moe --json > /tmp/first; echo $? >> /tmp/first) > /dev/null 2>&1 &")
        alpha.wait_until("the first is under way", lambda: alpha.llamarig("status")["data"].get("job") is not None)
        assert alpha.llamarig("switch", "odd")["exit"] == 5
    alpha.wait_until("moe serves", lambda: alpha.serves() and alpha.active() == "moe", 60)
    alpha.wait_until("the first has ended well", lambda: alpha.run("tail -n 1 /tmp/first") == "0")


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
