"""A lab host as an operator reaches it, and the playbooks as they run them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llamarig.lab.hosts import Lab

ROOT = Path(__file__).resolve().parents[2]
SCENARIO = Path(os.environ.get("MOLECULE_SCENARIO_DIRECTORY", ROOT / "molecule" / "default"))
# Each scenario has a lab of its own, so that two of them can be run side by side.
LAB = ROOT / ".lab-molecule" / SCENARIO.name


@dataclass(frozen=True)
class Box:
    """One lab host, as an operator reaches it."""

    name: str

    def run(self, command: str, *, check: bool = True, timeout: float = 120) -> str:
        done = self.attempt(command, timeout=timeout)
        if check and done.returncode != 0:
            pytest.fail(f"{self.name}: {command}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def attempt(self, command: str, *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        shared = ["ControlMaster=auto", "ControlPersist=60", f"ControlPath=/tmp/llamarig-test-{os.getpid()}-%n"]
        # ssh makes the terminal that it is given non-blocking, which Ansible refuses afterwards.
        return subprocess.run(
            self.ssh(command, *shared),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def ssh(self, command: str, *options: str) -> list[str]:
        """Return what runs a command on the host."""
        settings = [word for option in options for word in ("-o", option)]
        return ["ssh", "-F", str(LAB / "ssh_config"), *settings, self.name, command]

    def llamarig(self, *words: str) -> dict[str, Any]:
        done = self.attempt(f"sudo llamarig {' '.join(words)} --json")
        envelope: dict[str, Any] = json.loads(done.stdout)
        return {**envelope, "exit": done.returncode}

    def active(self) -> str | None:
        name: str | None = self.llamarig("status")["data"]["model"]
        return name

    def serves(self) -> bool:
        """Whether the active service is well, and nothing is under way."""
        data = self.llamarig("status")["data"]
        return bool(data["active"]) and data["active"][0]["health"] == "ok" and data.get("job") is None

    def engines(self) -> list[str]:
        """Services whose engines run."""
        return sorted(re.findall(r"--alias (\S+)", self.run("ps -C llama-server -o args= || true")))

    def waiting(self) -> list[str]:
        """Services whose units run and whose gates are shut: their containers wait, and no engine has begun."""
        look = (
            "for unit in $(systemctl list-units --plain --no-legend --state=active 'llama-*.service' | cut -d' ' -f1);"
            " do name=${unit#llama-}; name=${name%.service};"
            " [ -e /run/llamarig/gates/$name/open ] || echo $name; done"
        )
        return self.run(look).split()

    def only(self, *services: str) -> bool:
        """Whether these have engines and nobody else does, and at most one container more is there, which waits."""
        waiting = [name for name in self.waiting() if name not in services]
        there = sorted(self.run("sudo docker ps --all --format '{{.Names}}'").split())
        expected = sorted(f"llama-{name}" for name in (*services, *waiting))
        return self.engines() == sorted(services) and len(waiting) <= 1 and there == expected

    def answers(self, port: int, key: str = "") -> str:
        body = json.dumps({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "temperature": 0})
        bearer = f"request.add_header('Authorization', 'Bearer {key}');" if key else ""
        program = (
            "import json,sys,urllib.request;"
            f"request=urllib.request.Request('http://127.0.0.1:{port}/v1/chat/completions', sys.stdin.buffer.read(),"
            f"{{'Content-Type':'application/json'}});{bearer}"
            "print(json.load(urllib.request.urlopen(request, timeout=30))['choices'][0]['message']['content'])"
        )
        return self.run(f"echo '{body}' | python3 -c \"{program}\"")

    def get(self, url: str) -> str:
        """Return what is at a URL, asked from this host, which has no curl."""
        program = "import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(sys.argv[1], timeout=30).read())"
        return self.run(f"python3 -c '{program}' '{url}'")

    def is_healthy(self) -> bool:
        code: int = self.llamarig("doctor")["exit"]
        # 7 is healthy with warnings: lab hosts have no time service.
        return code in {0, 7}

    def power_cycle(self, grace_seconds: int) -> None:
        """Reboot the host from outside; with no grace it is a power cut."""
        restart = ["docker", "restart", "--time", str(grace_seconds), self.container()]
        subprocess.run(restart, check=True, capture_output=True)
        self.wait_until("ssh is back", lambda: self.attempt("true").returncode == 0, 60)

    def outside(self, *command: str) -> None:
        """Run a command on the host as root, without a connection that could be cut; its result does not matter."""
        execute = ["docker", "exec", self.container(), *command]
        subprocess.run(execute, capture_output=True, check=False)

    def container(self) -> str:
        """Name of its container; another checkout's lab may have a host of the same name."""
        return Lab(LAB, print).container(self.name)

    def wait_until(self, what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until something is so; what cannot be asked yet is not so yet."""
        deadline = time.monotonic() + seconds
        why = ""
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except (pytest.fail.Exception, json.JSONDecodeError, subprocess.TimeoutExpired) as error:
                why = f"\n{error}"
            time.sleep(0.5)
        pytest.fail(f"{self.name}: not within {seconds:.0f} s: {what}{why}")

    @contextmanager
    def request_under_way(self) -> Iterator[None]:
        """Hold a request at port 8080 that does not end: a switch away from what serves there stays in its drain."""
        program = (
            "import socket, sys; door = socket.create_connection(('127.0.0.1', 8080));"
            r"door.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: held\r\nContent-Length: 1000\r\n\r\n{');"
            "print('held', flush=True); sys.stdin.read()"
        )
        ssh = self.ssh(f"python3 -c {shlex.quote(program)}")
        with subprocess.Popen(ssh, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as held:
            assert held.stdin is not None
            assert held.stdout is not None
            assert held.stdout.readline() == "held\n"
            try:
                yield
            finally:
                held.stdin.close()


def playbook(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the project on the scenario's hosts."""
    command = ["ansible-playbook", "-i", str(SCENARIO / "inventory"), f"playbooks/{name}", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment(), timeout=900
    )


def environment() -> dict[str, str]:
    """Return the environment that playbooks run in: the project's own settings, and no colours."""
    values = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    values.pop("ANSIBLE_FORCE_COLOR", None)
    return values


def changes(output: str) -> dict[str, int]:
    """Return how many tasks changed each host, from a play recap."""
    recap = output.rsplit("PLAY RECAP", maxsplit=1)[-1].splitlines()
    lines = [line.split(":", 1) for line in recap if "changed=" in line]
    return {host.strip(): int(rest.split("changed=")[1].split()[0]) for host, rest in lines}
