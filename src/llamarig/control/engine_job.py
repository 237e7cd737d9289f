"""How an engine image comes about on a host: what is run there, what that needs, and what the image must say."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llamarig.config.debian import KEYRING, MINIMAL_ROOT

UNTESTED: Final = "-untested"
ARCHIVE: Final = "source.tar.bz2"


@dataclass(frozen=True, slots=True)
class Job:
    """What a host runs to get an image.

    ``script`` is bash, run in a directory of its own that has ``files``. It names what it makes with ``UNTESTED``
    behind the image's name. ``says`` must be in what ``llama-server --version`` prints, ``version_file`` in the image's
    ``/version.json``; ``room`` is the kind of work whose room must be free, and ``source`` whether the source's archive
    must lie beside the script, as ``ARCHIVE``.
    """

    script: str
    packages: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    says: str = ""
    version_file: dict[str, Any] = field(default_factory=dict)
    room: str = ""
    source: bool = False


def job_for(engine: Mapping[str, Any], files: Mapping[str, str], mirror: str, keyring_packages: list[str]) -> Job:
    """Return what a host runs to make the image of ``engine``, as a plan has it.

    ``files`` are Dockerfile and entrypoint.sh, ``mirror`` is Debian's archive for the recipe debian-package.
    """
    if engine["recipe"] == "source":
        return _from_source(engine, files)
    if engine["recipe"] == "prebuilt":
        return _prebuilt(engine)
    return _from_package(engine, mirror, keyring_packages)


def pull_job(image: str, pushed: str) -> Job:
    """Return what a host runs to take ``image`` from the registry that a builder pushed it to, as ``pushed``."""
    return Job(_pull(pushed, image + UNTESTED), room="taken")


def remote_name(registry: str, image: str) -> str:
    """Return the name of an image in a site's registry: the last part of its repository, and its tag.

    >>> remote_name("registry.example:5000/llamarig/", "llamarig/llama-cpp:v0.7.0-cpu-0123456789ab")
    'registry.example:5000/llamarig/llama-cpp:v0.7.0-cpu-0123456789ab'
    """
    return f"{registry.rstrip('/')}/{image.rsplit('/', 1)[-1]}"


def room_for(room: Mapping[str, Mapping[str, int]], kind: str, backend: str) -> dict[str, int]:
    """Return the MiB that must be free, by place, for work of this kind; a backend may need more than another."""
    return dict(room.get(f"{kind}-{backend}") or room.get(kind) or {})


def _from_source(engine: Mapping[str, Any], files: Mapping[str, str]) -> Job:
    arguments: Mapping[str, str] = engine["arguments"]
    command = ["docker", "build", "--progress=plain", "--provenance=false", f"--tag={engine['image']}{UNTESTED}"]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    # JOBS is the host's to say: its value comes from the environment.
    command += ["--build-arg", "JOBS", "--build-arg", "CCACHE=ON", "context"]
    lines = [
        "rm -rf context",
        "mkdir -p context/source",
        f"python3 -m tarfile --filter data --extract {ARCHIVE} context/source",
        "cp Dockerfile entrypoint.sh context/",
        shlex.join(command),
    ]
    told = {
        "ref": arguments["REF"],
        "commit": arguments["COMMIT"],
        "version": arguments["VERSION"],
        "source": arguments["SOURCE_HASH"],
        "backend": engine["backend"],
        "architectures": list(engine["architectures"]),
    }
    return Job(
        _script(lines),
        packages=["docker-buildx"],
        files=dict(files),
        says=engine["says"],
        version_file=told,
        room="source",
        source=True,
    )


def _from_package(engine: Mapping[str, Any], mirror: str, keyring_packages: list[str]) -> Job:
    package = engine["package"]
    make = [
        *MINIMAL_ROOT,
        f"--include={','.join(package['packages'])}",
        '--customize-hook=rm -rf "$1"/etc/llama.cpp "$1"/var/cache/apt "$1"/var/lib/apt/lists',
        f"--keyring={KEYRING}",
        package["suite"],
        "root.tar",
        mirror,
    ]
    entrypoint = 'ENTRYPOINT ["/usr/bin/llama-server"]'
    label = f"LABEL llamarig.engine={engine['recipe']}"
    take = ["docker", "import", "--change", entrypoint, "--change", label, "root.tar", f"{engine['image']}{UNTESTED}"]
    return Job(
        _script(["rm -f root.tar", shlex.join(make), shlex.join(take)]),
        packages=["mmdebstrap", *keyring_packages],
        says=engine["says"],
        room="debian-package",
    )


def _prebuilt(engine: Mapping[str, Any]) -> Job:
    return Job(_pull(engine["prebuilt"]["image"], engine["image"] + UNTESTED), says=engine["says"], room="prebuilt")


def _pull(reference: str, name: str) -> str:
    # The name by which it was pulled goes: what is removed under its own name must be gone.
    commands = (["docker", "pull", reference], ["docker", "tag", reference, name], ["docker", "image", "rm", reference])
    return _script([shlex.join(command) for command in commands])


def _script(lines: list[str]) -> str:
    return "\n".join(["set -euxo pipefail", *lines, ""])
