"""The engine's source on the control node: a ref looked up, a commit fetched, an archive of it made or found.

What is fetched lies in ``.cache/engine`` of the checkout, under a lock of its own. Work is done beside, in folders
named ``.part-…``, and renamed when it is whole; what an interrupted run left is swept up by the next.
"""

from __future__ import annotations

import difflib
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from llamarig.control.engine_archive import SUFFIX, Archive, about, measured, pack, rules
from llamarig.control.git import GitError, Say, fetch, git, shown
from llamarig.errors import LlamarigError

Kind = Literal["tag", "branch", "commit"]
VENDOR: Final = "vendor"
_PART: Final = ".part-"
_PINNED: Final = "refs/llamarig/commit"
_EVERYTHING: Final = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_FULL: Final = re.compile(r"[0-9a-f]{40}")
_ABBREVIATED: Final = re.compile(r"[0-9a-f]{7,39}")
_RELEASE: Final = re.compile(r"v\d+\.\d+\.\d+")
# What may follow a colon-free name in an image's labels and in the lock (config/engine.py).
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]*")
_DIGITS_SHOWN: Final = 12
_DIGITS_SAID: Final = 9
_NEAR_NAMES: Final = 3
# What git itself says for the depth of everything (git-fetch, --unshallow).
_WHOLE_HISTORY: Final = 2147483647
# The server looked and has no such commit, or will not give it to anybody; the first without a whole history's way.
_NO_SUCH_COMMIT: Final = "not our ref"
_POINTER: Final = b"version https://git-lfs"


class SourceError(LlamarigError):
    """The engine's source cannot be had, or is not what was locked."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a ref is right now: its full commit, and what kind of name it is."""

    commit: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit itself says.

    ``committed`` is its time in Unix seconds; ``tree_version`` is X.Y.Z of its CMakeLists.txt, None in older trees;
    ``build`` is the number of commits up to it, None where the history is not here.
    """

    commit: str
    committed: int
    tree_version: str | None
    build: int | None = None


def resolve(root: Path, repository: str, ref: str, say: Say, *, known: str | None = None) -> Resolved:
    """Look up which commit a tag, a branch, or a full or abbreviated commit is; annotated tags are peeled.

    A name goes before an abbreviation of the same letters. ``known`` is the commit that it was when last looked up: an
    abbreviation of that one is not looked up again, for it cannot have moved.

    Raises:
        SourceError: there is nothing of that name, or more than one thing.
        GitError: the repository cannot be asked.

    """
    if _FULL.fullmatch(ref):
        return Resolved(ref, "commit")
    say(f"asking {shown(repository)} which commit {ref} is")
    listed = _listed(repository)
    found = {name: listed[name] for name in _full_names(ref) if name in listed}
    if len(set(found.values())) > 1:
        msg = f"{ref} is more than one thing in {shown(repository)}: "
        msg += ", ".join(f"{name} is {commit}" for name, commit in found.items())
        raise SourceError(msg, f"say which: {' or '.join(name.removeprefix('refs/') for name in found)}")
    for name, commit in found.items():
        return Resolved(commit, "tag" if name.startswith("refs/tags/") else "branch")
    if _ABBREVIATED.fullmatch(ref):
        if known is not None and known.startswith(ref):
            return Resolved(known, "commit")
        return Resolved(_unabbreviated(root, repository, ref, say), "commit")
    names = [name.split("/", 2)[2] for name in listed]
    near = difflib.get_close_matches(ref, names, n=_NEAR_NAMES)
    msg = f"{shown(repository)} has no tag, branch or commit {ref}"
    raise SourceError(msg, f"near it are {', '.join(near)}" if near else "look at its releases and branches")


def read_commit(root: Path, repository: str, commit: str, say: Say, *, count: bool = False) -> Commit:
    """Fetch a commit and return what it says; with ``count`` also its number, which takes the history's commits.

    Raises:
        SourceError: the repository does not have it, or it is no llama.cpp.
        GitError: the repository cannot be fetched from.

    """
    with _store(root, say) as store:
        clone = _cloned(store, repository, commit, say)
        full = git("rev-parse", "--verify", f"{_PINNED}^{{commit}}", directory=clone).decode().strip()
        committed = int(git("show", "--no-patch", "--format=%ct", full, directory=clone))
        version = _tree_version(clone, repository, full)
        build = _number(clone, full)
        if build is None and count:
            with _part(store) as part:
                history = _fetch_history(part, repository, [f"{full}:{_PINNED}"], say)
                build = _number(history, full)
    return Commit(full, committed, version, build)


def version_of(ref: str, kind: Kind, commit: Commit) -> str:
    """Return what llama-server of a commit says it is, as the image is built for this ref.

    A release vX.Y.Z says X.Y.Z. Anything else is a build between releases, and older trees know no version.
    """
    said = commit.commit[:_DIGITS_SAID]
    if commit.tree_version is None:
        return ref if kind == "tag" and _VERSION.fullmatch(ref) else f"dev-{said}"
    return commit.tree_version if _RELEASE.fullmatch(ref) else f"{commit.tree_version}-dev-{said}"


def ensure_archive(root: Path, source: Mapping[str, Any], say: Say) -> Archive:
    """Return the archive that hosts build from: the vendored one, else one made from the locked commit and cached.

    The bytes of the latter depend on the commit and this llamarig alone; it is pruned. ``root`` is the checkout,
    ``source`` the plan's ``engine.source``.

    Raises:
        SourceError: nothing is locked, or the archive is not what the lock says.
        ArchiveError: the archive cannot be made.
        GitError: the repository cannot be fetched from.

    """
    commit = source.get("commit")
    if not commit:
        msg = f"nobody has looked up which commit {source.get('ref')} is"
        raise SourceError(msg, "ansible-playbook playbooks/lock.yml")
    if source.get("archive"):
        return locked_archive(root, source["archive"], commit)
    with _store(root, say) as store:
        target = store / f"llama.cpp-{commit[:_DIGITS_SHOWN]}-{rules()}{SUFFIX}"
        note = target.with_name(target.name + ".sha256")
        if target.is_file() and note.is_file():
            found = measured(target)
            if found.sha256 == note.read_text(encoding="ascii").strip():
                return found
        with _part(store) as part:
            made = _packed(store, part, source["repository"], commit, say, pruned=True)
            _write(part / note.name, f"{made.sha256}\n".encode())
            made.path.replace(target)
            (part / note.name).replace(note)
        return Archive(target, made.sha256, made.bytes)


def locked_archive(root: Path, locked: Mapping[str, Any], commit: str) -> Archive:
    """Return the vendored archive after looking at all of it.

    Raises:
        SourceError: it is not there, has other bytes than the lock says, or is of another commit.

    """
    path = root / locked["file"]
    if not path.is_file():
        msg = f"{path} is locked and not there"
        raise SourceError(msg, "ansible-playbook playbooks/vendor.yml makes it again from the locked commit")
    found = measured(path)
    if found.sha256 != locked["sha256"] or found.bytes != locked["bytes"]:
        with path.open("rb") as stream:
            is_pointer = stream.read(len(_POINTER)) == _POINTER
        msg = f"{path} has {found.bytes} bytes and sha256 {found.sha256}; locked are {locked['bytes']} and "
        remedy = "git lfs pull" if is_pointer else "ansible-playbook playbooks/vendor.yml makes it again"
        raise SourceError(msg + str(locked["sha256"]), remedy)
    said = about(path).get("commit")
    if said != commit:
        msg = f"{path} is commit {said}, the lock says {commit}"
        raise SourceError(msg, "ansible-playbook playbooks/vendor.yml makes one of the locked commit")
    return found


@contextmanager
def new_archive(root: Path, repository: str, commit: str, say: Say, *, pruned: bool) -> Iterator[Archive]:
    """Make an archive of a commit in a folder beside the vendored ones; it is gone afterwards if nobody renamed it.

    Raises:
        SourceError: the repository does not have the commit.
        ArchiveError: the archive cannot be made.
        GitError: the repository cannot be fetched from.

    """
    with _store(root, say) as store:
        vendor = root / VENDOR
        with _disk(vendor):
            vendor.mkdir(exist_ok=True)
        _sweep(vendor)
        with _part(vendor) as part:
            yield _packed(store, part, repository, commit, say, pruned=pruned)


def archive_name(commit: str) -> str:
    """Return the name of a commit's vendored archive, relative to the checkout."""
    return f"{VENDOR}/llama.cpp-{commit[:_DIGITS_SHOWN]}{SUFFIX}"


def _packed(store: Path, part: Path, repository: str, commit: str, say: Say, *, pruned: bool) -> Archive:
    clone = _cloned(store, repository, commit, say)
    said = {
        "commit": commit,
        "committed": int(git("show", "--no-patch", "--format=%ct", commit, directory=clone)),
        "tree_version": _tree_version(clone, repository, commit),
    }
    say(f"packing commit {commit[:_DIGITS_SHOWN]}{', pruned' if pruned else ', all of it'}")
    with _disk(part):
        made = pack(clone, said, part / f"archive{SUFFIX}", pruned=pruned)
        descriptor = os.open(made.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return made


def _full_names(ref: str) -> tuple[str, ...]:
    """Return what git would take a ref for, tags before branches."""
    return ref, f"refs/{ref}", f"refs/tags/{ref}", f"refs/heads/{ref}"


def _listed(repository: str) -> dict[str, str]:
    """Return the commits of all tags and branches by full name; of an annotated tag, the commit that it is of."""
    listed: dict[str, str] = {}
    peeled: dict[str, str] = {}
    said = git("ls-remote", "--heads", "--tags", "--", repository).decode("utf-8", "surrogateescape")
    for line in said.splitlines():
        commit, _, name = line.partition("\t")
        (peeled if name.endswith("^{}") else listed)[name.removesuffix("^{}")] = commit
    return listed | peeled


def _unabbreviated(root: Path, repository: str, ref: str, say: Say) -> str:
    """Find the commit that begins so among all that tags and branches reach."""
    say(f"{ref} is no name there: fetching the history, without files, to see which commit begins so")
    with _store(root, say) as store, _part(store) as part:
        history = _fetch_history(part, repository, list(_EVERYTHING), say)
        commits = git("rev-list", "--all", directory=history).decode().split()
    found = [commit for commit in commits if commit.startswith(ref)]
    if len(found) == 1:
        return found[0]
    if found:
        msg = f"{ref} is the beginning of {len(found)} commits of {shown(repository)}: {', '.join(found)}"
        raise SourceError(msg, "say more of it")
    msg = f"{shown(repository)} has no tag, branch or commit {ref}"
    raise SourceError(msg, "say the whole commit where no tag and no branch reaches it")


def _fetch_history(part: Path, repository: str, refspecs: list[str], say: Say) -> Path:
    """Return a repository with commits but not their files, or with them from a server that knows no such thing."""
    thin, whole = part / "thin", part / "whole"
    with _disk(part):
        _initialise(thin)
        try:
            # With a depth, however large, a web server that knows nothing of git refuses at once. Without, git would
            # miss there what was left out, and ask for it piece by piece: 496 s where there were five commits.
            fetch(thin, repository, refspecs, "--filter=tree:0", f"--depth={_WHOLE_HISTORY}", say=say)
        except GitError:
            # Another one: the first is marked as one that lacks things.
            _initialise(whole)
            fetch(whole, repository, refspecs, say=say)
            return whole
    return thin


def _cloned(store: Path, repository: str, commit: str, say: Say) -> Path:
    """Return a bare repository that has the commit; one is kept, so that locking and vendoring fetch once."""
    kept = store / f"{commit}.git"
    if kept.is_dir():
        return kept
    for other in store.glob("*.git"):
        shutil.rmtree(other)
    with _part(store) as part:
        _initialise(part)
        say(f"fetching commit {commit[:_DIGITS_SHOWN]} from {shown(repository)}")
        with _disk(part):
            _fetch_commit(part, repository, commit, say)
        part.rename(kept)
    return kept


def _fetch_commit(part: Path, repository: str, commit: str, say: Say) -> None:
    """Fetch one commit alone, or all there is from a server that does not give out single commits."""
    try:
        fetch(part, repository, [f"{commit}:{_PINNED}"], "--depth=1", say=say)
    except GitError as error:
        if _NO_SUCH_COMMIT in error.said:
            raise _missing(repository, commit) from error
        first = error.said.splitlines()[-1:] or ["it does not say why"]
        say(f"{first[0]}: fetching the whole history")
        fetch(part, repository, _EVERYTHING, say=say)
        try:
            git("update-ref", _PINNED, commit, directory=part)
        except GitError:
            raise _missing(repository, commit) from error
    found = git("rev-parse", "--verify", f"{_PINNED}^{{commit}}", directory=part).decode().strip()
    if found != commit:
        msg = f"{commit} is no commit but a tag of {found}"
        raise SourceError(msg, f"name that commit: {found}")


def _missing(repository: str, commit: str) -> SourceError:
    msg = f"{shown(repository)} does not have commit {commit}"
    remedy = "if it was force-pushed away, take it from a clone that has it, or lock another: -e llama_cpp_ref=…"
    return SourceError(msg, remedy)


def _initialise(part: Path) -> None:
    # Without a template, no hooks of anybody come in.
    git("init", "--quiet", "--bare", "--template=", "--object-format=sha1", str(part))


def _number(clone: Path, commit: str) -> int | None:
    if git("rev-parse", "--is-shallow-repository", directory=clone).decode().strip() == "true":
        return None
    return int(git("rev-list", "--count", commit, directory=clone))


def _tree_version(clone: Path, repository: str, commit: str) -> str | None:
    try:
        text = git("cat-file", "blob", f"{commit}:CMakeLists.txt", directory=clone).decode("utf-8", "replace")
    except GitError as error:
        msg = f"commit {commit} of {shown(repository)} has no CMakeLists.txt"
        raise SourceError(
            msg, "llama_image_source.repository is to name llama.cpp, a fork or a mirror of it"
        ) from error
    parts = [re.search(rf"set\s*\(\s*LLAMA_VERSION_{part}\s+(\d+)", text) for part in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(part[1] for part in parts if part) if all(parts) else None


@contextmanager
def _store(root: Path, say: Say) -> Iterator[Path]:
    """Hold the folder of what is fetched, alone; another run is waited for."""
    store = root / ".cache" / "engine"
    with _disk(store):
        store.mkdir(parents=True, exist_ok=True)
    with (store / "lock").open("w") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run that fetches the engine's source")
            fcntl.flock(guard, fcntl.LOCK_EX)
        _sweep(store)
        yield store


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """Give a folder to work in, beside what it will become part of; it goes, whatever happens."""
    with _disk(folder):
        part = Path(tempfile.mkdtemp(prefix=_PART, dir=folder))
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sweep(folder: Path) -> None:
    for leftover in folder.glob(f"{_PART}*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _disk(place: Path) -> Iterator[None]:
    """Say it in words where the disk does not take what is written."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        msg = f"{error.filename or place} cannot be written: {error.strerror or error}"
        raise SourceError(msg, "make room there, and run it again" if full else "see to its rights") from error


def _write(path: Path, content: bytes) -> None:
    with _disk(path), path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
