"""Model files on the control node: looked at, and their headers read, before any host is touched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from llamarig.errors import ConfigError, Problem
from llamarig.gguf.error import GgufError
from llamarig.gguf.model import read_model
from llamarig.gguf.source import FileSource
from llamarig.planning.intent import CATALOGUE_PREFIX


def check_local_models(host: str, sources: list[dict[str, Any]], root: Path) -> None:
    """Check existence, size and checksum of every file with a ``path``; make the paths absolute in place.

    A relative path is relative to ``root``. A checksum once seen is remembered in ``.cache``
    for the file's size and modification time, so that tens of GB are read once.

    Raises:
        ConfigError: with every file that is missing or not what the profile says.

    """
    problems = []
    for source in sources:
        if not source["path"]:
            continue
        path = root / source["path"]
        source["path"] = str(path)
        message = _fault(path, source, root / ".cache" / "sha256")
        if message:
            remedy = "correct path, bytes and sha256 in the profile, or fetch the file again"
            problems.append(Problem(host, f"file {source['name']}", message, remedy))
    if problems:
        raise ConfigError(problems)


def add_local_shapes(host: str, variables: dict[str, Any], root: Path) -> None:
    """Give profiles without a shape the one in their file's header, where the file is on the control node.

    Only profiles that the host's services use are read. A file that is missing is ``check_local_models``'s to report.

    Raises:
        ConfigError: with every file that is no model, or a damaged one.

    """
    services = variables.get("llm_services")
    listed = services if isinstance(services, list) else []
    used = {str(item.get("profile")) for item in listed if isinstance(item, dict)}
    problems = []
    for variable in [name for name in variables if name.startswith(CATALOGUE_PREFIX)]:
        part = variables[variable]
        for name in used & part.keys() if isinstance(part, dict) else ():
            path = _local_file(part[name], root)
            if path is None:
                continue
            try:
                shape = read_model(str(path), FileSource).shape
            except GgufError as error:
                problems.append(Problem(host, f"profile {name}, file {path}", error.message, error.remedy))
                continue
            variables[variable] = {**variables[variable], name: {**part[name], "shape": shape.to_dict()}}
    if problems:
        raise ConfigError(problems)


def _local_file(profile: object, root: Path) -> Path | None:
    """Return a profile's first file where it is on this machine and nobody said its shape."""
    if not isinstance(profile, dict) or profile.get("shape") is not None:
        return None
    files = profile.get("files")
    first = files[0] if isinstance(files, list) and files else None
    said = first.get("path") if isinstance(first, dict) else None
    path = root / said if isinstance(said, str) and said else None
    return path if path is not None and path.is_file() else None


def _fault(path: Path, source: dict[str, Any], cache: Path) -> str | None:
    if not path.is_file():
        return f"there is no file {path}"
    size = path.stat().st_size
    if size != source["bytes"]:
        return f"{path} has {size} bytes, the profile says {source['bytes']}"
    digest = _sha256(path, cache)
    if digest != source["sha256"]:
        return f"{path} has sha256 {digest}, the profile says {source['sha256']}"
    return None


def _sha256(path: Path, cache: Path) -> str:
    info = path.stat()
    stamp = [str(path), info.st_size, info.st_mtime_ns, info.st_ino]
    note = cache / hashlib.sha256(json.dumps(stamp).encode()).hexdigest()
    if note.is_file():
        return note.read_text(encoding="ascii")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    cache.mkdir(parents=True, exist_ok=True)
    temporary = note.with_suffix(f".{info.st_ino}")
    temporary.write_text(digest, encoding="ascii")
    temporary.replace(note)
    return digest
