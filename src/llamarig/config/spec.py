"""The spec: a service after resolution. Written by the planner, read by everything that runs on a host.

Plain dataclasses, so that reading one costs a JSON parse and no library.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

SCHEMA_VERSION: Final = 1
# What people read but the running container does not depend on: a change here restarts nothing.
_NOT_HASHED: Final = {
    "description",
    "host",
    "load_timeout_seconds",
    "origins",
    "profile",
    "reason",
    "schema_version",
    "spec_sha256",
    "strategy",
}


@dataclass(frozen=True, slots=True)
class SpecFile:
    """One model file as the engine will find it; ``path`` is absolute on the host."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One service, complete and explicit."""

    schema_version: int = SCHEMA_VERSION
    host: str
    service: str
    profile: str
    description: str
    strategy: str
    reason: str
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
        content = {key: value for key, value in asdict(self).items() if key not in _NOT_HASHED}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        return Spec.from_dict({**self.to_dict(), "spec_sha256": digest})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

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
            return cls(**values)
        except (KeyError, TypeError) as error:
            msg = f"incomplete spec: {error}"
            raise ValueError(msg) from error
