"""The signed package archives of the lab, built once for their inputs and shared by the labs of a checkout."""

from __future__ import annotations

import fcntl
import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from llamarig.lab.machine import run
from llamarig.lab.silicon import binaries, docker
from llamarig.lab.silicon.debs import Archive, Keyring, write_archive, write_index
from llamarig.lab.silicon.drivers import OLD, Target, nvidia_packages, ubuntu_packages
from llamarig.lab.silicon.toolkit import toolkit_packages

Say = Callable[[str], None]


def build(directory: Path, image: str, say: Say) -> list[Path]:
    """Build the archives below ``directory`` where they are not there for these inputs; return where they are.

    ``image`` is the lab's base system, whose Docker is repackaged; without its mirror there is no such archive.
    """
    target = this_machine()
    directory.mkdir(parents=True, exist_ok=True)
    # Two labs of a checkout can come up at once; the second waits for what the first builds.
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        vendor = docker.build(directory, image, target.architecture, say)
        return [_build(directory, target, say), *([vendor] if vendor else [])]


def write_fingerprints(places: list[Path], directory: Path) -> None:
    """Write the fingerprint of every archive's key, which inventories of the lab read as they read any site's."""
    directory.mkdir(parents=True, exist_ok=True)
    for key in (key for place in places for key in (place / "keys").glob("*.asc")):
        rows = run(["gpg", "--batch", "--with-colons", "--show-keys", str(key)]).splitlines()
        fingerprint = next(row.split(":")[9] for row in rows if row.startswith("fpr:"))
        (directory / f"{key.stem}.fingerprint").write_text(fingerprint + "\n", encoding="ascii")


def _build(directory: Path, target: Target, say: Say) -> Path:
    place = directory / f"silicon-{_digest(target)}"
    if place.is_dir():
        return place
    say("building the signed package archives of the lab, about 3 s, once")
    for stale in directory.glob("silicon-*"):
        shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(prefix=".silicon-", dir=directory) as new:
        write(Path(new) / "archive", target, Keyring(directory / "secret"))
        (Path(new) / "archive").rename(place)
    return place


def this_machine() -> Target:
    """Return what the packages are made for."""
    architecture = run(["dpkg", "--print-architecture"])
    return Target(architecture, run(["gcc", "-print-multiarch"]), platform.release())


def archives(target: Target) -> list[Archive]:
    """Return the archives with what their Release files say of themselves."""
    toolkit = toolkit_packages(target.libraries)
    before = ubuntu_packages(target, [OLD])
    return [
        Archive("ubuntu", "noble", "restricted", "Ubuntu", "Ubuntu", ubuntu_packages(target), "ubuntu"),
        # The same archive on an earlier day: a host that has it meets the newer driver when it changes to noble.
        Archive("ubuntu", "noble-before", "restricted", "Ubuntu", "Ubuntu", before, "ubuntu"),
        Archive("nvidia", "/", "", "NVIDIA", "NVIDIA CUDA", nvidia_packages(target), "nvidia"),
        Archive("toolkit", "/", "", "https://github.com/NVIDIA/libnvidia-container", "nvidia", toolkit, "toolkit"),
    ]


def write(root: Path, target: Target, keys: Keyring) -> None:
    """Write all archives but Docker's, and the public halves of their keys."""
    (root / "keys").mkdir(parents=True)
    with keys as keyring:
        for archive in archives(target):
            public = root / "keys" / f"{archive.key}.asc"
            if not public.exists():
                public.write_text(keyring.make(archive.key), encoding="ascii")
            write_archive(root, archive, target.architecture, keyring)
        keyring.make("stranger")
        _write_unsigned(root, target, keyring)


def _write_unsigned(root: Path, target: Target, keyring: Keyring) -> None:
    """Write the toolkit's index once more, signed by a key that nobody has been given."""
    shutil.copytree(root / "toolkit", root / "unsigned")
    stranger = Archive("unsigned", "/", "", "stranger", "stranger", (), "stranger")
    packages = (root / "toolkit" / "Packages").read_text(encoding="ascii")
    write_index(root / "unsigned", stranger, target.architecture, packages, keyring)


def _digest(target: Target) -> str:
    """Return a hash of everything that goes in."""
    data = files("llamarig").joinpath("data", "lab", "silicon")
    sources = [str(path.relative_to(Path(__file__).parent)) for path in Path(__file__).parent.rglob("*.py")]
    return binaries.digest(repr(target), *sorted(entry.name for entry in data.iterdir()), *sorted(sources))
