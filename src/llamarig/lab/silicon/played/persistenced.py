"""A played nvidia-persistenced: holds the cards open; with persistence mode unless told not to.

Runs on the lab host with nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Final

_RUN: Final = Path("/run/nvidia-persistenced")


def main(arguments: list[str]) -> int:
    """Start the daemon; return the exit status of the starter."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return _refuse("libnvidia-ml.so.1 is not installed")
    if code := nvml.nvmlInit_v2():
        return _refuse(f"NVML error {code}")
    _RUN.mkdir(exist_ok=True)
    if os.fork():
        return 0
    os.setsid()
    (_RUN / "nvidia-persistenced.pid").write_text(f"{os.getpid()}\n", encoding="ascii")
    mode = "--no-persistence-mode" not in arguments
    if mode:
        _set_persistence(nvml, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        signal.pause()
    finally:
        if mode:
            _set_persistence(nvml, 0)
    return 0


def _set_persistence(nvml: ctypes.CDLL, mode: int) -> None:
    count = ctypes.c_uint()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for index in range(count.value):
        device = ctypes.c_void_p()
        if not nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)):
            nvml.nvmlDeviceSetPersistenceMode(device, mode)


def _refuse(why: str) -> int:
    print(f"nvidia-persistenced failed to initialize: {why}. Check syslog for more details.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
