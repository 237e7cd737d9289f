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
# Of the daemon alone; what lies beside it below STATE is root's.
DAEMON_STATE: Final = f"{STATE}/daemon"
# What every service was ever started with, by spec hash; written by root as a unit starts.
VERSIONS: Final = f"{STATE}/versions"
RUN: Final = "/run/llamarig"
LOCK: Final = f"{RUN}/lock"
RUNNING: Final = f"{RUN}/running"
# One directory for each service, in which its engine listens.
ENGINES: Final = f"{RUN}/engines"
# One directory for each service: the version that its unit starts with, and whether its engine may begin.
GATES: Final = f"{RUN}/gates"
# One link for each port that is open, to the socket of the engine that serves there.
DOOR: Final = f"{RUN}/door"
DOOR_STATS: Final = "/run/llamarig-door/stats.sock"
DOOR_FILE: Final = f"{ETC}/door.cfg"
# Where the daemon is asked: by root and the group llamarig, and by everybody on the host.
MANAGE_SOCKET: Final = f"{RUN}/api/manage.sock"
READ_SOCKET: Final = f"{RUN}/api/read.sock"
DAEMON_FILE: Final = f"{ETC}/daemon.json"
EXPORTER_FILE: Final = f"{ETC}/exporter.json"
API_KEYS_FILE: Final = f"{ETC}/api-keys.json"
RELEASES: Final = "/opt/llamarig/releases"
CURRENT: Final = "/opt/llamarig/current"
LIBEXEC: Final = "/usr/local/lib/llamarig"
CONTAINER_MODELS: Final = "/models"
CONTAINER_KEY: Final = "/run/secrets/api_key"
CONTAINER_RUN: Final = "/run/llamarig"
CONTAINER_SOCKET: Final = f"{CONTAINER_RUN}/server.sock"
CONTAINER_GATE: Final = "/run/gate"
ENGINE_UID: Final = 788
DAEMON_USER: Final = "llamarig"
DOOR_USER: Final = "llamarig-door"


def unit(service: str) -> str:
    """Name of the systemd unit that runs a service."""
    return f"llama-{service}.service"


def slice_unit(service: str) -> str:
    """Name of the slice that is the cgroup parent of a service's container."""
    return f"llama-{service}.slice"


def container(service: str) -> str:
    """Name of the container of a service."""
    return f"llama-{service}"


def engine_socket(service: str) -> str:
    """Where a service's engine listens; made by the engine itself, in a directory of its own."""
    return f"{ENGINES}/{service}/server.sock"


def door_link(port: int) -> str:
    """Link through which the door reaches whoever serves on a port; there is none while nobody may be reached."""
    return f"{DOOR}/{port}.sock"
