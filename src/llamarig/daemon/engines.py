"""The engines of a host: which images there are, what each is for, and which of them nobody needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llamarig.config import paths
from llamarig.daemon.generation import GenerationStore
from llamarig.runtime.images import Docker, Image

# Written by the role on a builder: which images it keeps for which hosts.
SERVED: Final = "/var/cache/llamarig/images/served.json"
# Of a build that is not over.
_UNTESTED: Final = "-untested"


@dataclass(frozen=True, slots=True)
class Engine:
    """An image, and what it is for.

    Attributes:
        image: as Docker has it.
        planned: whether the host's files name it.
        current, before: whether it is that of the generation of this name.
        served: hosts that a builder keeps it for.
        containers: those that are made of it.

    """

    image: Image
    planned: bool
    current: bool
    before: bool
    served: tuple[str, ...]
    containers: tuple[str, ...]

    @property
    def needed(self) -> bool:
        """Whether it must stay."""
        building = self.image.name.endswith(_UNTESTED)
        return bool(self.planned or self.current or self.before or self.served or self.containers or building)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        labels = self.image.labels
        return {
            "image": self.image.name,
            "id": self.image.id,
            "bytes": self.image.bytes,
            "recipe": labels.get("llamarig.engine"),
            "ref": labels.get("llamarig.ref"),
            "commit": labels.get("org.opencontainers.image.revision"),
            "backend": labels.get("llamarig.backend"),
            "planned": self.planned,
            "current": self.current,
            "before": self.before,
            "served": list(self.served),
            "containers": list(self.containers),
        }


@dataclass(frozen=True, slots=True)
class Engines:
    """What a host's files say of its engines.

    Attributes:
        planned: the image that they name; None on a host that has no plan yet.
        engine: what host.json says of it; None on a host that runs no service.
        current, before: images of the generations.
        images: what is there.

    """

    planned: str | None
    engine: Mapping[str, Any] | None
    current: str | None
    before: str | None
    images: tuple[Engine, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "planned": self.planned,
            "engine": dict(self.engine) if self.engine is not None else None,
            "current": self.current,
            "before": self.before,
            "images": [engine.to_dict() for engine in self.images],
        }


def read_engines(root: Path, docker: Docker) -> Engines:
    """Look at a host's engines.

    Raises:
        DockerError: Docker does not say.

    """
    store = GenerationStore(root)
    current, before = store.current(), store.before()
    engine = _json(root, paths.HOST_FILE).get("engine")
    engine = engine if isinstance(engine, dict) else None
    specs = sorted(store.images(store.files()) - {""})
    planned = [*([str(engine["image"])] if engine and engine.get("image") else []), *specs]
    served = _served(root)
    used = docker.in_use()
    found = [
        Engine(
            image=image,
            planned=image.name in planned,
            current=current is not None and image.name == current.image,
            before=before is not None and image.name == before.image,
            served=tuple(served.get(image.name, ())),
            containers=tuple(used.get(image.id, ())),
        )
        for image in docker.images()
    ]
    return Engines(
        planned[0] if planned else None,
        engine if specs else None,
        current.image if current else None,
        before.image if before else None,
        tuple(found),
    )


def _served(root: Path) -> dict[str, list[str]]:
    """Return the hosts that a builder keeps each image for."""
    found: dict[str, list[str]] = {}
    for host, images in _json(root, SERVED).items():
        for image in images if isinstance(images, list) else ():
            found.setdefault(str(image), []).append(host)
    return found


def _json(root: Path, path: str) -> dict[str, Any]:
    try:
        found = json.loads((root / path.lstrip("/")).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
