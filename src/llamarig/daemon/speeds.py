"""How fast each engine served this host's services, in full layout: kept across switches and upgrades."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from llamarig.daemon.generation import DIRECTORY
from llamarig.daemon.state import replace_file

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Figure:
    """What one engine reached with one service.

    Attributes:
        tokens_per_second: of 64 generated tokens, the best of several times.
        time: when that was, in seconds since 1970.
        spec_sha256: of the spec that it served.

    """

    tokens_per_second: float
    time: int
    spec_sha256: str


class SpeedStore:
    """``/var/lib/llamarig/engine/speed.json``: figures by image and service."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.path = root / DIRECTORY.lstrip("/") / "speed.json"

    def read(self) -> dict[str, dict[str, Figure]]:
        """Return all figures; none where nothing was measured."""
        try:
            data: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            return {
                str(image): {str(service): Figure(**figure) for service, figure in services.items()}
                for image, services in data["images"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def keep(self, image: str, service: str, figure: Figure) -> None:
        """Remember the last figure of an engine with a service."""
        known = self.read()
        self._write({**known, image: {**known.get(image, {}), service: figure}})

    def forget(self, images: Collection[str]) -> None:
        """Forget engines that are no more on this host."""
        known = self.read()
        kept = {image: figures for image, figures in known.items() if image not in images}
        if kept != known:
            self._write(kept)

    def _write(self, known: dict[str, dict[str, Figure]]) -> None:
        images = {
            image: {service: asdict(figure) for service, figure in services.items()}
            for image, services in known.items()
        }
        content = {"schema_version": SCHEMA_VERSION, "images": images}
        replace_file(self.path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
