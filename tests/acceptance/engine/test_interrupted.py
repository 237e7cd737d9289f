"""A build is one job of its builder: it outlives whoever asked for it, is joined, and can be cut off anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from tests.acceptance.box import ROOT, SCENARIO, Box, environment, playbook
from tests.acceptance.engine.engine import bring, forget_here, images, planned

UNIT = "llamarig-engine-build.service"
INVOCATION = f"systemctl show --property=InvocationID --value {UNIT}"


@pytest.fixture
def image(forge: Box, node: Box) -> Iterator[str]:
    """The planned engine, which nobody has by its name; in the end both have it, and nothing is left of the work."""
    name = planned(node)
    for box in (forge, node):
        box.run(f"sudo docker image rm --force {name} || true")
    forget_here()
    yield name
    done = bring()
    assert done.returncode == 0, done.stdout
    assert images(forge) == images(node) == [name]
    assert forge.run("sudo ls /var/cache/llamarig/engine") == ""


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
        box.wait_until("the build runs", lambda: box.attempt(f"systemctl is-active {UNIT}").returncode == 0, 60)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    return box.run(INVOCATION)


def test_a_killed_run_leaves_its_build_at_work_and_the_next_run_joins_it(forge: Box, image: str) -> None:
    job = cut_off(forge)
    again = start()
    assert forge.run(INVOCATION) == job
    assert again.wait(timeout=300) == 0
    # One log, of one build.
    assert forge.run("sudo grep -c 'docker import' /var/log/llamarig/engine-build.log") == "1"
    assert images(forge) == [image]


def test_a_power_cut_in_a_build_hinders_nothing(forge: Box, image: str) -> None:
    cut_off(forge)
    forge.power_cycle(0)
    assert forge.attempt(f"systemctl is-active {UNIT}").returncode != 0
    assert images(forge) == []
    done = bring()
    assert done.returncode == 0, done.stdout
    assert images(forge) == [image]


def test_a_build_that_fails_says_why_and_leaves_nothing_by_the_name(forge: Box, node: Box, image: str) -> None:
    done = bring("-e", "llama_image_mirror=http://127.0.0.1:9/debian")
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert f"forge: build of {image} failed" in output
    assert "/var/log/llamarig/engine-build.log" in output
    assert "127.0.0.1:9" in output
    assert images(forge) == images(node) == []
    assert len(set(node.answers(8080))) > 1


@pytest.mark.usefixtures("image")
def test_another_version_than_the_pinned_one_is_refused(forge: Box) -> None:
    """The archive of Debian that a mirror has may have moved on."""
    wrong = '{"llama_image_engine": {"recipe": "debian-package", "image": "llamarig/llama-cpp:wrong", "backend": "cpu",'
    wrong += ' "says": " 0.0.1 ", "package": {"suite": "sid", "packages": ["llama.cpp-tools"]}}}'
    done = playbook("site.yml", "--limit", "node", "--tags", "llama_image", "-e", wrong)
    assert done.returncode != 0
    assert "and not '0.0.1'" in done.stdout + done.stderr
    assert "the image was removed" in done.stdout + done.stderr
    assert images(forge) == []
