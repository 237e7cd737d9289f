"""The specs of this host, as Ansible left them: the only thing the agent reads of it."""

from __future__ import annotations

import json
from pathlib import Path

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.errors import LlamarigError, NotFoundError


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

    def get(self, service: str) -> Spec:
        """Return one spec.

        Raises:
            NotFoundError: this host runs no such service.

        """
        path = self.path(paths.SPECS) / f"{service}.json"
        if "/" in service or not path.is_file():
            names = ", ".join(spec.service for spec in self.all()) or "none"
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

    def default_service(self) -> str | None:
        """Return the service that serves when nobody chose another."""
        try:
            host = json.loads(self.path(paths.HOST_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise self._unreadable(self.path(paths.HOST_FILE), error) from error
        if not isinstance(host, dict):
            raise self._unreadable(self.path(paths.HOST_FILE), "it is no JSON object")
        name: str | None = host.get("default_service")
        return name

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
