"""The specs of this host, as Ansible left them: the only thing the agent reads of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from llamarig.config import paths
from llamarig.config.policy import Policy
from llamarig.config.spec import Spec
from llamarig.errors import LlamarigError, NotFoundError

_DIGEST: Final = re.compile("[0-9a-f]{64}")


class SpecStore:
    """Specs, host file and running specs below a root (``/`` on a host, a directory in tests)."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def path(self, absolute: str) -> Path:
        """Return an absolute path of the contract below the root."""
        return self.root / absolute.lstrip("/")

    def all(self) -> list[Spec]:
        """Return every spec, by name.

        Raises:
            LlamarigError: a spec cannot be read.

        """
        directory = self.path(paths.SPECS)
        if not directory.is_dir():
            return []
        return [self._read(path) for path in sorted(directory.glob("*.json"))]

    def readable(self) -> list[Spec]:
        """Return every spec that can be read: one that is torn must not keep the others from serving."""
        return [spec for name in self.names() if (spec := self.planned(name))]

    def names(self) -> list[str]:
        """Return the services that this host runs, whether their specs can be read or not."""
        return sorted(path.stem for path in self.path(paths.SPECS).glob("*.json"))

    def get(self, service: str) -> Spec:
        """Return one spec.

        Raises:
            NotFoundError: this host runs no such service.

        """
        path = self.path(paths.SPECS) / f"{service}.json"
        if "/" in service or not path.is_file():
            names = ", ".join(self.names()) or "none"
            msg = f"this host runs no service {service!r}"
            raise NotFoundError(msg, f"choose one of: {names}")
        return self._read(path)

    def running(self, service: str) -> Spec | None:
        """Return the spec that the running container was started with, None where none runs."""
        path = self.path(paths.RUNNING) / f"{service}.json"
        try:
            return self._read(path)
        except (FileNotFoundError, LlamarigError):
            return None

    def version(self, service: str, digest: str) -> Spec | None:
        """Return the spec of this hash, planned or of before; None where the host has none.

        What an engine does not know of is as planned: the door binds no other ports.
        """
        planned = self.planned(service)
        if planned is not None and planned.spec_sha256 == digest:
            return planned
        if not _DIGEST.fullmatch(digest):
            return None
        try:
            kept = self._read(self.path(paths.VERSIONS) / service / digest / "spec.json")
        except (FileNotFoundError, LlamarigError):
            return None
        if planned is None:
            return kept
        return replace(kept, bind=planned.bind, port=planned.port, drain_seconds=planned.drain_seconds)

    def planned(self, service: str) -> Spec | None:
        """Return one spec, None where there is none or it cannot be read."""
        try:
            return self.get(service)
        except LlamarigError:
            return None

    def policy(self) -> Policy:
        """Return what the host's file says of residency; a host that has none of it gets the defaults.

        Raises:
            LlamarigError: the file cannot be read.

        """
        path = self.path(paths.HOST_FILE)
        try:
            host = json.loads(path.read_text(encoding="utf-8"))
            return Policy.from_dict(host.get("policy") or {"default_service": host.get("default_service")})
        except FileNotFoundError:
            return Policy.from_dict({})
        except (ValueError, OSError, AttributeError, TypeError, KeyError) as error:
            raise self._unreadable(path, error) from error

    def default_service(self) -> str | None:
        """Return the service that serves when nobody chose another."""
        return self.policy().default_service

    @staticmethod
    def _read(path: Path) -> Spec:
        try:
            return Spec.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise
        except (ValueError, OSError) as error:
            raise SpecStore._unreadable(path, error) from error

    @staticmethod
    def _unreadable(path: Path, why: object) -> LlamarigError:
        return LlamarigError(f"{path} cannot be read: {why}", "run playbooks/site.yml for this host again")
