"""The host of the table of faults: how a switch is struck in a phase, and what must be so after any fault."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.box import Box

HERE = Path(__file__).parent
PLACE = "/usr/local/lib/llamarig-test"
SOCKET = "/run/llamarig/api/manage.sock"


@dataclass(frozen=True)
class Rig:
    """One host, with the tools that faults are made with."""

    box: Box

    def bring_tools(self) -> None:
        """Bring the scripts of this folder that run on the host."""
        self.box.run(f"sudo mkdir -p {PLACE}")
        for path in (HERE / "strike.py", HERE / "stream.py"):
            ssh = self.box.ssh(f"sudo tee {PLACE}/{path.name} >/dev/null")
            subprocess.run(ssh, input=path.read_bytes(), check=True)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the daemon, empty where it does not answer; the command asks the same, and takes ten times as long."""
        words = f"sudo curl -s -m 90 --unix-socket {SOCKET} http://localhost{path}"
        if body is not None:
            words += f" -H 'Content-Type: application/json' -d {quoted(json.dumps(body))}"
        answer: dict[str, Any] = json.loads(self.box.attempt(words).stdout or "{}")
        return answer

    def calm(self, *, waits: bool | None = None) -> None:
        """Have dense serve, and nothing else be the matter; with ``waits``, moe's container at its gate, or none."""
        self.box.wait_until("the daemon answers", lambda: "active" in self.ask("/status"), 60)
        status = self.ask("/status")
        serving = [(item["service"], item["health"]) for item in status["active"]]
        if serving != [("dense", "ok")] or status["job"] is not None:
            self._switch("dense")
        # One that left this very moment is yet to come up.
        for name in ("beside", "moe", "copy") if waits is False else ("beside",):
            self.ask("/stop", {"model": name})
        if waits and self.box.waiting() != ["moe"]:
            for name in ("moe", "dense"):
                self._switch(name)
        if waits:
            there = "sudo test -e /run/llamarig/engines/moe/waiting"
            self.box.wait_until("moe waits", lambda: self.box.attempt(there).returncode == 0, 30)
        self.wait_until_whole(60)

    def _switch(self, service: str) -> None:
        """Switch; after a fault Docker may take its time to make containers again, and switches fail meanwhile."""
        start = time.monotonic()
        while True:
            outcome = self.ask("/switch", {"model": service, "now": True, "queue": True})
            if outcome.get("success"):
                return
            assert time.monotonic() - start < 60, outcome
            time.sleep(0.3)

    def strike(self, service: str, phase: str, command: str) -> str:
        """Ask for a switch and run a command on the host as soon as a phase of it has begun."""
        words = f"sudo timeout 60 python3 {PLACE}/strike.py {service} {phase} {quoted(command)}"
        return self.box.attempt(words, timeout=90).stdout

    def reboot(self, service: str, phase: str, *, grace_seconds: int) -> None:
        """Ask for a switch and reboot as soon as a phase of it has begun; with no grace it is a power cut."""
        words = f"sudo timeout 60 python3 {PLACE}/strike.py {service} {phase} 'echo now; sleep 5'"
        ssh = self.box.ssh(words)
        with subprocess.Popen(ssh, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(("now", "never")):
                    break
            self.box.power_cycle(grace_seconds)
            process.kill()

    def events(self) -> list[dict[str, Any]]:
        """The history, oldest first."""
        found: list[dict[str, Any]] = self.ask("/history?lines=10000")["events"]
        return found

    def is_whole(self) -> bool:
        """Whether one service answers clients, nothing is under way, and nothing is left over."""
        return self.trouble() == ""

    def trouble(self) -> str:
        """What is not as it must be after every fault; empty where nothing is."""
        status = self.ask("/status")
        if "active" not in status:
            return "the daemon does not answer"
        active = [item["service"] for item in status["active"]]
        health = self.box.attempt("curl -sf -m 5 http://127.0.0.1:8080/health").returncode
        wrong = {
            f"something is under way: {status['job']}": status["job"] is not None or bool(status["queue"]),
            f"active: {active}": len(active) != 1 or active[0] not in {"dense", "moe"},
            f"something else than {active} is there": not self.box.only(*active),
            "the door does not lead to an engine that is well": health != 0,
        }
        found = [text for text, is_so in wrong.items() if is_so]
        if not found and len(set(self.box.answers(8080))) <= 1:
            found = ["it answers garbage"]
        return "; ".join(found)

    def wait_until_whole(self, seconds: float) -> float:
        """Wait until it is; returns how many seconds that took."""
        start = time.monotonic()
        trouble = "nobody looked"
        while time.monotonic() - start < seconds:
            try:
                trouble = self.trouble()
            except (json.JSONDecodeError, KeyError, subprocess.TimeoutExpired, pytest.fail.Exception) as error:
                trouble = str(error)[:500]
            if not trouble:
                return time.monotonic() - start
            time.sleep(0.3)
        log = self.box.attempt("sudo journalctl -u llamarigd -n 40 --no-pager -o cat").stdout
        pytest.fail(f"not whole within {seconds:.0f} s: {trouble}\n{log}")


def quoted(text: str) -> str:
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"
