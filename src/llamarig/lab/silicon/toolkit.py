"""Stand-ins of NVIDIA's container toolkit: four packages that demand each other's exact version since 1.18."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from llamarig.lab.silicon import binaries
from llamarig.lab.silicon.debs import File, Package

VERSIONS: Final = ("1.17.7", "1.19.1", "1.20.0")
_UNITS: Final = ("nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path")
# As the real package does: enabled at once where systemd runs, and a refusal is only a warning.
_ENABLE: Final = """\
if [ "$1" = configure ] && systemctl --quiet is-system-running 2>/dev/null; then
  systemctl daemon-reload || echo "Warning: Failed to reload systemd daemon" >&2
  systemctl enable --now nvidia-cdi-refresh.path || echo "Warning: Failed to enable nvidia-cdi-refresh.path" >&2
  systemctl enable --now nvidia-cdi-refresh.service || echo "Warning: Failed to enable nvidia-cdi-refresh.service" >&2
fi"""
_DISABLE: Final = """\
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  systemctl disable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service || true
fi"""


def toolkit_packages(libraries: str) -> list[Package]:
    """Return the four packages in every version; ``libraries`` is where the driver's libraries are."""
    return [package for version in VERSIONS for package in _release(version, libraries)]


def _release(version: str, libraries: str) -> Iterator[Package]:
    has_refresh = tuple(int(part) for part in version.split(".")) >= (1, 18, 0)
    relation = "=" if has_refresh else ">="

    def on(*names: str) -> dict[str, str]:
        return {"Depends": ", ".join(f"{name} ({relation} {version}-1)" for name in names)}

    ctk = binaries.script("ctk", VERSION=version, LIBRARIES=f"/{libraries}")
    files = {"usr/bin/nvidia-ctk": File(ctk, 0o755)}
    scripts = {}
    if has_refresh:
        files |= {f"usr/lib/systemd/system/{unit}": File(binaries.data(unit).encode()) for unit in _UNITS}
        environment = File(binaries.data("nvidia-cdi-refresh.env").encode())
        files["etc/nvidia-container-toolkit/nvidia-cdi-refresh.env"] = environment
        scripts = {"postinst": _ENABLE, "prerm": _DISABLE}
    full = f"{version}-1"
    yield Package("nvidia-container-toolkit-base", full, {"Depends": "python3"}, files, scripts)
    yield Package("libnvidia-container1", full)
    yield Package("libnvidia-container-tools", full, on("libnvidia-container1"))
    yield Package("nvidia-container-toolkit", full, on("nvidia-container-toolkit-base", "libnvidia-container-tools"))
