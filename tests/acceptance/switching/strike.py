"""Ask for a switch, and strike in a phase of it. Run on the host as root, by the Python that is there.

strike.py SERVICE PHASE COMMAND: asks llamarigd for a switch, and runs a shell command as soon as it is told that the
phase has begun. Prints the job, and ``struck`` or ``never``; the end of the job is not waited for.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from typing import Any


class Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect("/run/llamarig/api/manage.sock")


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> http.client.HTTPResponse:
    connection = Connection("localhost")
    connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
    return connection.getresponse()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


service, phase, command = sys.argv[1:4]
# Listening begins before anything can happen, or the first phases would be over unseen.
events = ask("GET", "/events")
number = json.loads(ask("POST", "/switch?wait=false", {"model": service, "queue": True}).read())["job"]["id"]
say(f"job {number}")
for line in events:
    if not line.startswith(b"data:"):
        continue
    data = json.loads(line[5:])
    job = data if data.get("id") == number else data.get("job") or {}
    if job.get("id") != number:
        continue
    if job.get("phase") == phase and job.get("state") == "running":
        subprocess.run(command, shell=True, check=False)  # noqa: S602  the test's own words
        say("struck")
        break
    if job.get("state") in {"succeeded", "failed", "cancelled"}:
        say("never")
        break
