"""A build is one job of its builder: it outlives whoever asked for it, is joined, and can be cut off anywhere."""

from __future__ import annotations

import os
import signal
import subprocess

from tests.acceptance.box import ROOT, SCENARIO, Box, environment
from tests.acceptance.engine.engine import bring, images

UNIT = "llamarig-engine-build.service"
INVOCATION = f"systemctl show --property=InvocationID --value {UNIT}"


def start() -> subprocess.Popen[bytes]:
    command = ["ansible-playbook", "-i", str(SCENARIO / "inventory"), "playbooks/site.yml"]
    command += ["--limit", "node", "--tags", "llama_image"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def cut_off(box: Box) -> str:
    """Begin a build and kill the run of Ansible, with all that it started; return which job it had begun."""
    run = start()
    try:
        box.wait_until("the build runs", lambda: box.attempt(f"systemctl is-active {UNIT}").returncode == 0, 240)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    return box.run(INVOCATION)


def test_a_build_survives_a_power_cut_of_its_host_and_a_kill_of_its_run(forge: Box, lost: str) -> None:
    cut_off(forge)
    forge.power_cycle(0)
    assert forge.attempt(f"systemctl is-active {UNIT}").returncode != 0
    # What the next run begins, the one after it joins.
    job = cut_off(forge)
    again = start()
    assert forge.run(INVOCATION) == job
    assert again.wait(timeout=300) == 0
    assert forge.run("sudo grep -c '^+ docker import' /var/log/llamarig/engine-build.log") == "1"
    assert images(forge) == [lost]
    assert forge.run("sudo ls /var/cache/llamarig/engine") == ""


def test_a_build_that_fails_says_why_and_leaves_nothing_by_the_name(forge: Box, node: Box, lost: str) -> None:
    done = bring("-e", "llama_image_mirror=http://127.0.0.1:9/debian")
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert f"forge: build of {lost} failed" in output
    assert "/var/log/llamarig/engine-build.log" in output
    assert "127.0.0.1:9" in output
    assert images(forge) == images(node) == []
    assert len(set(node.answers(8080))) > 1
