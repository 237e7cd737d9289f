"""Engines as Docker has them: images and who uses them; their programs, run in containers of llamarig's own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from llamarig.errors import LlamarigError
from llamarig.runtime.confinement import Container, docker_said, engine_words

REPOSITORY: Final = "llamarig/llama-cpp"
DOCKER: Final = "/usr/bin/docker"
# Of a program that a container's image does not have, and of one that its user may not run.
NO_PROGRAM: Final = (126, 127)
_DOCKER_FAILED: Final = 125
# Docker answers within a second; a busy disk makes it slower when containers go.
_ANSWER_SECONDS: Final = 60.0


class DockerError(LlamarigError):
    """Docker is not there, does not answer, or refuses."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its name, its id, bytes on disk (shared layers counted in each), and its labels."""

    name: str
    id: str
    bytes: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """How a program in a container ended; ``code`` is None where it ran out of time and was ended."""

    code: int | None
    out: str
    err: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Life:
    """A container: whether it runs, what it ended with, and whether the kernel ended it for its memory."""

    running: bool
    code: int
    out_of_memory: bool


class Docker:
    """Docker, over its command."""

    def __init__(self, command: str = "") -> None:
        self.command = command or DOCKER

    def images(self, repository: str = REPOSITORY) -> list[Image]:
        """Return the tagged images of a repository, by name.

        Raises:
            DockerError: Docker does not say.

        """
        listed = self._call(["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository]).split()
        found = [self.image(name) for name in sorted(set(listed)) if not name.endswith(":<none>")]
        return [image for image in found if image is not None]

    def image(self, name: str) -> Image | None:
        """Return one image by name or id, None where it is not here.

        Raises:
            DockerError: Docker does not say.

        """
        done = self._run(["image", "inspect", name])
        if done.returncode != 0:
            if "no such image" in done.stderr.lower():
                return None
            raise _refused(done.stderr)
        said: dict[str, Any] = json.loads(done.stdout)[0]
        labels = (said.get("Config") or {}).get("Labels") or {}
        return Image(name, str(said["Id"]), int(said["Size"]), labels)

    def in_use(self) -> dict[str, list[str]]:
        """Return which containers, running or not, are of which image, by the image's id.

        Raises:
            DockerError: Docker does not say.

        """
        found: dict[str, list[str]] = {}
        containers = self._call(["ps", "--all", "--quiet", "--no-trunc"]).split()
        if containers:
            # One may be gone by now: what the others say is printed all the same.
            said = self._run(["inspect", "--format", "{{.Image}} {{.Name}}", *containers]).stdout
            for line in said.splitlines():
                image, name = line.split(maxsplit=1)
                found.setdefault(image, []).append(name.lstrip("/"))
        return found

    def remove_image(self, name: str) -> None:
        """Remove an image by its name; layers that others share stay.

        Raises:
            DockerError: Docker refuses.

        """
        self._call(["image", "rm", name])

    def run(self, container: Container, limit_seconds: float) -> Done:
        """Run a program of the engine to its end; one that takes too long is ended.

        Raises:
            DockerError: no container starts.

        """
        start = time.monotonic()
        try:
            done = self._run(["run", "--rm", *engine_words(container)], limit_seconds)
        except subprocess.TimeoutExpired as error:
            self.remove(container.name)
            return Done(None, _text(error.stdout), _text(error.stderr), time.monotonic() - start)
        if done.returncode == _DOCKER_FAILED:
            raise _refused(done.stderr)
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - start)

    def start(self, container: Container) -> None:
        """Start a program of the engine that stays; :meth:`remove` ends it.

        Raises:
            DockerError: no container starts.

        """
        self._call(["run", "--detach", *engine_words(container)])

    def port(self, name: str) -> int:
        """Return the port of the host that a container's port 8080 is published on.

        Raises:
            DockerError: it has none, or runs no more.

        """
        return int(self._call(["port", name, "8080/tcp"]).splitlines()[0].rsplit(":", 1)[1])

    def life(self, name: str) -> Life:
        """Return whether a container runs, and how it ended.

        Raises:
            DockerError: there is no such container.

        """
        said = json.loads(self._call(["inspect", "--format", "{{json .State}}", name]))
        return Life(bool(said["Running"]), int(said["ExitCode"]), bool(said["OOMKilled"]))

    def log(self, name: str, lines: int) -> list[str]:
        """Return the last lines that a container wrote, its errors after its output."""
        done = self._run(["logs", "--tail", str(lines), name])
        return [*done.stdout.splitlines(), *done.stderr.splitlines()]

    def labelled(self, label: str) -> list[str]:
        """Return the names of all containers with a label.

        Raises:
            DockerError: Docker does not say.

        """
        return self._call(["ps", "--all", "--format", "{{.Names}}", "--filter", f"label={label}"]).split()

    def remove(self, *names: str) -> None:
        """End and remove containers; those that are gone already are no trouble."""
        if names:
            self._run(["rm", "--force", "--volumes", *names])

    def _call(self, words: Sequence[str]) -> str:
        done = self._run(words)
        if done.returncode != 0:
            raise _refused(done.stderr)
        return done.stdout

    def _run(self, words: Sequence[str], limit_seconds: float | None = None) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self.command, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=limit_seconds or _ANSWER_SECONDS,
            )
        except FileNotFoundError as error:
            raise DockerError(f"{self.command} is not there", "run playbooks/site.yml for this host") from error
        except subprocess.TimeoutExpired as error:
            if limit_seconds is not None:
                raise
            msg = f"docker {words[0]} did not answer within {_ANSWER_SECONDS:g} s"
            raise DockerError(msg, "sudo systemctl status docker.service") from error


def _refused(text: str) -> DockerError:
    said = docker_said(text)
    if "permission denied" in said.lower():
        return DockerError(f"Docker refuses this user: {said}", "ask as root: sudo llamarig …")
    if "CDI" in said or "nvidia.com/gpu" in said:
        return DockerError(f"Docker refuses: {said}", "sudo llamarig doctor: see checks compute and cdi")
    return DockerError(f"Docker refuses: {said}", "sudo docker info")


def _text(output: bytes | str | None) -> str:
    """Return what a program had written when its time was over, which Python hands over as bytes."""
    if isinstance(output, bytes):
        return output.decode(errors="replace")
    return output or ""
