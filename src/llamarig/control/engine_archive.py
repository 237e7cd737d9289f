"""An archive of one commit of llama.cpp: read from git's objects, so that its bytes depend on commit and pruning alone.

Nothing is checked out: neither umask, locale, line ends nor a file system's ideas of names come in. The archive is a
tar in bzip2: one library that every Python links, no threads, no setting but the level. What gzip, xz and zstd make of
the same content differs from one version or build of them to the next. Python unpacks it without another program.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from llamarig.control.git import git, object_reader
from llamarig.errors import LlamarigError

SUFFIX: Final = ".tar.bz2"
# The first file of every archive says what it is.
ABOUT: Final = "version.json"
_LEVEL: Final = 9
_EXECUTABLE: Final = "100755"
_LINK: Final = "120000"
# What no target of our image needs: its cmake line builds libraries, tools and tests for CPU, CUDA and RPC, without
# examples. What is not named here stays, so that a tree with new folders builds.
_UNNEEDED: Final = re.compile(
    r"""
      \.[^/]+(/|$)                                         # CI, editors, linters
    | (benches|ci|docs|examples|grammars|media|models|pocs|prompts|skills)/
    | (conversion|gguf-py|requirements)/                   # Python: conversion of models
    | (?!convert_hf_to_gguf\.py$)[^/]+\.(ini|lock|nix|py|toml)$   # older trees install that one
    | (build-xcframework\.sh|pyrightconfig\.json|requirements\.txt|Package\.swift)$
    | (AGENTS|CLAUDE|CONTRIBUTING)\.md$ | CODEOWNERS$
    | scripts/(?!.*\.cmake$)
    | tests/snapshots/                                     # the tests themselves stay: cmake looks for each
    | tools/server/(bench|tests|themes|webui)/
    | tools/ui/[^/]+/                                      # the page's own sources; its templates stay
    | tools/mtmd/(legacy-models|tests)/
    | tools/mtmd/test-[^/]+\.(jpeg|jpg|mp3|mp4|png|wav)$
    | ggml/src/ggml-(cann|et|hexagon|hip|kompute|metal|musa|opencl|openvino|sycl|virtgpu|vulkan|webgpu|zdnn|zendnn)/
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive on the control node: where it is, its checksum, and its size in bytes."""

    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file or link of a commit, as its trees have it."""

    mode: str
    blob: str
    name: str

    @property
    def line(self) -> bytes:
        return f"{self.mode} {self.blob}\t{self.name}\0".encode("utf-8", "surrogateescape")


class ArchiveError(LlamarigError):
    """An archive cannot be made, or is not what it should be."""


def rules() -> str:
    """Return eight digits that change when archives of a same commit may come out otherwise."""
    return hashlib.sha256(f"{_UNNEEDED.pattern}\0{SUFFIX}{_LEVEL}".encode()).hexdigest()[:8]


def needed(name: str) -> bool:
    """Tell whether a build of the image may read this file of the tree."""
    return _UNNEEDED.match(name) is None


def pack(repository: Path, about: dict[str, Any], target: Path, *, pruned: bool) -> Archive:
    """Write the archive of a commit that lies in a bare repository here.

    Args:
        repository: the bare repository.
        about: what version.json begins with; ``commit`` (40 hex) and ``committed`` (Unix seconds, every file's time).
        target: the archive; it is written in place, so give a name that nobody looks at yet.
        pruned: leave out what the image's build does not need.

    Raises:
        ArchiveError: what git holds is not what the commit says.
        GitError: git failed.
        OSError: it cannot be written.

    """
    entries = [entry for entry in _entries(repository, about["commit"]) if not pruned or needed(entry.name)]
    if any(entry.name == ABOUT for entry in entries):
        msg = f"commit {about['commit']} has a file {ABOUT} of its own"
        raise ArchiveError(msg, "vendor another commit: this llamarig puts its own file of that name there")
    listing = hashlib.sha256(b"".join(entry.line for entry in entries)).hexdigest()
    described = {**about, "pruned": pruned, "files": len(entries), "listing_sha256": listing}
    with (
        target.open("wb") as stream,
        bz2.BZ2File(stream, "wb", compresslevel=_LEVEL) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar,
    ):
        _add(tar, ABOUT, as_json(described), about["committed"])
        folders: set[str] = set()
        for entry, content in _contents(repository, entries):
            _add_folders(tar, entry.name, folders, about["committed"])
            _add(tar, entry.name, content, about["committed"], entry.mode)
    return measured(target)


def measured(path: Path) -> Archive:
    """Return an archive with its checksum and size as they are on disk.

    Raises:
        OSError: it cannot be read.

    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Archive(path, digest, path.stat().st_size)


def about(path: Path) -> dict[str, Any]:
    """Return what an archive says it is.

    Raises:
        ArchiveError: it is no archive of ours.

    """
    try:
        with tarfile.open(path, "r:bz2") as tar:
            first = tar.next()
            content = tar.extractfile(first) if first is not None and first.name == ABOUT else None
            said = json.load(content) if content is not None else None
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        msg = f"{path} cannot be read: {error}"
        raise ArchiveError(msg, "fetch it again, or make it again: ansible-playbook playbooks/vendor.yml") from error
    if not isinstance(said, dict):
        msg = f"{path} does not begin with {ABOUT}"
        raise ArchiveError(msg, "archives are made by playbooks/vendor.yml")
    return said


def as_json(value: dict[str, Any]) -> bytes:
    """Return JSON in the form of version.json: sorted, indented, with a last newline."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _entries(repository: Path, commit: str) -> list[_Entry]:
    """Return files and links of a commit by name; a submodule is a commit of elsewhere, and left out."""
    listed = git("ls-tree", "-r", "-z", "--full-tree", commit, directory=repository)
    entries = []
    for line in listed.split(b"\0")[:-1]:
        mode, kind, identity, name = re.split(rb"[ \t]", line, maxsplit=3)
        if kind == b"blob":
            entries.append(_Entry(mode.decode(), identity.decode(), name.decode("utf-8", "surrogateescape")))
    return sorted(entries, key=lambda entry: entry.name.encode("utf-8", "surrogateescape"))


def _contents(repository: Path, entries: list[_Entry]) -> Iterator[tuple[_Entry, bytes]]:
    """Yield the content of each, checked against the identity that the commit gives it."""
    with object_reader(repository) as reader:
        if reader.stdin is None or reader.stdout is None:
            msg = "git cannot be talked to"
            raise ArchiveError(msg, "run it again")
        for entry in entries:
            reader.stdin.write(f"{entry.blob}\n".encode())
            reader.stdin.flush()
            yield entry, _content(reader.stdout, entry)
        reader.stdin.close()


def _content(stream: IO[bytes], entry: _Entry) -> bytes:
    head = stream.readline().split()
    content = stream.read(int(head[2]) + 1)[:-1] if len(head) == len(("id", "kind", "size")) else b""
    # Git's own name for a content; a clone that is damaged on disk is noticed here.
    found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if found != entry.blob:
        msg = f"{entry.name} is not what the commit says: {found} in place of {entry.blob}"
        raise ArchiveError(msg, "delete .cache/engine in this checkout and run it again: the source is fetched anew")
    return content


def _add_folders(tar: tarfile.TarFile, name: str, known: set[str], seconds: int) -> None:
    for folder in reversed(PurePosixPath(name).parents[:-1]):
        if str(folder) not in known:
            known.add(str(folder))
            info = tarfile.TarInfo(str(folder))
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, seconds
            tar.addfile(info)


def _add(tar: tarfile.TarFile, name: str, content: bytes, seconds: int, mode: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.mtime = seconds
    info.mode = 0o755 if mode == _EXECUTABLE else 0o644
    if mode == _LINK:
        info.type, info.mode = tarfile.SYMTYPE, 0o777
        info.linkname = content.decode("utf-8", "surrogateescape")
        tar.addfile(info)
        return
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
