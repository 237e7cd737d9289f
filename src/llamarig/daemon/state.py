"""What the daemon remembers: what should be serving, a switch under way, the history. Survives a power cut."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from llamarig.config import paths
from llamarig.errors import BusyError

_SCHEMA: Final = 2
# More than any file of the daemon's has.
_LARGEST: Final = 16 << 20
# What is kept of a history, some thousand events, and how long it may be before it is shortened to that.
KEPT_BYTES: Final = 2 << 20
_LONGEST_BYTES: Final = KEPT_BYTES + (KEPT_BYTES >> 2)
_ATTEMPTS: Final = 3
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """A service that should be serving: the hash of the spec that it was proven with, and since when it does."""

    service: str
    version: str
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Switching:
    """A switch under way: the service that comes, with which spec, those that leave for it, and when it began."""

    target: str
    version: str
    leaving: tuple[str, ...] = ()
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class GivenUp:
    """When a service was given up, and why."""

    time: float
    reason: str


@dataclass(frozen=True, slots=True)
class State:
    """What the daemon must not forget.

    Attributes:
        active: the services that should be serving, the one that was asked for last in front.
        switching: the switch under way, if any.
        stopped: whether somebody stopped the last service on purpose, so that none starts by itself.
        given_up: services that did not come to serve again and again.

    """

    active: tuple[Serving, ...] = ()
    switching: Switching | None = None
    stopped: bool = False
    given_up: Mapping[str, GivenUp] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the active services."""
        return tuple(serving.service for serving in self.active)

    @property
    def first(self) -> str | None:
        """The active service that was asked for last."""
        return self.active[0].service if self.active else None

    def serving(self, service: str) -> Serving | None:
        """Return what is known of an active service."""
        return next((serving for serving in self.active if serving.service == service), None)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> State:
        """Build it from its JSON.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is no such JSON.

        """
        switching = data["switching"]
        return cls(
            tuple(Serving(str(s["service"]), str(s["version"]), float(s["since"])) for s in data["active"]),
            Switching(**{**switching, "leaving": tuple(switching["leaving"])}) if switching else None,
            bool(data["stopped"]),
            {str(name): GivenUp(**what) for name, what in data["given_up"].items()},
        )


class StateStore:
    """State and history of the daemon; what root remembers lies beside them."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.directory = root / paths.DAEMON_STATE.lstrip("/")
        self._recording = threading.Lock()

    def read(self) -> State:
        """Return the state; a host that never served has an empty one.

        Raises:
            OSError: it is there and cannot be read, which is not the same as having none.

        """
        try:
            return State.from_dict(json.loads(read_file(self.directory / "state.json")))
        except (FileNotFoundError, KeyError, TypeError, ValueError, AttributeError):
            return State()

    def write(self, state: State) -> None:
        """Replace the state atomically, on disk before this returns."""
        content = {"schema_version": _SCHEMA, **asdict(state)}
        replace_file(self.directory / "state.json", json.dumps(content).encode())

    def record(self, event: dict[str, Any]) -> None:
        """Append one event to the history, on disk before this returns; of a long one the last part is kept.

        Root may append too: the file stays the daemon's, who alone shortens it.

        Raises:
            OSError: it cannot be written.

        """
        with self._recording:
            self._append(json.dumps(event).encode() + b"\n")
            if os.geteuid() == self.directory.stat().st_uid:
                try:
                    self._shorten()
                except OSError as error:  # the event is written; the next one tries again
                    _log.warning("the history could not be shortened: %s", error)

    def history(self, most: int | None = None) -> list[dict[str, Any]]:
        """Return all events, or the last ones, oldest first; a line that is none, as a torn one, is left out."""
        events: list[dict[str, Any]] = []
        try:
            with _plain(self._history) as stream:
                lines = _last_lines(stream, _LARGEST)
        except OSError:
            return []
        for line in reversed(lines):
            if most is not None and len(events) >= most:
                break
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict):
                events.append(event)
        return events[::-1]

    @property
    def _history(self) -> Path:
        return self.directory / "history.jsonl"

    def _append(self, lines: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        for _ in range(_ATTEMPTS):
            with os.fdopen(os.open(self._history, flags, 0o644), "ab+") as stream:
                found = os.fstat(stream.fileno())
                if os.geteuid() == 0:
                    owner = self.directory.stat()
                    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                        raise OSError(errno.EPERM, "it is no file of the daemon's alone", "history.jsonl")
                    os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
                # A line that a power cut tore must not take this one with it.
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
                torn = stream.read(1) not in {b"", b"\n"}
                stream.write((b"\n" if torn else b"") + lines)
                stream.flush()
                os.fsync(stream.fileno())
            # Where the daemon has shortened it meanwhile, this was written to what is gone; better twice than never.
            with suppress(FileNotFoundError):
                if self._history.stat().st_ino == found.st_ino:
                    return

    def _shorten(self) -> None:
        """Keep the last part of a history that has become too long; who reads it sees all that was there, or that."""
        with _plain(self._history) as stream:
            if os.fstat(stream.fileno()).st_size <= _LONGEST_BYTES:
                return
            kept = _last_lines(stream, KEPT_BYTES)
            if not kept:
                return
            replace_file(self._history, b"".join(kept))
            # What root appended after that was read.
            late = stream.read()
        if late:
            self._append(late)

    def tuned(self) -> dict[str, Any]:
        """Return what :meth:`keep_tuned` was given last, empty where there is nothing."""
        try:
            content: dict[str, Any] = json.loads(self._tuning.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return content

    def keep_tuned(self, content: Mapping[str, Any]) -> None:
        """Remember the settings that GPUs were given, which no card can be asked for."""
        replace_file(self._tuning, json.dumps(content).encode())

    @property
    def _tuning(self) -> Path:
        return self.root / paths.STATE.lstrip("/") / "tuning.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the host: one switch at a time.

        Raises:
            BusyError: another switch holds it.

        """
        place = self.root / paths.LOCK.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        # Only root and the daemon may open it: a lock that everybody may take is a lock that anybody may keep.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(place, flags, 0o660), "r+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                switching = self.read().switching
                what = f"a switch to {switching.target!r} is under way" if switching else "another command is at work"
                raise BusyError(what, "wait for it: llamarig status") from error
            yield


def read_file(path: Path) -> str:
    """Return a file of the daemon's, of which root trusts nothing: no link, no pipe, and no end of it.

    Raises:
        OSError: it is not there, or no plain file.

    """
    with _plain(path) as stream:
        return stream.read(_LARGEST).decode("utf-8", "replace")


@contextmanager
def _plain(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to read that is no link and no pipe.

    Raises:
        OSError: it is not there, or no plain file.

    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EPERM, "it is no plain file", str(path))
        yield stream


def _last_lines(stream: IO[bytes], most: int) -> list[bytes]:
    """Return the whole lines among the last bytes of a file, which is read to its end."""
    start = max(0, stream.seek(0, os.SEEK_END) - most - 1)
    stream.seek(start)
    lines = stream.read(most + 1).splitlines(keepends=True)
    return lines[1:] if start else lines


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file atomically, on disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    # Whatever lies there was not made by this: a link would lead what is written elsewhere.
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o644), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        # A full disk is not to be kept full by half a file.
        with suppress(OSError):
            temporary.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
