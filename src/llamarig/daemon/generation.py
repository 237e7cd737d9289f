"""What a host last served with, as one whole: every file that its services are made of, and the engine's image.

``current.json`` is the generation that was last seen to serve, ``before.json`` the one with the engine before it. Both
are written when what serves has been proven, never before. API keys are no part of a generation: they are secrets, and
no engine's.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from llamarig.config import paths
from llamarig.daemon.state import replace_file

SCHEMA_VERSION: Final = 1
DIRECTORY: Final = f"{paths.STATE}/engine"
# The first words of everything that the role writes; a foreign llama-something.service has them not.
MARK: Final = "# Written by llamarig"
_CURRENT: Final = "current.json"
_BEFORE: Final = "before.json"
_PENDING: Final = "rollback.json"


@dataclass(frozen=True, slots=True)
class OwnFile:
    """One file: its permission bits and its text."""

    mode: int
    text: str


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole set of files.

    Attributes:
        image: the engine that all its services run.
        time: when it was last seen to serve, in seconds since 1970.
        active: the service that served then.
        files: by their path on the host.

    """

    image: str
    time: int
    active: str
    files: Mapping[str, OwnFile]

    @property
    def services(self) -> list[str]:
        """Return the services that it has, by name."""
        return sorted(Path(path).stem for path in self.files if path.startswith(f"{paths.SPECS}/"))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        files = {path: asdict(file) for path, file in sorted(self.files.items())}
        return {
            "schema_version": SCHEMA_VERSION,
            "image": self.image,
            "time": self.time,
            "active": self.active,
            "files": files,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Generation:
        """Build it from its JSON.

        Raises:
            ValueError: it is another schema's, or incomplete.

        """
        try:
            if data["schema_version"] != SCHEMA_VERSION:
                msg = f"generation schema {data['schema_version']!r}, this agent reads {SCHEMA_VERSION}"
                raise ValueError(msg)
            files = {str(path): OwnFile(int(file["mode"]), str(file["text"])) for path, file in data["files"].items()}
            return cls(str(data["image"]), int(data["time"]), str(data["active"]), files)
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"incomplete generation: {error}"
            raise ValueError(msg) from error


@dataclass(frozen=True, slots=True)
class Pending:
    """A way back that was begun: where it leads, and what was there before it."""

    target: Generation
    was: Mapping[str, OwnFile]


class GenerationStore:
    """Generations below ``/var/lib/llamarig/engine``, and the files that they are made of."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.directory = root / DIRECTORY.lstrip("/")

    def current(self) -> Generation | None:
        """Return what was last seen to serve; None on a host where nothing was."""
        return self._read(_CURRENT)

    def before(self) -> Generation | None:
        """Return what served with the engine before; None where there was none."""
        return self._read(_BEFORE)

    def pending(self) -> Pending | None:
        """Return the way back that was begun and did not come to its end; None where there is none."""
        try:
            data = json.loads((self.directory / _PENDING).read_text(encoding="utf-8"))
            was = {str(path): OwnFile(int(file["mode"]), str(file["text"])) for path, file in data["was"].items()}
            return Pending(Generation.from_dict(data["target"]), was)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def begin(self, target: Generation, was: Mapping[str, OwnFile]) -> None:
        """Remember where a way back leads, on disk before the first file is touched."""
        files = {path: asdict(file) for path, file in was.items()}
        replace_file(self.directory / _PENDING, json.dumps({"target": target.to_dict(), "was": files}).encode())

    def end(self) -> None:
        """Forget a way back."""
        (self.directory / _PENDING).unlink(missing_ok=True)

    def keep(self, active: str, now: float) -> None:
        """Remember what serves now as the current generation; where its engine is another, that was the one before.

        Files of more than one engine are no generation: a way back is not over yet, and nothing is written.
        """
        files = self.files()
        images = self.images(files)
        if len(images) != 1:
            return
        found = Generation(next(iter(images)), round(now), active, files)
        current = self.current()
        if current is not None and current.image != found.image:
            self._write(_BEFORE, current)
        if current is None or (current.image, current.active, current.files) != (found.image, active, files):
            self._write(_CURRENT, found)
        self.end()

    def files(self) -> dict[str, OwnFile]:
        """Return every file of llamarig's own that services are made of, as it is on disk now, by its path."""
        places = [
            self._place(paths.HOST_FILE),
            *self._place(paths.SPECS).glob("*.json"),
            *self._place(paths.COMPOSE).glob("*/compose.yaml"),
            *(path for path in self._place(paths.UNITS).glob("llama-*") if path.suffix in {".service", ".slice"}),
        ]
        found = {}
        for path in sorted(places):
            if path.is_symlink() or not path.is_file():
                continue
            text = path.read_bytes().decode(errors="surrogateescape")
            if path.parent != self._place(paths.UNITS) or MARK in text:
                found[f"/{path.relative_to(self.root)}"] = OwnFile(stat.S_IMODE(path.stat().st_mode), text)
        return found

    def put(self, files: Mapping[str, OwnFile]) -> list[str]:
        """Write files that are not on disk as they should be, each whole or not at all; returns which were written.

        A spec comes after what it speaks of, so that wherever this breaks off, a service that started with other files
        than its spec names is seen to be another.
        """
        present = self.files()
        changed = [path for path in sorted(files, key=_order) if present.get(path) != files[path]]
        for path in changed:
            place = self._place(path)
            replace_file(place, files[path].text.encode(errors="surrogateescape"))
            place.chmod(files[path].mode)
        return changed

    def remove(self, path: str) -> None:
        """Remove one file, and the directory of a compose project with it; one that is gone is no trouble."""
        place = self._place(path)
        place.unlink(missing_ok=True)
        if path.startswith(f"{paths.COMPOSE}/") and place.parent.is_dir() and not any(place.parent.iterdir()):
            place.parent.rmdir()

    @staticmethod
    def images(files: Mapping[str, OwnFile]) -> set[str]:
        """Return the engines that the specs among files name."""
        found = set()
        for path, file in files.items():
            if path.startswith(f"{paths.SPECS}/"):
                try:
                    found.add(str(json.loads(file.text)["image"]))
                except (ValueError, KeyError, TypeError):
                    found.add("")  # a torn spec is of no engine that is known
        return found

    def _place(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _read(self, name: str) -> Generation | None:
        try:
            return Generation.from_dict(json.loads((self.directory / name).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def _write(self, name: str, generation: Generation) -> None:
        replace_file(self.directory / name, (json.dumps(generation.to_dict(), indent=1) + "\n").encode())


def _order(path: str) -> tuple[int, str]:
    """Units and slices first, then compose projects, then specs, the host's own file last."""
    prefixes = (f"{paths.UNITS}/", f"{paths.COMPOSE}/", f"{paths.SPECS}/")
    return next((n for n, prefix in enumerate(prefixes) if path.startswith(prefix)), len(prefixes)), path
