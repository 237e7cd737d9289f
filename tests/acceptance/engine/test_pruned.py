"""Engines that nobody needs go; planned, running and the one before stay, and a builder keeps what others need."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.box import Box
from tests.acceptance.engine.engine import ARCHIVES, REPOSITORY, bring, images, planned, said


def before(box: Box) -> set[str]:
    """The engine that a host goes back to."""
    text = box.run("sudo cat /var/lib/llamarig/engine/before.json 2>/dev/null || echo '{}'")
    return {json.loads(text).get("image", "")} - {""}


def brought(name: str, image: str) -> str:
    """Bring what the registry has of an engine under another name, as an upgrade would; return the name."""
    engine: dict[str, Any] = {
        "recipe": "prebuilt",
        "image": f"{REPOSITORY}:{name}",
        "backend": "cpu",
        "says": " 0.7.0 ",
    }
    done = bring(*said(llama_image_engine={**engine, "prebuilt": {"image": image}}))
    assert done.returncode == 0, done.stdout
    return f"{REPOSITORY}:{name}"


def test_only_what_is_needed_stays(forge: Box, node: Box) -> None:
    own = planned(node)
    forge.run(f"sudo docker tag {own} forge:5000/prune/engine:1 && sudo docker push --quiet forge:5000/prune/engine:1")
    digests = forge.run("sudo docker image inspect --format '{{json .RepoDigests}}' forge:5000/prune/engine:1")
    (image,) = (name for name in json.loads(digests) if name.startswith("forge:5000/prune/"))
    forge.run("sudo docker image rm forge:5000/prune/engine:1")

    brought_by = [brought(name, image) for name in ("second", "third", "fourth")]
    # The builder serves nothing itself. It keeps what it brought last and the one before, and their archives.
    kept = [f"{REPOSITORY}:fourth", f"{REPOSITORY}:third"]
    assert images(forge) == kept
    archives = forge.run(f"sudo ls {ARCHIVES}").split()
    assert sorted(name for name in archives if name.endswith(".tar.zst")) == ["fourth.tar.zst", "third.tar.zst"]

    assert {*brought_by, own} <= set(images(node))
    node.run("sudo llamarig engine prune")
    assert set(images(node)) == {own} | before(node)
    forge.run("sudo llamarig engine prune")
    assert images(forge) == kept
    assert len(set(node.answers(8080))) > 1
