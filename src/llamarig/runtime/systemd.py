"""systemd and the journal, through their own programs."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from llamarig.config import paths
from llamarig.errors import LlamarigError

_JOURNAL_SECONDS: Final = 10.0
# Of a unit whose main process has ended.
_OVER: Final = frozenset(
    {"dead", "failed", "stop-post", "final-sigterm", "final-sigkill", "auto-restart", "auto-restart-queued"}
)


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of one service's unit; ``exit_status`` is that of its main process, 0 while it has none."""

    active: str
    sub: str
    result: str = "success"
    restarts: int = 0
    exit_status: int = 0

    @property
    def is_running(self) -> bool:
        """Whether its main process runs."""
        return self.active == "active"

    @property
    def is_over(self) -> bool:
        """Whether its main process has ended; what comes after it may still be under way."""
        return self.active in {"inactive", "failed"} or self.sub in _OVER

    @property
    def is_failed(self) -> bool:
        """Whether it failed, or waits to be started anew after it did."""
        return self.active == "failed" or self.sub in {"auto-restart", "auto-restart-queued", "failed"}


class Units(Protocol):
    """What the daemon needs of a service manager; nothing here waits for a unit."""

    def state(self, service: str) -> UnitState:
        """Return the state of one service's unit."""

    def running(self) -> list[str]:
        """Return the services whose units are up or coming up."""

    def start(self, service: str) -> None:
        """Have a unit started."""

    def stop(self, service: str) -> None:
        """Have a unit stopped."""

    def docker_since(self) -> float | None:
        """Return when Docker came up, in seconds since the host did; None while it is not up."""

    def log(self, service: str, lines: int) -> list[str]:
        """Return the last lines of a unit's log."""


class Systemd:
    """The units of this host, asked by root or, to look only, by anybody."""

    def state(self, service: str) -> UnitState:
        """Return the state of one service's unit."""
        values = self._properties(paths.unit(service), "ActiveState,SubState,Result,NRestarts,ExecMainStatus")
        return UnitState(
            active=values.get("ActiveState", "unknown"),
            sub=values.get("SubState", "unknown"),
            result=values.get("Result", ""),
            restarts=int(values.get("NRestarts") or 0),
            exit_status=int(values.get("ExecMainStatus") or 0),
        )

    def running(self) -> list[str]:
        """Return the services whose units are up or coming up."""
        out = self._call(
            ["list-units", "--plain", "--no-legend", "--state=active,activating", paths.unit("*")], check=False
        )
        names = [line.split()[0] for line in out.splitlines() if line.strip()]
        return [name.removeprefix("llama-").removesuffix(".service") for name in names]

    def start(self, service: str) -> None:
        """Have a unit started."""
        self._call(["start", "--no-block", paths.unit(service)])

    def stop(self, service: str) -> None:
        """Have a unit stopped."""
        self._call(["stop", "--no-block", paths.unit(service)], check=False)

    def docker_since(self) -> float | None:
        """Return when Docker came up, in seconds since the host did; None while it is not up."""
        values = self._properties("docker.service", "ActiveState,ActiveEnterTimestampMonotonic")
        if values.get("ActiveState") != "active":
            return None
        return int(values.get("ActiveEnterTimestampMonotonic") or 0) / 1e6

    def log(self, service: str, lines: int) -> list[str]:
        """Return the last lines of a unit's log."""
        return journal(service, ["--lines", str(lines)])

    def _properties(self, unit: str, names: str) -> dict[str, str]:
        out = self._call(["show", f"--property={names}", unit])
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

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
    """Return lines of a service's log; none where the journal takes too long, for nobody may have to wait for it."""
    command = journal_command(service, arguments)
    asked = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
    )
    try:
        return asked.communicate(timeout=_JOURNAL_SECONDS)[0].splitlines()
    except subprocess.TimeoutExpired:
        # One that hangs in the disk does not end at KILL either; nobody waits for that.
        asked.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            asked.wait(timeout=1)
        return []
