"""What playbooks/lock.yml and playbooks/vendor.yml do: the lock as it is afterwards, and the archive that it names."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llamarig.config.engine import Source
from llamarig.control.engine_archive import ABOUT, Archive, about, as_json
from llamarig.control.engine_lock import DIGESTS, SOURCE, digests_of, source_of
from llamarig.control.engine_source import (
    VENDOR,
    SourceError,
    archive_name,
    locked_archive,
    new_archive,
    read_commit,
    resolve,
    version_of,
)
from llamarig.control.git import Say, shown
from llamarig.control.registry import RegistryError, digest_of
from llamarig.errors import LlamarigError

_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks of lock.yml.

    ``ref`` is another ref than the lock's, or the same where it moved; ``count`` whether the number of commits is
    wanted; ``bases`` the images whose digests are looked up, ``insecure`` registries that may be asked without TLS.
    """

    ref: str = ""
    count: bool = False
    bases: Collection[str] = ()
    insecure: Collection[str] = ()


def lock_engine(
    root: Path, path: Path, lock: Mapping[str, Any], asked: Asked, say: Say
) -> tuple[dict[str, Any], list[str]]:
    """Return the lock with everything looked up, and what could not be; nothing is written but ``.cache``.

    ``root`` is the checkout, ``path`` the lock's file, for messages.

    Raises:
        LockError: what the lock says makes no sense.
        SourceError: the ref is nothing, more than one thing, or another commit than was locked.
        GitError: the repository cannot be reached.

    """
    source = source_of(path, lock)
    # A ref from the command line keeps to the same rules.
    wanted = source_of(path, {SOURCE: {**lock[SOURCE], "ref": asked.ref or source.ref}})
    found = _locked_source(root, source, wanted.ref, asked, say)
    digests, warnings = _digests(asked, digests_of(path, lock), say)
    return {**lock, SOURCE: found.model_dump(mode="json"), DIGESTS: digests}, warnings


def vendor_engine(
    root: Path, path: Path, lock: Mapping[str, Any], say: Say, *, pruned: bool | None = None, dry: bool = False
) -> tuple[dict[str, Any], bool]:
    """Have the archive of the locked commit below ``vendor/``; return the lock that names it, and whether it was made.

    An archive that is there and whole needs no network. ``pruned`` None leaves it as it is; a first one is pruned. With
    ``dry`` nothing is made.

    Raises:
        LockError: what the lock says makes no sense.
        SourceError: the commit cannot be had, or its archive has other bytes than were locked.
        GitError: the repository cannot be reached.

    """
    source = source_of(path, lock)
    if source.commit is None:
        msg = f"nobody has looked up which commit {source.ref} is"
        raise SourceError(msg, "ansible-playbook playbooks/lock.yml")
    name = archive_name(source.commit)
    known = source.archive
    if pruned is None:
        pruned = known.pruned if known is not None else True
    if known is not None and (known.file != name or known.pruned != pruned):
        known = None
    if known is not None:
        try:
            found = locked_archive(root, known.model_dump(), source.commit)
        except SourceError as error:
            say(error.message)
        else:
            return dict(lock), _describe(root, source, found, dry=dry)
    if dry:
        return dict(lock), True
    with new_archive(root, source.repository, source.commit, say, pruned=pruned) as made:
        if known is not None and made.sha256 != known.sha256:
            msg = f"{name} of commit {source.commit} has sha256 {made.sha256} here; locked is {known.sha256}"
            remedy = "take the archive from whoever made it; or set archive to null in the lock, to take this one"
            raise SourceError(msg, f"another version of llamarig leaves out other files: {remedy}")
        made.path.replace(root / name)
        placed = Archive(root / name, made.sha256, made.bytes)
    entry = {"file": name, "sha256": placed.sha256, "bytes": placed.bytes, "pruned": pruned}
    vendored = {**source.model_dump(mode="json"), "archive": entry}
    _describe(root, source, placed, dry=False)
    return {**lock, SOURCE: vendored}, True


def _locked_source(root: Path, source: Source, ref: str, asked: Asked, say: Say) -> Source:
    found = resolve(root, source.repository, ref, say, known=source.commit)
    same = found.commit == source.commit
    if source.commit is not None and not same and not asked.ref:
        msg = f"{ref} of {shown(source.repository)} is {found.commit}, and the lock says {source.commit}:"
        msg += f" the {found.kind} moved, or somebody changed the ref in the lock"
        raise SourceError(msg, f"if that is meant: ansible-playbook playbooks/lock.yml -e llama_cpp_ref={ref}")
    counted = source.build is not None or not asked.count
    if same and ref == source.ref and source.committed is not None and counted:
        return source
    read = read_commit(root, source.repository, found.commit, say, count=asked.count)
    build = read.build if read.build is not None else source.build if same else None
    version = version_of(ref, found.kind, read)
    if ref.startswith("v") and ref[1:] != version and version == read.tree_version:
        say(f"{ref} says of itself that it is {version}; that is what is locked")
    changed = {
        "ref": ref,
        "version": version,
        "commit": read.commit,
        "committed": read.committed,
        "build": build,
        "archive": source.archive if same else None,
    }
    if source.archive is not None and not same:
        say(f"{source.archive.file} is of another commit: it stays where it is, and is locked no more")
    return source.model_copy(update=changed)


def _digests(asked: Asked, known: Mapping[str, str], say: Say) -> tuple[dict[str, str], list[str]]:
    """Look the digests of all bases up, several at once; where nobody answers, what was known stays."""
    names = sorted({name for name in asked.bases if "@" not in name})
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(lambda name: _digest(name, asked.insecure), names))
    digests: dict[str, str] = {}
    warnings = []
    for name, answer in zip(names, answers, strict=True):
        before = known.get(name)
        if isinstance(answer, str):
            digests[name] = answer
            if before not in {None, answer}:
                say(f"{name} was {before} and is {answer} now")
            continue
        stays = f"its digest stays {before}" if before else "its digest stays unknown, and a build takes what it finds"
        warnings.append(f"{name}: {answer.message}; {stays} ({answer.remedy})")
        if before:
            digests[name] = before
    return digests, warnings


def _digest(name: str, insecure: Collection[str]) -> str | LlamarigError:
    try:
        return digest_of(name, insecure)
    except RegistryError as error:
        return error


def _describe(root: Path, source: Source, archive: Archive, *, dry: bool) -> bool:
    """Write beside the archive what it is, where that is not there yet; return whether it was not."""
    said = about(archive.path)
    said |= {
        "ref": source.ref,
        "version": source.version,
        "build": source.build,
        "repository": shown(source.repository),
        "file": archive.path.name,
        "sha256": archive.sha256,
        "bytes": archive.bytes,
    }
    place = root / VENDOR / ABOUT
    text = as_json(said)
    if place.is_file() and place.read_bytes() == text:
        return False
    if not dry:
        with tempfile.TemporaryDirectory(prefix=".part-", dir=place.parent) as part:
            written = Path(part) / ABOUT
            written.write_bytes(text)
            written.replace(place)
    return True
