"""Whether a container can compute on the cards it is given.

cuInit is asked, not nvidia-smi: that program goes on working where no program can compute any more. The container's
image is empty, so that what it finds below /usr/lib is what the container device interface (CDI) put there; Python
comes from the host, mounted beside it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from llamarig.errors import LlamarigError
from llamarig.runtime.confinement import confined

IMAGE: Final = "llamarig/probe:1"
LIMIT_SECONDS: Final = 60.0
_REFRESH: Final = "sudo systemctl restart nvidia-cdi-refresh.service"
_REMEDIES: Final = (
    ("CDI", _REFRESH),
    ("error mounting", _REFRESH),
    ("Cannot connect", "sudo systemctl start docker.service"),
)
_DOCKER: Final = "/usr/bin/docker"
# Run in the container, by the host's Python: finds the injected driver, and asks it.
_PROGRAM: Final = """\
import ctypes, glob, json, os
answer = {"empty": not os.path.exists("/usr/bin/python3"), "library": None, "code": None, "cards": None}
found = [p for place in ("/usr/lib*", "/usr/lib/*-linux-gnu") for p in glob.glob(place + "/libcuda.so.*")]
if found:
    answer["library"] = max(found, key=len)
    try:
        cuda = ctypes.CDLL(answer["library"])
        count = ctypes.c_int(0)
        answer["code"] = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
        answer["cards"] = count.value
    except (OSError, AttributeError) as error:
        answer["error"] = str(error)
print(json.dumps(answer))
"""


class ProbeError(LlamarigError):
    """No container could be asked: Docker refuses, the device is unknown to it, or nothing answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What a container said: cuInit's or cuDeviceGetCount's ``code`` (0 is well), and how many cards CUDA sees.

    ``library`` is the libcuda that the container was given, None where it was given none; then the rest is None too.
    ``error`` says why it could not be loaded.
    """

    library: str | None
    code: int | None
    cards: int | None
    error: str = ""


class ContainerProbe(Protocol):
    """Asks from inside a container."""

    def compute(self, uuids: Sequence[str]) -> Computed:
        """Start a container with these cards and ask CUDA in it.

        Raises:
            ProbeError: no container could be asked.

        """


class DockerProbe:
    """The probe over the Docker command; a container for each question, as the engine's account."""

    def __init__(self, limit_seconds: float = LIMIT_SECONDS) -> None:
        self.limit_seconds = limit_seconds

    def compute(self, uuids: Sequence[str]) -> Computed:
        """Start a container with these cards and ask CUDA in it."""
        done = self._docker(run_command(uuids))
        if done.returncode != 0 and "No such image" in done.stderr:
            self._make_image()
            done = self._docker(run_command(uuids))
        if done.returncode != 0:
            remedy = next((helps for word, helps in _REMEDIES if word in done.stderr), "sudo docker info")
            raise ProbeError(f"no container starts with the cards: {_reason(done.stderr)}", remedy)
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            msg = f"the container answered {done.stdout.strip()[-200:]!r}"
            raise ProbeError(msg, "sudo llamarig doctor") from error
        if not answer.pop("empty"):
            raise ProbeError(f"{IMAGE} is not llamarig's empty image", f"docker rmi {IMAGE}: the doctor makes it anew")
        return Computed(**answer)

    def _make_image(self) -> None:
        empty = io.BytesIO()
        tarfile.open(fileobj=empty, mode="w").close()
        command = [_DOCKER, "import", "--change", "LABEL llamarig.engine=probe", "-", IMAGE]
        done = self._docker(command, empty.getvalue())
        if done.returncode != 0:
            raise ProbeError(f"the empty image {IMAGE} cannot be made: {_reason(done.stderr)}", "sudo docker info")

    def _docker(self, command: Sequence[str], content: bytes = b"") -> subprocess.CompletedProcess[str]:
        try:
            done = subprocess.run(command, input=content, capture_output=True, check=False, timeout=self.limit_seconds)
        except FileNotFoundError as error:
            raise ProbeError(f"{_DOCKER} is not there", "run playbooks/site.yml for this host") from error
        except subprocess.TimeoutExpired as error:
            remove = [_DOCKER, "rm", "--force", _name()]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(remove, capture_output=True, check=False, timeout=self.limit_seconds)
            msg = f"the container did not answer within {self.limit_seconds:g} s"
            raise ProbeError(msg, "journalctl --dmesg --grep NVRM; where the driver hangs, reboot the host") from error
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )


def run_command(uuids: Sequence[str]) -> list[str]:
    """Return the ``docker run`` that asks for these cards."""
    libraries = f"usr/lib/{platform.machine()}-linux-gnu"
    loader = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}.get(platform.machine(), "")
    return [
        *(_DOCKER, "run", "--rm", *confined(_name(), uuids)),
        *("--volume", "/usr:/host/usr:ro", "--env", "PYTHONHOME=/host/usr", IMAGE),
        *(f"/host/{libraries}/{loader}", "--library-path", f"/{libraries}:/host/{libraries}"),
        *("/host/usr/bin/python3", "-S", "-B", "-c", _PROGRAM),
    ]


def _name() -> str:
    return f"llamarig-probe-{os.getpid()}"


def _reason(text: str) -> str:
    """Return what Docker says is wrong, without the programs it went through and its hint at --help."""
    lines = [line for line in text.strip().splitlines() if line.strip() and "docker run --help" not in line]
    said = lines[-1] if lines else "Docker says nothing"
    return re.sub(
        r"^docker: (Error response from daemon: )?(.*(create failed|container process|container init): )?", "", said
    )
