"""What is not the builder's image, and hosts without room: refused, with nothing loaded."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from tests.acceptance.box import Box
from tests.acceptance.engine.engine import ARCHIVES, archive_here, bring, forget_here, images, planned, said

LOG = "sudo stat -c %Y /var/log/llamarig/engine-build.log"


@pytest.fixture
def image(node: Box) -> Iterator[str]:
    """The planned engine, which the host that runs it has lost by name; in the end it has it."""
    name = planned(node)
    node.run(f"sudo docker image rm --force {name}")
    yield name
    if images(node) != [name]:
        done = bring()
        assert done.returncode == 0, done.stdout
    assert images(node) == [name]


def refused(*arguments: str) -> str:
    done = bring(*arguments)
    assert done.returncode != 0, done.stdout
    return done.stdout + done.stderr


def test_an_archive_that_somebody_changed_on_the_builder(forge: Box, node: Box, image: str) -> None:
    forget_here()
    archive = f"{ARCHIVES}/{archive_here(image).name}"
    forge.run(f"sudo cp {archive} {archive}.kept && echo more | sudo tee -a {archive} >/dev/null")
    try:
        output = refused()
    finally:
        forge.run(f"sudo mv {archive}.kept {archive}")
    checksum = forge.run(f"sudo cat {archive}.sha256").split()[0]
    assert "nothing was loaded" in output
    assert checksum in output
    assert images(node) == []
    assert not archive_here(image).exists()


def test_an_archive_that_was_cut_short_here_is_fetched_anew(image: str) -> None:
    archive = archive_here(image)
    whole = archive.stat().st_size
    os.truncate(archive, whole // 2)
    done = bring()
    assert done.returncode == 0, done.stdout
    assert f"fetching {image}" in done.stdout
    assert archive.stat().st_size == whole


def test_the_builder_need_not_be_up_for_what_it_handed_over_before(forge: Box, node: Box, image: str) -> None:
    stop, go = (["docker", verb, forge.container()] for verb in ("pause", "unpause"))
    subprocess.run(stop, check=True, capture_output=True)
    try:
        done = bring()
    finally:
        subprocess.run(go, check=True, capture_output=True)
    assert done.returncode == 0, done.stdout
    assert images(node) == [image]


def test_a_host_without_room_is_refused_before_anybody_builds_for_it(forge: Box, node: Box, lost: str) -> None:
    log = forge.run(LOG)
    node.run("sudo mkdir -p /var/cache/llamarig && sudo mount -t tmpfs -o size=64m tmpfs /var/cache/llamarig")
    try:
        output = refused()
    finally:
        node.run("sudo umount /var/cache/llamarig")
    assert "node: /var/cache/llamarig has 64 MiB free, the engine's image needs 128" in output
    assert "nothing was fetched or built" in output
    assert "remedy: " in output
    assert images(forge) == images(node) == []
    # The same for the host that would build.
    output = refused(*said(llama_image_room={"debian-package": {"docker": 99_999_999}}))
    assert "forge: /var/lib/docker has " in output
    assert "needs 99999999" in output
    assert forge.run(LOG) == log
    assert lost not in images(forge)


@pytest.mark.usefixtures("image")
def test_a_builder_that_the_inventory_does_not_have() -> None:
    output = refused("-e", "llama_image_builder=forgery")
    assert "there is no host forgery that could build" in output
    assert "remedy: correct llama_image_builder" in output
