"""What the tests of the engine's image ask hosts and the control node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.acceptance.box import ROOT, Box, playbook

CACHE = ROOT / ".cache" / "images"
REPOSITORY = "llamarig/llama-cpp"
ARCHIVES = "/var/cache/llamarig/images"


def images(box: Box) -> list[str]:
    """Every engine of a host, by name."""
    listed = box.run("sudo docker image ls --format '{{.Repository}}:{{.Tag}}'").split()
    return sorted(name for name in listed if name.startswith(f"{REPOSITORY}:"))


def layers(box: Box, image: str) -> Any:
    """What is in an image, whatever its host's Docker calls it."""
    return json.loads(box.run(f"sudo docker image inspect {image}"))[0]["RootFS"]["Layers"]


def planned(box: Box) -> str:
    """The engine that a host's services run."""
    image: str = json.loads(box.run("cat /etc/llamarig/services.d/dense.json"))["image"]
    return image


def forget_here() -> None:
    """Let the control node have no image of any engine."""
    for path in CACHE.glob("*.*"):
        path.unlink()


def archive_here(image: str) -> Path:
    return CACHE / f"{image.split(':')[1]}.tar.zst"


def bring(*arguments: str, limit: str = "node") -> subprocess.CompletedProcess[str]:
    """Bring the engine, and nothing else."""
    return playbook("site.yml", "--limit", limit, "--tags", "llama_image", *arguments)


def said(**inputs: object) -> list[str]:
    return ["-e", json.dumps(inputs)]
