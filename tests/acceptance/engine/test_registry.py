"""With a registry, the builder pushes and the others pull, by the digest of what was pushed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.acceptance.box import Box
from tests.acceptance.engine.engine import bring, forget_here, images, layers, planned

REGISTRY = ["-e", "llama_image_registry=forge:5000/llamarig"]


@pytest.fixture
def image(node: Box) -> Iterator[str]:
    name = planned(node)
    node.run(f"sudo docker image rm --force {name}")
    forget_here()
    yield name
    done = bring()
    assert done.returncode == 0, done.stdout


def names(box: Box) -> str:
    return box.run("sudo docker image ls --digests --format '{{.Repository}} {{.Digest}}'")


def test_the_image_goes_through_the_registry_and_is_the_same(forge: Box, node: Box, image: str) -> None:
    done = bring(*REGISTRY)
    assert done.returncode == 0, done.stdout
    assert images(node) == [image]
    assert layers(forge, image) == layers(node, image)
    # By no other name: what is pruned under its own must be gone.
    assert "forge:5000" not in names(forge) + names(node)
    assert "pull forge:5000/llamarig/llama-cpp@sha256:" in node.run("sudo cat /var/log/llamarig/engine-build.log")


def test_what_the_registry_lost_is_pushed_again_by_the_next_run(forge: Box, node: Box, image: str) -> None:
    assert bring(*REGISTRY).returncode == 0
    node.run(f"sudo docker image rm --force {image}")
    forge.run("sudo systemctl stop docker-registry && sudo rm -r /var/lib/docker-registry/docker")
    forge.run("sudo systemctl start docker-registry")
    lost = bring(*REGISTRY)
    assert lost.returncode != 0
    assert "not found" in lost.stdout + lost.stderr
    again = bring(*REGISTRY)
    assert again.returncode == 0, again.stdout
    assert images(node) == [image]
