"""A run that is cut off at any task and run again ends in the same state as one that was not.

The box takes its driver from NVIDIA's archive, so this is also the proof of the second provider.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.acceptance.box import ROOT, SCENARIO, Box, changes, environment, playbook
from tests.acceptance.gpu_stack.stack import NEW, TOOLKIT, driver, held, packages

WITH_CUT = ["-i", str(Path(__file__).with_name("cut.yml")), "--limit", "cut"]
CUT = Box("cut")


def until(task: str) -> subprocess.Popen[str]:
    """Start a converge, and return once it is at a task."""
    command = ["ansible-playbook", "-i", str(SCENARIO / "inventory"), *WITH_CUT, "playbooks/site.yml"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**environment(), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    said = []
    for line in process.stdout or ():
        said.append(line)
        if line.startswith(f"TASK [{task}"):
            return process
    kill(process)
    pytest.fail(f"the run never came to {task}:\n{''.join(said)}")


def kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with process:
        pass


@pytest.mark.parametrize(
    ("task", "seconds"),
    [
        ("host_base : install", 1.0),
        ("apt_sources : configure", 0.2),
        ("nvidia_driver : install", 0.7),
        ("docker_engine : install", 1.5),
        ("nvidia_container_toolkit : install", 0.6),
        ("agent : ", 0.5),
    ],
)
def test_the_connection_is_cut(task: str, seconds: float) -> None:
    process = until(task)
    time.sleep(seconds)
    # On the box, every session ends at once: what runs there loses its terminal and its parent.
    CUT.outside("pkill", "-KILL", "-u", "rig")
    kill(process)


@pytest.mark.parametrize(
    ("task", "seconds"),
    [("nvidia_driver : ", 0.5), ("docker_engine : configure", 0.3), ("llama_service : configure", 0.3)],
)
def test_the_power_is_cut(task: str, seconds: float) -> None:
    process = until(task)
    time.sleep(seconds)
    CUT.power_cycle(grace_seconds=0)
    kill(process)


def test_the_next_run_ends_as_if_nothing_had_happened() -> None:
    done = playbook("site.yml", *WITH_CUT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert CUT.is_healthy()
    assert CUT.answers(8080)
    assert driver(CUT) == (NEW, NEW, NEW)
    installed = packages(CUT)
    assert {installed[name] for name in TOOLKIT} == {"1.20.0-1"}
    assert "nvidia-dkms-580-open" in installed
    assert {name for name in installed if "nvidia" in name} <= held(CUT)
    assert CUT.run("sudo dpkg --audit") == ""
    running = json.loads(CUT.run("sudo docker inspect llama-dense"))[0]
    assert running["State"]["Running"]


def test_the_run_after_that_changes_nothing() -> None:
    done = playbook("site.yml", *WITH_CUT)
    assert changes(done.stdout) == {"cut": 0}, done.stdout
