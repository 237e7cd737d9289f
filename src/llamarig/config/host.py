"""Everything that one host's plan is made from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from llamarig.config.engine import Engine
from llamarig.config.records import Allowed, Hardware, Record, ServerValue, Service


class HostIntent(Record):
    """Everything one host's plan is made from."""

    host: str = Field(description="The host's name in the inventory.")
    hardware: Hardware = Field(description="The declared side of the host. Planning reads this and never the host.")
    services: list[Service] = Field(description="What the host runs; one of them is active at a time.")
    default_service: str | None = Field(
        default=None,
        description="The service that serves when nobody chose another; without it, the first of the list.",
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
    models_dir: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]+$")] = Field(
        default="/srv/llamarig/models", description="Where model files live on every host."
    )
