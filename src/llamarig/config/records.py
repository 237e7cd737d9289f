"""The records that users write, as pydantic models: what is allowed, and nothing else.

They check shape only. What depends on several records (ports, engine options, memory) is the planner's.
"""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

ServerValue = bool | int | float | str | list[str | int | float] | None

SLUG: Final = r"[a-z0-9]+(-[a-z0-9]+)*"
SLUG_MOST: Final = 48
SLUG_RULE: Final = "lower-case letters and digits, single hyphens between them, at most 48 characters"


def _slug(value: str) -> str:
    if not re.fullmatch(SLUG, value) or len(value) > SLUG_MOST:
        msg = f"{value!r} is not a valid name: {SLUG_RULE}"
        raise ValueError(msg)
    return value


def _relative(value: str) -> str:
    parts = value.split("/")
    if value.startswith("/") or ".." in parts or "" in parts or not re.fullmatch(r"[A-Za-z0-9._+/-]+", value):
        msg = f"{value!r} must be a path below the models directory, of letters, digits and . _ + - /"
        raise ValueError(msg)
    return value


Slug = Annotated[str, AfterValidator(_slug)]
ModelPath = Annotated[str, AfterValidator(_relative)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Port = Annotated[int, Field(ge=1024, le=65535)]
Mib = Annotated[int, Field(gt=0)]
Seconds = Annotated[int, Field(gt=0)]


class Record(BaseModel):
    """Base of all records: immutable, strict about types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Strategy(StrEnum):
    """How one server is laid over GPUs and CPU."""

    CPU = "cpu"


class ModelFile(Record):
    """One GGUF file: where it comes from, and how it is known to be the right one."""

    name: ModelPath
    bytes: Annotated[int, Field(gt=0)] | None = None
    sha256: Sha256 | None = None
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")] | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ModelFile:
        if self.url and self.path:
            msg = "has both url and path; a file has one source"
            raise ValueError(msg)
        return self


class Profile(Record):
    """A model with its recommended server settings."""

    description: str = ""
    files: Annotated[list[ModelFile], Field(min_length=1)]
    server: dict[str, ServerValue] = {}


class Service(Record):
    """What a host runs."""

    name: Slug
    profile: str
    strategy: Annotated[Strategy, Field(strict=False)]
    port: Port
    bind: str = "127.0.0.1"
    api_key: Annotated[str, StringConstraints(min_length=16, pattern=r"^[\x21-\x7e]+$")] | None = None
    server: dict[str, ServerValue] = {}
    memory_mib: Mib | None = None
    load_timeout_seconds: Seconds = 300
    drain_seconds: Seconds = 30

    @model_validator(mode="after")
    def _address(self) -> Service:
        try:
            IPv4Address(self.bind)
        except ValueError:
            try:
                IPv6Address(self.bind)
            except ValueError:
                msg = f"bind {self.bind!r} is not an IP address"
                raise ValueError(msg) from None
        return self


class Hardware(Record):
    """The declared side of a host, so that planning needs no host."""

    memory_mib: Mib
    cpu_threads: Annotated[int, Field(gt=0)]
    reserve_mib: Mib = 1024


class Engine(Record):
    """The engine image as the plan needs it; how it is built is the llama_image role's."""

    recipe: Literal["debian-package"]
    repository: str = "llamarig/llama-cpp"
    inputs: dict[str, Any]


class HostIntent(Record):
    """Everything one host's plan is made from."""

    host: str
    hardware: Hardware
    services: list[Service]
    default_service: str | None = None
    server_defaults: dict[str, ServerValue] = {}
    engine: Engine
    models_dir: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]+$")] = "/srv/llamarig/models"
