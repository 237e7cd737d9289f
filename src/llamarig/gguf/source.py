"""Where the bytes of a header come from: something that is read forwards, in pieces."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import Protocol

from llamarig.gguf.error import GgufError, MissingFileError


class Source(Protocol):
    """Bytes by their offset. Offsets never go back.

    Attributes:
        name: the file, as it was named.
        revision: the commit of the repository it is in, where the place it comes from says so.
        sha256: of the whole file, where the place it comes from says so.

    """

    name: str
    revision: str | None
    sha256: str | None

    @property
    def size(self) -> int | None:
        """How many bytes there are; None while that is not known."""

    def read(self, offset: int, length: int) -> bytes:
        """Return at least 1 and at most ``length`` bytes from ``offset`` on; none where the file ends there."""

    def close(self) -> None:
        """Let go of it."""


Opener = Callable[[str], Source]


class FileSource:
    """A file on this machine."""

    def __init__(self, path: str) -> None:
        """Open it.

        Raises:
            MissingFileError: there is no such file.
            GgufError: it is no regular file, or this user may not read it.

        """
        self.name = path
        self.revision: str | None = None
        self.sha256: str | None = None
        try:
            # A named pipe would keep an ordinary open waiting for its writer.
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise MissingFileError(f"there is no file {path}", "look at the name and the directory") from error
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise GgufError(f"{path} cannot be opened: {why}", "look at its permissions") from error
        info = os.fstat(self._file)
        if not stat.S_ISREG(info.st_mode):
            os.close(self._file)
            what = "a directory" if stat.S_ISDIR(info.st_mode) else "no regular file"
            raise GgufError(f"{path} is {what}", "name a .gguf file")
        self.size: int | None = info.st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return what the file holds there.

        Raises:
            GgufError: the file system refuses.

        """
        try:
            return os.pread(self._file, length, offset)
        except OSError as error:
            why = f"{self.name} cannot be read at byte {offset}: {error.strerror}"
            raise GgufError(why, "look at the disk: dmesg") from error

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            os.close(self._file)
