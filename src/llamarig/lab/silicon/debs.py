"""Debian packages and archives from data: what a package holds, its .deb, an index, a signed Release."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cached_property
from pathlib import Path
from typing import Self

from llamarig.lab.machine import run


@dataclass(frozen=True, slots=True)
class File:
    """A file of a package, or with ``target`` a link."""

    content: bytes = b""
    mode: int = 0o644
    target: str = ""


@dataclass(frozen=True)
class Package:
    """A package: its name, its version, what its control file says beyond that, its files, its scripts."""

    name: str
    version: str
    fields: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, File] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)

    def control(self, architecture: str) -> str:
        """Return the control file."""
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": architecture,
            "Maintainer": "llamarig lab <lab@llamarig.invalid>",
            **{key: value for key, value in self.fields.items() if value},
            "Description": "stand-in of llamarig's lab; it holds nothing of the vendor's",
        }
        return "".join(f"{key}: {value}\n" for key, value in fields.items())

    def file_name(self, architecture: str) -> str:
        """Return the name of its .deb, without the epoch, as archives do."""
        return f"{self.name}_{self.version.split(':')[-1]}_{architecture}.deb"


@dataclass(frozen=True, slots=True)
class Archive:
    """A place that apt reads: its directory, its suite ('/' for a flat one), what its Release says, its packages."""

    directory: str
    suite: str
    component: str
    origin: str
    label: str
    packages: Sequence[Package]
    key: str


class Keyring:
    """The signing keys of the lab, made on the spot and kept in ``store``: an archive built anew has the same key."""

    def __init__(self, store: Path) -> None:
        self._store = store
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not in the store: gpg's agent listens in its home, and the path of a socket must be short.
        self._home = Path(tempfile.mkdtemp(prefix="llamarig-gpg-"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        run(["gpgconf", "--homedir", str(self._home), "--kill", "all"], check=False)
        shutil.rmtree(self._home, ignore_errors=True)

    @cached_property
    def _gpg(self) -> list[str]:
        return ["gpg", "--homedir", str(self._home), "--batch", "--quiet", "--pinentry-mode", "loopback"]

    def make(self, name: str) -> str:
        """Take a key from the store, or make it; return its public half in ASCII."""
        address, kept = f"{name}@lab.llamarig.invalid", self._store / f"{name}.asc"
        if kept.exists():
            run([*self._gpg, "--import", str(kept)])
        else:
            run([*self._gpg, "--passphrase", "", "--quick-generate-key", address, "ed25519", "sign", "never"])
            secret = run([*self._gpg, "--passphrase", "", "--armor", "--export-secret-keys", address])
            kept.touch(mode=0o600)
            kept.write_text(secret + "\n", encoding="ascii")
        return run([*self._gpg, "--armor", "--export", address]) + "\n"

    def sign(self, name: str, text: str) -> str:
        """Return the text with a signature around it."""
        key = f"{name}@lab.llamarig.invalid"
        return run([*self._gpg, "--passphrase", "", "--local-user", key, "--clearsign"], stdin=text) + "\n"


def write_archive(root: Path, archive: Archive, architecture: str, keyring: Keyring) -> None:
    """Write the packages of an archive, its index and its signed Release.

    A package that an earlier archive put into the same directory is left as it is, so that suites share their pool.
    """
    top = root / archive.directory
    pool = top / ("pool" if archive.component else ".")
    pool.mkdir(parents=True, exist_ok=True)
    paragraphs = [_add(top, pool, package, architecture) for package in archive.packages]
    write_index(top, archive, architecture, "\n".join(paragraphs), keyring)


def write_index(top: Path, archive: Archive, architecture: str, packages: str, keyring: Keyring) -> None:
    """Write the index of packages and the Release that vouches for it."""
    release = top / "dists" / archive.suite if archive.component else top
    below = f"{archive.component}/binary-{architecture}/" if archive.component else ""
    data = packages.encode()
    indices = {f"{below}Packages": data, f"{below}Packages.gz": gzip.compress(data, 1)}
    for name, content in indices.items():
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_bytes(content)
    sums = "".join(f" {hashlib.sha256(c).hexdigest()} {len(c)} {name}\n" for name, c in indices.items())
    names = f"Suite: {archive.suite}\nCodename: {archive.suite}\n" if archive.component else ""
    components = f"Components: {archive.component}\n" if archive.component else ""
    text = (
        f"Origin: {archive.origin}\nLabel: {archive.label}\n{names}Date: {formatdate(usegmt=True)}\n"
        f"Architectures: {architecture}\n{components}SHA256:\n{sums}"
    )
    (release / "Release").write_text(text, encoding="ascii")
    (release / "InRelease").write_text(keyring.sign(archive.key, text), encoding="ascii")


def _add(top: Path, pool: Path, package: Package, architecture: str) -> str:
    """Write one .deb; return its paragraph of the index."""
    deb = pool / package.file_name(architecture)
    if not deb.exists():
        _build(deb, package, architecture)
    content = deb.read_bytes()
    return package.control(architecture) + (
        f"Filename: {deb.relative_to(top)}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
    )


def _build(deb: Path, package: Package, architecture: str) -> None:
    with tempfile.TemporaryDirectory(dir=deb.parent) as directory:
        tree = Path(directory) / "tree"
        _lay_out(package, tree, architecture)
        run(["dpkg-deb", "--root-owner-group", "-Zzstd", "-z1", "--build", str(tree), str(deb)])


def _lay_out(package: Package, tree: Path, architecture: str) -> None:
    control = tree / "DEBIAN"
    control.mkdir(parents=True)
    tree.chmod(0o755)
    (control / "control").write_text(package.control(architecture), encoding="ascii")
    for name, script in package.scripts.items():
        (control / name).write_text(f"#!/bin/sh\nset -e\n{script}\n", encoding="ascii")
        (control / name).chmod(0o755)
    for name, file in package.files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.target:
            path.symlink_to(file.target)
            continue
        path.write_bytes(file.content)
        path.chmod(file.mode)
    conffiles = [f"/{path.relative_to(tree)}" for path in sorted((tree / "etc").rglob("*")) if path.is_file()]
    if conffiles:
        (control / "conffiles").write_text("".join(f"{name}\n" for name in conffiles), encoding="ascii")
