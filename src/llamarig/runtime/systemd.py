"""systemd and the journal, through their own programs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llamarig.config import paths
from llamarig.errors import LlamarigError


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of one service's unit."""

    active: str
    sub: str
    enabled: str
    result: str
    restarts: int

    @property
    def is_running(self) -> bool:
        """Whether its main process runs."""
        return self.active == "active"

    @property
    def is_failed(self) -> bool:
        """Whether systemd gave it up, or is between two of its attempts."""
        return self.active == "failed" or self.sub in {"auto-restart", "auto-restart-queued", "dead", "failed"}


class Units(Protocol):
    """What switching needs of a service manager."""

    def state(self, service: str) -> UnitState:
        """Return the state of one service's unit."""

    def holds_port(self, service: str) -> bool:
        """Tell whether the service's own container runs, and so whether its port is its own."""

    def running(self) -> list[str]:
        """Return the services whose units are up or coming up."""

    def clear(self, service: str, port: int) -> None:
        """Remove what an unclean end left of a service that does not run."""

    def start(self, service: str) -> None:
        """Start a unit without waiting for the model."""

    def stop(self, service: str) -> None:
        """Stop a unit and wait until it is stopped."""

    def enable(self, service: str) -> None:
        """Let a unit start with the host."""

    def disable(self, service: str) -> None:
        """Keep a unit from starting with the host."""

    def log(self, service: str, lines: int) -> list[str]:
        """Return the last lines of a unit's log."""


class Systemd:
    """The units of this host."""

    def state(self, service: str) -> UnitState:
        """Return the state of one service's unit."""
        wanted = "ActiveState,SubState,UnitFileState,Result,NRestarts"
        out = self._call(["show", f"--property={wanted}", paths.unit(service)])
        values = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        return UnitState(
            active=values.get("ActiveState", "unknown"),
            sub=values.get("SubState", "unknown"),
            enabled=values.get("UnitFileState", ""),
            result=values.get("Result", ""),
            restarts=int(values.get("NRestarts") or 0),
        )

    def holds_port(self, service: str) -> bool:
        """Tell whether the service's own container runs; Docker binds the port before it starts it.

        A user who may not ask Docker gets what systemd says.
        """
        if not self.state(service).is_running:
            return False
        if os.geteuid() != 0:
            return True
        command = ["/usr/bin/docker", "inspect", "--format", "{{.State.Running}}", paths.container(service)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        return done.stdout.strip() == "true"

    def running(self) -> list[str]:
        """Return the services whose units are up or coming up."""
        out = self._call(
            ["list-units", "--plain", "--no-legend", "--state=active,activating", paths.unit("*")], check=False
        )
        names = [line.split()[0] for line in out.splitlines() if line.strip()]
        return [name.removeprefix("llama-").removesuffix(".service") for name in names]

    def clear(self, service: str, port: int) -> None:
        """Remove the container that a power cut left half-made, and free the port that Docker keeps for it."""
        if not self.state(service).is_running:
            command = [f"{paths.LIBEXEC}/engine-clear", paths.container(service), str(port), "--quiet"]
            subprocess.run(command, capture_output=True, check=False)

    def start(self, service: str) -> None:
        """Start a unit without waiting for the model; a count of earlier failures is forgotten."""
        self._call(["reset-failed", paths.unit(service)], check=False)
        self._call(["start", "--no-block", paths.unit(service)])

    def stop(self, service: str) -> None:
        """Stop a unit and wait until it is stopped."""
        self._call(["stop", paths.unit(service)], check=False)
        self._call(["reset-failed", paths.unit(service)], check=False)

    def enable(self, service: str) -> None:
        """Let a unit start with the host."""
        self._call(["enable", "--quiet", paths.unit(service)])

    def disable(self, service: str) -> None:
        """Keep a unit from starting with the host."""
        self._call(["disable", "--quiet", paths.unit(service)], check=False)

    def log(self, service: str, lines: int) -> list[str]:
        """Return the last lines of a unit's log."""
        return journal(service, ["--lines", str(lines)])

    @staticmethod
    def _call(arguments: Sequence[str], *, check: bool = True) -> str:
        done = subprocess.run(
            ["/usr/bin/systemctl", *arguments], capture_output=True, text=True, errors="replace", check=False
        )
        if check and done.returncode != 0:
            msg = f"systemctl {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()}"
            raise LlamarigError(msg, "see: journalctl --unit " + arguments[-1])
        return done.stdout


def journal_command(service: str, arguments: Sequence[str]) -> list[str]:
    """Return the journalctl call for a service's log."""
    return ["/usr/bin/journalctl", "--unit", paths.unit(service), "--output=cat", "--no-pager", *arguments]


def journal(service: str, arguments: Sequence[str]) -> list[str]:
    """Return lines of a service's log."""
    done = subprocess.run(
        journal_command(service, arguments), capture_output=True, text=True, errors="replace", check=False
    )
    return done.stdout.splitlines()
