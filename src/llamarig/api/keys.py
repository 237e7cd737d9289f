"""Keys for the API: made for root, shown once, kept as hashes, and read anew whenever their file changes.

A key is 256 random bits, so that its SHA-256 gives nothing away: nobody can try 2^256 of them, whatever they cost.
Salt and a slow hash are for what people choose themselves; here they would only make every request slow.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from llamarig.config import paths
from llamarig.errors import LlamarigError, NotFoundError

Scope = Literal["read", "manage"]
PREFIX: Final = "llamarig_"
_BYTES: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key.

    Attributes:
        name: what it is called.
        scope: what it may: ``read``, or ``manage``, which is everything.
        sha256: the hash of its text.
        created: seconds since the epoch.

    """

    name: str
    scope: Scope
    sha256: str
    created: float


def add(root: Path, name: str, scope: str, now: Callable[[], float] = time.time) -> str:
    """Make a key and return its text, which is kept nowhere.

    Raises:
        LlamarigError: the name is none, or is taken; the file cannot be read.

    """
    if not _NAME.fullmatch(name):
        raise LlamarigError(f"{name!r} is no name for a key", "letters, digits, and . _ - after the first of them")
    if scope not in {"read", "manage"}:
        raise LlamarigError(f"{scope!r} is no scope", "choose read or manage")
    text = PREFIX + secrets.token_urlsafe(_BYTES)
    with _held(root) as path:
        keys = _read(path)
        if any(key.name == name for key in keys):
            raise LlamarigError(
                f"there is a key {name!r} already", f"llamarig keys revoke {name}, or choose another name"
            )
        _write(path, [*keys, Key(name, cast("Scope", scope), digest(text), round(now(), 3))])
    return text


def listed(root: Path) -> list[Key]:
    """Return what is kept of every key.

    Raises:
        LlamarigError: the file cannot be read.

    """
    return _read(_path(root))


def revoke(root: Path, name: str) -> None:
    """Forget a key: it is refused from the next request on.

    Raises:
        NotFoundError: there is no key of this name.
        LlamarigError: the file cannot be read.

    """
    with _held(root) as path:
        keys = _read(path)
        kept = [key for key in keys if key.name != name]
        if len(kept) == len(keys):
            names = ", ".join(key.name for key in keys) or "none"
            raise NotFoundError(f"there is no key {name!r}", f"there are: {names}")
        _write(path, kept)


def digest(text: str) -> str:
    """Return the hash that is kept of a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class KeyRing:
    """The keys as the daemon knows them: those of the file as it is now."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._path = _path(root)
        self._seen: tuple[int, ...] | None = None
        self._keys: Sequence[Key] = ()
        self._broken = False

    @property
    def required(self) -> bool:
        """Whether there are keys, so that one is wanted; also where their file cannot be read, which lets nobody in."""
        self._look()
        return bool(self._keys) or self._broken

    def scope(self, text: str) -> Scope | None:
        """Return what a key may; None where it is none. Takes as long whichever it is."""
        self._look()
        wanted, found = digest(text), None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, wanted):
                found = key.scope
        return found

    def _look(self) -> None:
        try:
            stat = self._path.stat()
            seen: tuple[int, ...] = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        except FileNotFoundError:
            seen = ()
        except OSError as error:
            self._break(error)
            return
        if seen == self._seen:
            return
        try:
            self._keys, self._broken = _read(self._path), False
        except (LlamarigError, OSError) as error:
            self._break(error)
        self._seen = seen

    def _break(self, error: Exception) -> None:
        if not self._broken:
            _LOG.error("no key is accepted: %s", error)
        self._keys, self._broken = (), True


def _path(root: Path) -> Path:
    return root / paths.API_KEYS_FILE.lstrip("/")


@contextmanager
def _held(root: Path) -> Iterator[Path]:
    """Keep others from writing meanwhile."""
    path = _path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only root may open it: whoever can could lock it, and keep a key from being revoked.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path.with_name(".api-keys.lock"), flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(descriptor)


def _read(path: Path) -> list[Key]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return [_key(item) for item in data["keys"]]
    except FileNotFoundError:
        return []
    except (OSError, KeyError, TypeError, ValueError) as error:
        remedy = f"sudo rm {path}, and give new keys: llamarig keys add"
        raise LlamarigError(f"{path} cannot be read: {error or type(error).__name__}", remedy) from error


def _key(item: dict[str, Any]) -> Key:
    key = Key(str(item["name"]), item["scope"], str(item["sha256"]), float(item["created"]))
    if key.scope not in {"read", "manage"} or not _HASH.fullmatch(key.sha256):
        raise ValueError(f"key {key.name!r} is none")
    return key


def _write(path: Path, keys: Sequence[Key]) -> None:
    content = json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n"
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        # Whatever root's umask is: a file that the daemon cannot read lets nobody in.
        os.fchmod(descriptor, 0o640)
        if os.geteuid() == 0:
            # The daemon reads it, and nobody else; a host without the daemon's account has no daemon.
            with suppress(LookupError):
                shutil.chown(temporary, group=paths.DAEMON_USER)
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    # A power cut must not bring back a key that was revoked.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
