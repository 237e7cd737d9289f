"""The spec: a service after resolution. Written by the planner, read by everything that runs on a host.

Plain dataclasses, so that reading one costs a JSON parse and no library.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

SCHEMA_VERSION: Final = 1
# What the running container does not depend on, because people, the daemon or the door read it: a change here restarts
# nothing.
_NOT_HASHED: Final = {
    "asked",
    "bench",
    "bind",
    "considered",
    "description",
    "drain_seconds",
    "host",
    "load_timeout_seconds",
    "memory",
    "origins",
    "port",
    "profile",
    "reason",
    "schema_version",
    "spec_sha256",
    "speed",
    "strategy",
    "title",
}


@dataclass(frozen=True, slots=True)
class SpecFile:
    """One model file as the engine will find it; ``path`` is absolute on the host."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What one device holds of a service, predicted, in MiB.

    Attributes:
        name: the card's name in the inventory.
        uuid: of the card.
        memory: all it has.
        kept: what no service may take: the site's reserve, the driver's, and a margin.
        context: what the service's process takes before a model is loaded.
        weights, cache, compute: as the engine's own breakdown names them: model, context, compute.

    """

    name: str
    uuid: str
    memory: int
    kept: int
    context: int
    weights: int
    cache: int
    compute: int

    @property
    def taken(self) -> int:
        """What the service takes of it."""
        return self.context + self.weights + self.cache + self.compute

    @property
    def free(self) -> int:
        """What is left for others; negative where it does not fit."""
        return self.memory - self.kept - self.taken


@dataclass(frozen=True, slots=True)
class HostMemory:
    """What the host holds of a service, predicted, in MiB; ``other`` is the process, prompt cache and checkpoints."""

    limit: int
    weights: int
    cache: int
    compute: int
    other: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What a service takes, predicted.

    Attributes:
        devices: of each card, in the server's order.
        host: of the host.
        shape: ``header`` where the model's file was read, ``published`` where sizes of tensors are its maker's word.
        uncertainty: MiB by which a device's compute buffer may differ.
        logits: MiB that llama-fit-params counts more than a server takes, on the device of the output.
        unknown: what was not predicted.

    """

    devices: list[DeviceMemory]
    host: HostMemory
    shape: str
    uncertainty: int
    logits: int
    unknown: list[str]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Memory:
        """Build it from its JSON."""
        devices = [DeviceMemory(**device) for device in data["devices"]]
        return cls(**{**data, "devices": devices, "host": HostMemory(**data["host"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One service, complete and explicit.

    Attributes:
        title: what people call the model.
        speed: what was measured of it on cards like these, said shortly; empty where nobody did.
        bench: whether it is for benchmarks, so that lists for people leave it out.
        bind, port: where clients reach it: at the door, of which the engine does not know.
        drain_seconds: how long requests under way may go on when it is made to leave.

    """

    schema_version: int = SCHEMA_VERSION
    host: str
    service: str
    profile: str
    description: str
    title: str = ""
    speed: str = ""
    bench: bool = False
    strategy: str
    asked: str = ""
    reason: str
    considered: list[str] = field(default_factory=list)
    memory: Memory | None = None
    image: str
    bind: str
    port: int
    models_dir: str
    files: list[SpecFile]
    argv: list[str]
    memory_mib: int
    gpus: list[str] = field(default_factory=list)
    load_timeout_seconds: int
    drain_seconds: int
    api_key_file: str | None
    api_key_sha256: str | None
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)
    spec_sha256: str = ""

    def hashed(self) -> Spec:
        """Return this spec with ``spec_sha256`` set over all that the running container depends on."""
        content = {key: value for key, value in self.to_dict().items() if key not in _NOT_HASHED}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        return replace(self, spec_sha256=digest)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; lists and mappings are copies."""
        # By hand: asdict copies settings one by one, which was half of what a fleet's plan took.
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        copies = {key: list(value) for key, value in values.items() if isinstance(value, list)}
        nested = {
            "files": [{"path": item.path, "bytes": item.bytes, "sha256": item.sha256} for item in self.files],
            "memory": asdict(self.memory) if self.memory is not None else None,
            "origins": {key: _copied(origin) for key, origin in self.origins.items()},
        }
        return values | copies | nested

    @property
    def url(self) -> str:
        """Where the service answers, seen from the host itself."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.bind, self.bind)  # noqa: S104  compared, not bound
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"http://{host}:{self.port}"

    @classmethod
    def from_dict(cls, data: Any) -> Spec:
        """Build a spec from its JSON; keys of a newer minor version are ignored.

        Raises:
            ValueError: another schema version, or a key is missing.

        """
        if not isinstance(data, dict):
            msg = "it is no JSON object"
            raise ValueError(msg)  # noqa: TRY004  one kind of error for a file that is no spec
        if data.get("schema_version") != SCHEMA_VERSION:
            msg = f"spec schema {data.get('schema_version')!r}, this agent reads {SCHEMA_VERSION}"
            raise ValueError(msg)
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        try:
            values["files"] = [SpecFile(**item) for item in values["files"]]
            if values.get("memory") is not None:
                values["memory"] = Memory.from_dict(values["memory"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            msg = f"incomplete spec: {error}"
            raise ValueError(msg) from error


def _copied(origin: dict[str, Any]) -> dict[str, Any]:
    return {**origin, "over": [dict(item) for item in origin["over"]]} if "over" in origin else dict(origin)
