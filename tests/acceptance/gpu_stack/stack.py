"""What the tests of the GPU stack ask a box for."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.box import Box

NEW, OLD = "580.95.05", "580.82.07"
# The cards of fresh.
CARD, OTHER = "GPU-d1010e2b-9cee-53cc-8f77-ed1bde164f56", "GPU-d90498b4-7d59-510b-95f3-20fa6bca3f53"
TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
PROBE = (
    "import ctypes, glob; "
    "cuda = ctypes.CDLL(glob.glob('/usr/lib/*/libcuda.so.*')[0]); "
    "count = ctypes.c_int(); "
    "print(cuda.cuInit(0), cuda.cuDeviceGetCount(ctypes.byref(count)), count.value)"
)


def packages(box: Box) -> dict[str, str]:
    """Return every installed package with its version."""
    rows = box.run("dpkg-query --show --showformat='${db:Status-Status} ${Package} ${Version}\\n'").splitlines()
    return {name: version for state, name, version in (row.split(" ", 2) for row in rows) if state == "installed"}


def held(box: Box) -> set[str]:
    return set(box.run("apt-mark showhold").split())


def driver(box: Box) -> tuple[str, str, str]:
    """Return the versions of the module loaded, of the module on disk, and of the user space."""
    loaded = box.run("cat /sys/module/nvidia/version", check=False)
    on_disk = box.run("/usr/sbin/modinfo --field version nvidia", check=False)
    library = box.run("readlink /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", check=False)
    return loaded, on_disk, library.removeprefix("libnvidia-ml.so.")


def checks(box: Box) -> dict[str, dict[str, Any]]:
    """Return the doctor's checks by name."""
    return {check["name"]: check for check in box.llamarig("doctor")["data"]["checks"]}


def boots(box: Box) -> str:
    return box.run("systemctl show --property=UserspaceTimestampMonotonic --value")


def in_container(box: Box, name: str) -> str:
    """Ask a running container whether it can compute: cuInit, cuDeviceGetCount, and how many cards."""
    loader = "/host/usr/lib64/ld-linux-x86-64.so.2 --library-path /host/usr/lib/x86_64-linux-gnu"
    program = json.dumps(PROBE)
    return box.run(f"sudo docker exec --env PYTHONHOME=/host/usr {name} {loader} /host/usr/bin/python3 -c {program}")
