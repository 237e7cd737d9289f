"""With a registry, the builder pushes and the others pull, by the digest of what was pushed."""

from __future__ import annotations

import json
import re

from tests.acceptance.box import Box
from tests.acceptance.engine.engine import bring, images, layers, said

REGISTRY = ["-e", "llama_image_registry=forge:5000/llamarig"]


def names(box: Box) -> str:
    return box.run("sudo docker image ls --digests --format '{{.Repository}} {{.Digest}}'")


def digest(output: str) -> str:
    """The digest that was pulled, as Docker said it."""
    found = re.search(r"^Digest: (sha256:[0-9a-f]{64})$", output, re.MULTILINE)
    assert found, output
    return found[1]


def test_the_image_goes_through_the_registry_and_is_the_same(forge: Box, node: Box, lost: str) -> None:
    forge.run(f"sudo docker tag kept:engine {lost}")
    done = bring(*REGISTRY)
    assert done.returncode == 0, done.stdout
    assert images(node) == [lost]
    assert layers(forge, lost) == layers(node, lost)
    # By no other name: what is pruned under its own must be gone.
    assert "forge:5000" not in names(forge) + names(node)

    # What the registry has lost is pushed again by the next run.
    node.run(f"sudo docker image rm --force {lost}")
    forge.run("sudo systemctl stop docker-registry && sudo rm -r /var/lib/docker-registry/docker")
    forge.run("sudo systemctl start docker-registry")
    failed = bring(*REGISTRY)
    assert failed.returncode != 0
    assert "not found" in failed.stdout + failed.stderr
    again = bring(*REGISTRY)
    assert again.returncode == 0, again.stdout
    assert images(node) == [lost]

    # An image that somebody else built is judged by what it says, and another version than the declared one is refused.
    pushed = "forge:5000/llamarig/llama-cpp@" + digest(node.run("sudo cat /var/log/llamarig/engine-build.log"))
    wrong = {"recipe": "prebuilt", "image": "llamarig/llama-cpp:wrong", "backend": "", "says": " 0.0.1 "}
    refused = bring(*said(llama_image_engine={**wrong, "prebuilt": {"image": pushed}}))
    assert refused.returncode != 0
    output = refused.stdout + refused.stderr
    assert "and not '0.0.1'" in output
    assert "the image was removed" in output
    assert images(forge) == [lost]
    assert json.loads(node.run("cat /etc/llamarig/services.d/dense.json"))["image"] == lost
