"""Where llamarig's things are on a host. Fixed: agent, roles and people meet here (docs/reference/files-on-host.md)."""

from __future__ import annotations

from typing import Final

ETC: Final = "/etc/llamarig"
SPECS: Final = f"{ETC}/services.d"
COMPOSE: Final = f"{ETC}/compose"
KEYS: Final = f"{ETC}/keys"
HOST_FILE: Final = f"{ETC}/host.json"
HARDWARE_FILE: Final = f"{ETC}/hardware.json"
UNITS: Final = "/etc/systemd/system"
STATE: Final = "/var/lib/llamarig"
RUNNING: Final = "/run/llamarig/running"
RELEASES: Final = "/opt/llamarig/releases"
CURRENT: Final = "/opt/llamarig/current"
LIBEXEC: Final = "/usr/local/lib/llamarig"
CONTAINER_MODELS: Final = "/models"
CONTAINER_KEY: Final = "/run/secrets/api_key"
ENGINE_UID: Final = 788


def unit(service: str) -> str:
    """Name of the systemd unit that runs a service."""
    return f"llama-{service}.service"


def slice_unit(service: str) -> str:
    """Name of the slice that is the cgroup parent of a service's container."""
    return f"llama-{service}.slice"


def container(service: str) -> str:
    """Name of the container of a service."""
    return f"llama-{service}"
