"""Which service a process belongs to, by the slice that its container is in. Needs no Docker socket."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_PREFIX = "llama-"
_SUFFIX = ".slice"
# Of systemd's cgroups and of Docker's own.
_CONTAINER: Final = re.compile(
    r"/llama-([a-z0-9-]+)\.slice/(?:docker-)?[0-9a-f]{64}(?:\.scope)?(?:/.*)?$", re.MULTILINE
)


def contained_by(pid: int, root: Path = Path("/")) -> str | None:
    """Return the service in whose container a process is; the process of the service's unit is in none."""
    try:
        text = (root / f"proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = _CONTAINER.search(text)
    return found[1] if found else None


def service_of(pid: int, root: Path = Path("/")) -> str | None:
    """Return the service whose slice a process is in, None for any other process and for one that is gone.

    Slices of systemd are nested at each dash: the one that counts is the innermost.
    """
    try:
        text = (root / f"proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        slices = [part for part in line.split(":", 2)[-1].split("/") if part.endswith(_SUFFIX)]
        # Below their own slice users name slices as they like.
        if slices and slices[0] != "user.slice" and slices[-1].startswith(_PREFIX):
            return slices[-1].removeprefix(_PREFIX).removesuffix(_SUFFIX)
    return None
