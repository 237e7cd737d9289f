"""One trial of an engine at a time, and none that stands in the way of what serves.

A trial holds a file below ``/run`` as long as it lives, and empties it when it ends. A newer trial ends it, because the
run that began it may be long gone; so does a switch, because a trial takes memory that a service may need.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from llamarig.errors import BusyError
from llamarig.runtime.images import Docker

# On every container of a trial, whose names all begin with it too.
LABEL: Final = "llamarig.trial"
NAME: Final = "llamarig-trial"
PLACE: Final = "/run/llamarig/trial"
# To end its containers, of which one may hold a large model.
END_SECONDS: Final = 60.0


def end_trial(root: Path = Path("/"), docker: Docker | None = None) -> bool:
    """End the trial that is under way, and remove what one left that was killed; returns whether there was anything.

    Raises:
        BusyError: it does not end.

    """
    try:
        stream = _place(root).open("r+", encoding="ascii")
    except FileNotFoundError:
        return False
    with stream:
        if not stream.read().strip():
            return False
        _take(stream, END_SECONDS)
        _clear(stream, docker or Docker())
        return True


@contextlib.contextmanager
def claim_trial(root: Path = Path("/"), docker: Docker | None = None, seconds: float = END_SECONDS) -> Iterator[None]:
    """Be the trial of this host for a while; one that is under way is ended first, and what is left of it removed.

    Raises:
        BusyError: it does not end within so many seconds.

    """
    place = _place(root)
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+", encoding="ascii") as stream:
        _take(stream, seconds)
        _write(stream, f"{os.getpid()}\n")
        try:
            # After a reboot the file is gone, and containers may be there.
            (docker or Docker()).remove(*(docker or Docker()).labelled(LABEL))
            yield
        finally:
            _clear(stream, docker or Docker())


def _place(root: Path) -> Path:
    return root / PLACE.lstrip("/")


def _take(stream: IO[str], seconds: float) -> None:
    """Lock the file, ending whoever holds it."""
    asked: set[str] = set()
    until = time.monotonic() + seconds
    while not _locked(stream):
        stream.seek(0)
        said = stream.read().strip()
        if said not in asked and _holds(said, stream):
            asked.add(said)
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(said), signal.SIGTERM)
        if time.monotonic() > until:
            msg = f"a trial of an engine is under way (process {said or 'unknown'}) and does not end"
            raise BusyError(msg, f"sudo kill -KILL {said}" if said else "wait for it")
        time.sleep(0.1)


def _holds(pid: str, stream: IO[str]) -> bool:
    """Tell whether a process has the file open: a number that was left there may be another's by now."""
    own = os.fstat(stream.fileno())
    try:
        return any(os.path.samestat(entry.stat(), own) for entry in Path(f"/proc/{int(pid)}/fd").iterdir())
    except (OSError, ValueError):
        return False


def _locked(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear(stream: IO[str], docker: Docker) -> None:
    """Remove a trial's containers; only then does the file say that there is none."""
    docker.remove(*docker.labelled(LABEL))
    _write(stream, "")


def _write(stream: IO[str], text: str) -> None:
    stream.seek(0)
    stream.truncate()
    stream.write(text)
    stream.flush()
