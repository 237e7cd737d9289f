"""The agent's release: package and locked dependencies for one Python and machine, built without the host's help."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Final

from llamarig import __version__
from llamarig.errors import LlamarigError

# What a room is made of, the parts of the page too.
_SUFFIXES: Final = frozenset({".css", ".html", ".js", ".py", ".typed"})
# What the release does not carry: rooms of the control node. Of data it has the engine's options, for explain.
_LEFT_OUT: Final = ("control", "lab", "planning", "data")
_LAUNCHER: Final = """\
#!/usr/bin/python3 -IS
import os, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "lib"))
from llamarig.{module} import main
main()
"""
# The programs of a release, and the module whose main they run.
_PROGRAMS: Final = {"llamarig": "cli.main", "llamarigd": "daemon.main", "llamarig-exporter": "exporter.main"}


class ReleaseError(LlamarigError):
    """The release cannot be built."""


class Release:
    """One release; its name is the first 12 digits of the hash of all its inputs."""

    def __init__(self, root: Path, *, python: str, machine: str) -> None:
        self.root = root
        self.python = python
        self.machine = machine

    @property
    def lock(self) -> Path:
        """The hash-locked requirements for this Python.

        Raises:
            ReleaseError: there are none for it.

        """
        path = self.root / "requirements" / f"agent-py{self.python.replace('.', '')}.txt"
        if not path.exists():
            msg = f"the agent has no locked requirements for Python {self.python}"
            raise ReleaseError(msg, "supported hosts have Python 3.12 (Ubuntu 24.04) or 3.13 (Debian 13)")
        return path

    @cached_property
    def sources(self) -> list[Path]:
        """Every file of the package that goes into the release."""
        package = self.root / "src" / "llamarig"
        found = [path for path in package.rglob("*") if path.suffix in _SUFFIXES and path.is_file()]
        kept = [path for path in found if path.relative_to(package).parts[0] not in _LEFT_OUT]
        return sorted([*kept, *(package / "data" / "llama-server-help").glob("*.txt")])

    @cached_property
    def name(self) -> str:
        """First 12 digits of the hash over lock, sources, launcher, Python and machine."""
        digest = hashlib.sha256(f"{self.python} {self.machine}\n{_LAUNCHER}{_PROGRAMS}".encode())
        digest.update(self.lock.read_bytes())
        for path in self.sources:
            digest.update(f"{path.relative_to(self.root)}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:12]

    def build(self) -> tuple[Path, str]:
        """Return the archive and its sha256; built once, also when several hosts ask at the same time.

        Raises:
            ReleaseError: a wheel is missing or its hash is wrong.

        """
        store = self.root / ".cache" / "releases"
        store.mkdir(parents=True, exist_ok=True)
        archive = store / f"llamarig-{self.name}.tar.gz"
        with (store / "lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            if not archive.exists():
                with tempfile.TemporaryDirectory(dir=store) as directory:
                    self._assemble(Path(directory))
                    self._pack(Path(directory), archive)
        return archive, hashlib.sha256(archive.read_bytes()).hexdigest()

    def _assemble(self, directory: Path) -> None:
        library = directory / "lib"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        command += ["--target", str(library), "--require-hashes", "--no-deps", "--only-binary=:all:"]
        command += ["--implementation", "cp", "--python-version", self.python]
        for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014"):
            command += ["--platform", f"{tag}_{self.machine}"]
        done = subprocess.run([*command, "-r", str(self.lock)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            msg = f"the agent's dependencies could not be installed: {done.stderr.strip()[-1000:]}"
            raise ReleaseError(msg, "check that this control node reaches its package index")
        shutil.rmtree(library / "bin", ignore_errors=True)
        for path in self.sources:
            target = library / path.relative_to(self.root / "src")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (library / "llamarig" / "_release.py").write_text(
            f'"""Written by the build."""\n\nRELEASE = "{self.name}"\n', encoding="ascii"
        )
        for program, module in _PROGRAMS.items():
            launcher = directory / "bin" / program
            launcher.parent.mkdir(exist_ok=True)
            launcher.write_text(_LAUNCHER.format(module=module), encoding="ascii")
            launcher.chmod(0o755)

    def _pack(self, directory: Path, archive: Path) -> None:
        """Pack reproducibly: sorted names, no times, no owners."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path in sorted(directory.rglob("*")):
                info = tar.gettarinfo(str(path), str(path.relative_to(directory)))
                info.uid = info.gid = info.mtime = 0
                info.uname = info.gname = "root"
                info.mode = 0o755 if path.is_dir() or info.mode & 0o100 else 0o644
                if path.is_file():
                    with path.open("rb") as stream:
                        tar.addfile(info, stream)
                else:
                    tar.addfile(info)
        temporary = archive.with_suffix(".part")
        temporary.write_bytes(gzip.compress(buffer.getvalue(), mtime=0))
        temporary.replace(archive)

    def __str__(self) -> str:
        return f"llamarig {__version__} ({self.name})"
