"""GPUs through NVML, asked in a process of its own and with a time limit.

A call into a driver that hangs can be neither ended nor outlived by its own process: it waits in the kernel, deaf to
SIGKILL (open-gpu-kernel-modules issue 1333). A thread would keep the doctor from ending; a process is left behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from llamarig.hardware.gpus import TIMEOUT, UNKNOWN, Gpus, NvmlError, Reading, Setting, explained
from llamarig.hardware.nvml import Nvml

LIMIT_SECONDS: Final = 10.0
# How long a process that was killed gets to go; one that waits in the kernel stays until the driver lets it.
_GRACE_SECONDS: Final = 1.0
_PROGRAM: Final = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from llamarig.hardware.nvml_process import serve
serve()
"""


class NvmlProcess:
    """The cards, as :class:`Nvml` reads them, within ``limit_seconds``."""

    def __init__(self, limit_seconds: float = LIMIT_SECONDS) -> None:
        self.limit_seconds = limit_seconds

    def read(self) -> Reading:
        """Return what the cards say."""
        return Reading.from_dict(self._ask(None))

    def apply(self, setting: Setting) -> None:
        """Change one setting of one card."""
        self._ask(asdict(setting))

    def _ask(self, request: dict[str, Any] | None) -> Any:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-IS", "-c", _PROGRAM, json.dumps(sys.path)],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        try:
            out, err = process.communicate(json.dumps(request), timeout=self.limit_seconds)
        except subprocess.TimeoutExpired as error:
            _leave(process)
            silent = explained(TIMEOUT)
            meaning = f"{silent.meaning} within {self.limit_seconds:g} s"
            raise NvmlError(TIMEOUT, meaning, silent.remedy) from error
        try:
            answer = json.loads(out)
        except ValueError as error:
            raise _died(process.returncode, err) from error
        if "error" in answer:
            raise NvmlError(**answer["error"])
        return answer["result"]


def serve() -> None:
    """Answer the one request on stdin: null reads the cards, a setting is applied."""
    request = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {"result": _answer(Nvml(), request)}
    except NvmlError as error:
        answer = {"error": {"code": error.code, "meaning": error.meaning, "remedy": error.remedy}}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    # The driver's library may have threads and handlers of its own; none of them is waited for.
    os._exit(0)


def _answer(gpus: Gpus, request: dict[str, Any] | None) -> dict[str, Any] | None:
    if request is None:
        return gpus.read().to_dict()
    value = request["value"]
    gpus.apply(Setting(request["uuid"], request["key"], (value[0], value[1]) if isinstance(value, list) else value))
    return None


def _leave(process: subprocess.Popen[str]) -> None:
    """Kill a process that does not answer; where not even that ends it, leave it to init."""
    process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)


def _died(code: int, errors: str) -> NvmlError:
    """Say how the process ended that should have answered."""
    how = f"signal {-code}" if code < 0 else (errors.strip().splitlines() or [f"exit code {code}"])[-1]
    return explained(UNKNOWN, f"the process that asked it was ended by {how}")
