"""What a host remembers: the active service, a switch under way, the history. Survives a power cut."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from llamarig.config import paths
from llamarig.errors import BusyError

_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class State:
    """The active service, and the one being switched to while a switch is under way."""

    active: str | None = None
    switching_to: str | None = None


class StateStore:
    """State and history below ``/var/lib/llamarig``."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.directory = root / paths.STATE.lstrip("/")

    def read(self) -> State:
        """Return the state; a host that never served has an empty one."""
        try:
            data = json.loads((self.directory / "state.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return State()
        return State(active=data.get("active"), switching_to=data.get("switching_to"))

    def write(self, state: State) -> None:
        """Replace the state atomically, on disk before this returns."""
        content = {"schema_version": _SCHEMA, **asdict(state)}
        replace_file(self.directory / "state.json", json.dumps(content).encode())

    def record(self, event: dict[str, Any]) -> None:
        """Append one event to the history."""
        with (self.directory / "history.jsonl").open("ab+") as stream:
            # A line that a power cut tore must not take this one with it.
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
            torn = stream.read(1) not in {b"", b"\n"}
            stream.write((b"\n" if torn else b"") + json.dumps(event, sort_keys=True).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def history(self) -> list[dict[str, Any]]:
        """Return all events, oldest first; a line cut by a power failure is left out."""
        events = []
        try:
            lines = (self.directory / "history.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        for line in lines:
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events

    def keep(self, service: str, files: dict[str, bytes]) -> None:
        """Remember the files that a service was last seen to serve with; all of them or none."""
        content = {name: data.decode() for name, data in files.items()}
        replace_file(self.directory / "last-good" / f"{service}.json", json.dumps(content).encode())

    def kept(self, service: str) -> dict[str, bytes]:
        """Return what :meth:`keep` remembered, empty where there is nothing."""
        try:
            content = json.loads((self.directory / "last-good" / f"{service}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return {name: data.encode() for name, data in content.items()}

    def tuned(self) -> dict[str, Any]:
        """Return what :meth:`keep_tuned` was given last, empty where there is nothing."""
        try:
            content: dict[str, Any] = json.loads((self.directory / "tuning.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return content

    def keep_tuned(self, content: Mapping[str, Any]) -> None:
        """Remember the settings that GPUs were given, which no card can be asked for."""
        replace_file(self.directory / "tuning.json", json.dumps(content).encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the host: one switch at a time.

        Raises:
            BusyError: another switch holds it.

        """
        self.directory.mkdir(parents=True, exist_ok=True)
        # Only root may open it: a lock that everybody may take is a lock that anybody may keep.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.directory / "lock", flags, 0o600)
        os.fchmod(descriptor, 0o600)
        with os.fdopen(descriptor, "r+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                target = self.read().switching_to
                msg = f"a switch to {target!r} is under way" if target else "another llamarig command is at work"
                raise BusyError(msg, "wait for it: llamarig status") from error
            yield


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file atomically, on disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
