"""Engine images on their way from a builder to others: what the control node keeps in ``.cache/images``."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from llamarig.errors import LlamarigError

_MIB: Final = 2**20
_REPOSITORY: Final = "llamarig/llama-cpp"
# This engine and the one before, of two kinds.
_KEPT: Final = 4


class ShelfError(LlamarigError):
    """An image cannot be handed on."""


@dataclass(frozen=True, slots=True)
class Handed:
    """An image as its builder handed it over.

    ``fingerprint`` tells what is in it (module engine_image); either ``pushed`` is its name by digest in a registry, or
    ``sha256`` and ``bytes`` are those of its archive.
    """

    image: str
    fingerprint: str
    pushed: str = ""
    sha256: str = ""
    bytes: int = 0


class Shelf:
    """The archives of a checkout, one for each image, and what is known of them."""

    def __init__(self, root: Path) -> None:
        self.directory = root / ".cache" / "images"

    def archive(self, image: str) -> Path:
        """Return where the archive of an image is, or would be."""
        return self.directory / f"{key(image)}.tar.zst"

    def part(self, image: str) -> Path:
        """Return where the archive of an image comes in."""
        return self.directory / f"{key(image)}.tar.zst.part"

    def ready(self, image: str, registry: str) -> Handed | None:
        """Return what can be handed on without the builder; an archive that is not what it was is removed."""
        try:
            handed = Handed(**json.loads(self._note(image).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        if registry:
            return handed if handed.pushed.startswith(f"{registry.rstrip('/')}/") else None
        archive = self.archive(image)
        if not handed.sha256 or not archive.exists():
            return None
        if _sha256(archive) != handed.sha256:
            archive.unlink()
            return None
        return handed

    def make_room(self, handed: Handed) -> None:
        """See that the archive of an image fits on this machine.

        Raises:
            ShelfError: it does not; both figures are said.

        """
        self.directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.directory).free
        if free < handed.bytes:
            msg = f"{self.directory} of the control node has {free // _MIB} MiB free, the archive of {handed.image} has"
            raise ShelfError(
                f"{msg} {handed.bytes // _MIB}", "free some, or hand over by a registry: llama_image_registry"
            )

    def receive(self, handed: Handed) -> None:
        """Take in the archive that came as ``part``, if it is the builder's.

        Raises:
            ShelfError: it is not; it was removed.

        """
        part = self.part(handed.image)
        digest = _sha256(part)
        if digest != handed.sha256:
            part.unlink()
            msg = f"the archive of {handed.image} has sha256 {digest}, its builder's checksum is {handed.sha256}"
            raise ShelfError(f"{msg}: it was removed, and nothing was loaded")
        part.replace(self.archive(handed.image))
        self.note(handed)
        self._clear()

    def note(self, handed: Handed) -> None:
        """Keep what is known of an image."""
        path = self._note(handed.image)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(handed), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)

    def forget(self, image: str) -> None:
        """Forget what is known of an image, so that its builder is asked again."""
        self._note(image).unlink(missing_ok=True)

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold a lock of this name; runs for several hosts are processes of their own."""
        with self._lock(name).open("w", encoding="ascii") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def first(self, name: str) -> Iterator[bool]:
        """Tell whether nobody else holds the lock of this name, and hold it then."""
        with self._lock(name).open("w", encoding="ascii") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _note(self, image: str) -> Path:
        return self.directory / f"{key(image)}.json"

    def _lock(self, name: str) -> Path:
        place = self.directory / "locks"
        place.mkdir(parents=True, exist_ok=True)
        return place / name

    def _clear(self) -> None:
        """Drop the archives that were taken in longest ago; their builders have them."""
        archives = sorted(self.directory.glob("*.tar.zst"), key=lambda path: path.stat().st_mtime, reverse=True)
        for archive in archives[_KEPT:]:
            archive.unlink()


def key(image: str) -> str:
    """Return what files of an image are named by: its tag, with the repository where that is not the usual one.

    >>> key("llamarig/llama-cpp:v0.7.0-cpu-0123456789ab")
    'v0.7.0-cpu-0123456789ab'
    >>> key("fleet/llama-cpp:v0.7.0-cpu-0123456789ab")
    'fleet_llama-cpp_v0.7.0-cpu-0123456789ab'
    """
    repository, _, tag = image.rpartition(":")
    return tag if repository == _REPOSITORY else f"{repository}_{tag}".replace("/", "_").replace(":", "_")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
