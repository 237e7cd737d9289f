"""Everything that one host's plan is made from."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from llamarig.config.address import EXPORTER_PORT, MANAGEMENT_PORT
from llamarig.config.engine import Engine
from llamarig.config.policy import CRASH_LIMIT, CRASH_WINDOW_MINUTES, HUNG_SECONDS
from llamarig.config.records import Allowed, Hardware, Minutes, Port, Record, ServerValue, Service

# A prompt of any length shows progress in less.
_LEAST_HUNG: Final = 10


class HostIntent(Record):
    """Everything one host's plan is made from."""

    host: str = Field(description="The host's name in the inventory.")
    hardware: Hardware = Field(description="The declared side of the host. Planning reads this and never the host.")
    services: list[Service] = Field(
        description="What the host can run. Those on one port take turns; others serve together where they fit."
    )
    default_service: str | None = Field(
        default=None,
        description="The service that serves when nobody chose another; without it, the first of the list.",
    )
    minimum_minutes: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="How many minutes a service serves at least before another makes it leave; `--now` overrules it.",
    )
    hung_seconds: Annotated[int, Field(ge=_LEAST_HUNG)] = Field(
        default=HUNG_SECONDS,
        description=(
            "After so many seconds without a token or any other sign of work, an engine that has requests counts as"
            " hung, and is started anew."
        ),
    )
    crash_limit: Annotated[int, Field(ge=1)] = Field(
        default=CRASH_LIMIT,
        description=(
            "How often an engine may end by itself within the window; then its service is given up, and the default"
            " service returns."
        ),
    )
    crash_window_minutes: Minutes = Field(
        default=CRASH_WINDOW_MINUTES, description="The window in which those ends are counted, in minutes."
    )
    server_defaults: dict[str, ServerValue] = Field(
        default={},
        description="llama-server options for every service: over profile and strategy, under the service's own.",
    )
    engine: Engine = Field(description="The engine, and what goes into its image.")
    firewall: Annotated[bool, Field(strict=False)] = Field(
        default=True, description="Whether the host has llamarig's firewall; false takes it away."
    )
    allowed: list[Allowed] = Field(
        default=[], description="Ports that may be reached beside SSH and services that are published beyond loopback."
    )
    management_port: Annotated[Port, Field(strict=False)] = Field(
        default=MANAGEMENT_PORT, description="Port of the management API, which no service may have."
    )
    exporter_port: Annotated[Port, Field(strict=False)] = Field(
        default=EXPORTER_PORT, description="Port of the exporter, which no service may have."
    )
    models_dir: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]+$")] = Field(
        default="/srv/llamarig/models", description="Where model files live on every host."
    )
