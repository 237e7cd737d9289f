"""When services come and go by themselves. Part of the host file: written by the planner, read by the daemon.

Plain dataclasses, as the spec's are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

MINUTE: Final = 60
HUNG_SECONDS: Final = 120
CRASH_LIMIT: Final = 5
CRASH_WINDOW_MINUTES: Final = 15


@dataclass(frozen=True, slots=True)
class Residency:
    """How long one service stays.

    Attributes:
        pinned: whether it is never made to leave for another.
        idle_seconds: after so long without a request it leaves, and the default service returns; None for never.

    """

    pinned: bool = False
    idle_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How long the services of a host stay, and when one of them counts as broken.

    Attributes:
        default_service: the one that serves when nobody chose another; None on a host without services.
        services: of each service, how long it stays.
        minimum_seconds: how long a service serves at least before another can make it leave.
        hung_seconds: after so long without a token or any other sign of work, an engine with requests counts as hung.
        crash_limit: how often an engine may end by itself within the window before it is given up.
        crash_window_seconds: the window.

    """

    default_service: str | None = None
    services: Mapping[str, Residency] = field(default_factory=dict)
    minimum_seconds: int = 0
    hung_seconds: int = HUNG_SECONDS
    crash_limit: int = CRASH_LIMIT
    crash_window_seconds: int = CRASH_WINDOW_MINUTES * MINUTE

    def of(self, service: str) -> Residency:
        """Return how long a service stays; one that the policy does not know stays as any other."""
        return self.services.get(service, Residency())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        values = {name: getattr(self, name) for name in _names()}
        return {**values, "services": {name: asdict(stay) for name, stay in self.services.items()}}

    @classmethod
    def from_dict(cls, data: Any) -> Policy:
        """Build it from its JSON; what is missing is as usual, and keys of a newer version are ignored.

        Raises:
            ValueError: it is no policy.

        """
        if not isinstance(data, dict) or not isinstance(data.get("services", {}), dict):
            msg = "the policy is no JSON object, or its services are none"
            raise ValueError(msg)  # noqa: TRY004  one kind of error for a file that cannot be used
        values = {name: data[name] for name in _names() if name in data}
        values["services"] = {name: _residency(stay) for name, stay in data.get("services", {}).items()}
        default = values.get("default_service")
        if default is not None and not isinstance(default, str):
            msg = f"the policy's default_service is {default!r}, which is no name"
            raise ValueError(msg)
        for name in ("minimum_seconds", "hung_seconds", "crash_limit", "crash_window_seconds"):
            _whole(name, values.get(name, 0))
        return cls(**values)


def _names() -> list[str]:
    return [item.name for item in fields(Policy)]


def _residency(data: Any) -> Residency:
    if not isinstance(data, dict):
        msg = f"a service's residency is {data!r}, which is no JSON object"
        raise ValueError(msg)  # noqa: TRY004
    idle, pinned = data.get("idle_seconds"), data.get("pinned", False)
    if idle is not None:
        _whole("idle_seconds", idle)
    if not isinstance(pinned, bool):
        msg = f"pinned is {pinned!r}, which is neither true nor false"
        raise ValueError(msg)  # noqa: TRY004
    return Residency(pinned, idle)


def _whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        msg = f"the policy's {name} is {value!r}, which is no whole number"
        raise ValueError(msg)
