"""The engine's Dockerfile outside of Ansible: its options for CMake, bases without a registry, and a build of it."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from llamarig.lab import machine
from llamarig.lab.machine import LabError, run
from llamarig.lab.models import Say

TEMPLATES: Final = Path(__file__).resolve().parents[3] / "templates/llama_image"
BINARIES: Final = "/opt/llama.cpp/bin"
# What the build installs where its base lacks it, and what the runtime does.
BUILD_PACKAGES: Final = ("g++", "cmake", "ninja-build", "libssl-dev", "ccache")
RUNTIME_PACKAGES: Final = ("libssl3t64", "libgomp1", "libstdc++6", "ca-certificates")
_OPTIONS: Final = re.compile(r"^ *set -- \\\n((?: +-D.*\\\n)+ +-D[^\n]*);", re.MULTILINE)
_VARIABLE: Final = re.compile(r"\$([A-Za-z_]+)")
_OWN_BUILDKIT: Final = 23  # from this version on the command needs buildx for BuildKit
_STEP_SAID: Final = re.compile(r"^#\d+ \d+\.\d+ (.*)$", re.MULTILINE)
_LINES: Final = 30


def cmake_options(dockerfile: str, variables: Mapping[str, str]) -> list[str]:
    """Return the options that a Dockerfile gives to CMake.

    Args:
        dockerfile: its text.
        variables: the shell's variables in that line; ``$ORIGIN`` is the linker's.

    Raises:
        LabError: there is no such line, or it has a variable that is not given.

    """
    found = _OPTIONS.search(dockerfile)
    if found is None:
        raise LabError("the Dockerfile has no `set -- -D…` with CMake's options")
    known = {"ORIGIN": "$ORIGIN", **variables}

    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise LabError(f"CMake's options name ${match[1]}, which is not given")
        return known[match[1]]

    words = shlex.split(found[1].replace("\\\n", " "))
    return [_VARIABLE.sub(value, word) for word in words]


def ensure_bases(say: Say) -> tuple[str, str]:
    """Return two images that the CPU's engine can be built with and made on, without a network from then on.

    They are what lab hosts are made of (Ubuntu 24.04 on Ubuntu, Debian 13 elsewhere), from this machine's own archive.

    Raises:
        LabError: docker or mmdebstrap is missing, or the archive does not answer.

    """
    machine.ensure_docker()
    base = machine.base()
    return _ensure_base("build", base, BUILD_PACKAGES, say), _ensure_base("runtime", base, RUNTIME_PACKAGES, say)


def buildkit_docker() -> str:
    """Return a docker command that can build with BuildKit: one before 23, or one with buildx.

    Raises:
        LabError: there is none.

    """
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        command = str(Path(folder) / "docker")
        if not os.access(command, os.X_OK):
            continue
        version = run([command, "version", "--format", "{{.Client.Version}}"], check=False)
        buildx = subprocess.run([command, "buildx", "version"], capture_output=True, check=False).returncode == 0
        if buildx or int(version.partition(".")[0] or _OWN_BUILDKIT) < _OWN_BUILDKIT:
            return command
    raise LabError("no docker here can build with BuildKit", "apt-get install docker-buildx (or docker-buildx-plugin)")


def build(source: Path, image: str, arguments: Mapping[str, str], *, cache: bool = True) -> None:
    """Build the engine's image from a tree of llama.cpp.

    Args:
        source: the tree; what a copy of it would have for times does not matter, so it gets new ones.
        image: the name that the image gets.
        arguments: of the Dockerfile, as the plan gives them.
        cache: whether steps of earlier builds may be taken, and what ccache kept.

    Raises:
        LabError: the build failed; the message ends with what the failed step said last.

    """
    if not cache:
        arguments = {**arguments, "CCACHE": "OFF"}
    with tempfile.TemporaryDirectory(prefix="llamarig-engine-") as name:
        context = Path(name)
        shutil.copytree(source, context / "source", symlinks=True, copy_function=shutil.copyfile)
        for file in ("Dockerfile", "entrypoint.sh"):
            shutil.copyfile(TEMPLATES / file, context / file)
        given = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        command = [buildkit_docker(), "build", "--progress", "plain", "--tag", image, *given]
        done = subprocess.run(
            [*command, *([] if cache else ["--no-cache"]), name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**os.environ, "DOCKER_BUILDKIT": "1"},
        )
    if done.returncode != 0:
        # What a step said, without docker's echo of the whole step.
        said = _STEP_SAID.findall(done.stdout) or done.stdout.splitlines()
        raise LabError("the engine's image cannot be built:\n" + "\n".join(said[-_LINES:]))


def cpu_arguments(version: str, commit: str, epoch: int, bases: tuple[str, str]) -> dict[str, str]:
    """Return the Dockerfile's arguments for the CPU, of a source whose commit stands for its bytes."""
    return {
        "BACKEND": "cpu",
        "BUILD_IMAGE": bases[0],
        "RUNTIME_IMAGE": bases[1],
        "ARCHITECTURES": "",
        "FA_ALL_QUANTS": "OFF",
        "REF": f"v{version}",
        "COMMIT": commit,
        "VERSION": version,
        "BUILD_NUMBER": "0",
        "IS_RELEASE": "ON",
        "SOURCE_DATE_EPOCH": str(epoch),
        "SOURCE_HASH": commit,
        "APT_SNAPSHOT": "",
    }


def _ensure_base(purpose: str, base: machine.Base, packages: tuple[str, ...], say: Say) -> str:
    digest = hashlib.sha256(repr((base, packages)).encode()).hexdigest()[:12]
    image = f"llamarig-base-{purpose}:{base.suite}-{digest}"
    if run(["docker", "image", "ls", "--quiet", image]):
        return image
    machine.need_mmdebstrap()
    say(f"making the base image for {purpose} ({base.suite} from {base.mirror}), about 1 min, once")
    with tempfile.TemporaryDirectory(prefix="llamarig-base-") as name:
        tar = Path(name) / "image.tar"
        machine.minimal_root(tar, base, packages)
        run(["docker", "import", "--change", "LABEL llamarig.base=1", str(tar), image])
    return image
