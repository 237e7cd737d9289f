"""The exporter as a process of its own, on a machine that is played: its cards, its driver, what its kernel shows."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from llamarig.lab.silicon import binaries, drivers
from llamarig.lab.silicon.binaries import Driver
from llamarig.lab.silicon.cards import card_lines, card_uuid

UNTIL = 30.0
LISTENS = re.compile(r"answers on \S+ port ([0-9]+)")
Labels = tuple[tuple[str, str], ...]


def until(ready: Callable[[], bool], what: str = "it never came to that") -> None:
    end = time.monotonic() + UNTIL
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@dataclass(frozen=True)
class Answer:
    """What the exporter said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def samples(self) -> dict[str, dict[Labels, float]]:
        """Samples by metric, and in it by labels."""
        found: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                known = found.setdefault(sample.name, {})
                assert labels not in known, f"{sample.name} {labels} twice"
                known[labels] = sample.value
        return found


@dataclass
class Box:
    """A played machine in a directory; ``cards`` are its models."""

    directory: Path
    cards: tuple[str, ...] = ("rtx-4090", "rtx-5070-ti")
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = self.directory / "root"
        self.libraries = self.directory / "lib"
        self.libraries.mkdir(parents=True)
        self.install(drivers.NEW)
        self.load(drivers.NEW)
        self.plug(*self.cards)
        self.fault()
        self.write("proc/1/ns/mnt", "")

    def uuid(self, slot: int) -> str:
        return card_uuid("box", slot)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        # Whole, as it is read all the time.
        file.with_name(f"{file.name}.new").write_text(text, encoding="utf-8")
        file.with_name(f"{file.name}.new").replace(file)

    def plug(self, *models: str) -> None:
        self.write("var/lib/lab-silicon/cards", "".join(f"{line}\n" for line in card_lines("box", list(models))))
        for name in ["nvidiactl", *(f"nvidia{minor}" for minor in range(len(models)))]:
            self.write(f"dev/{name}", "")

    def install(self, driver: Driver) -> None:
        """Install a driver's user space as dpkg does: beside the old file, and then in its place."""
        new = self.libraries / "libnvidia-ml.so.1.dpkg-new"
        new.write_bytes(binaries.nvml(driver))
        new.replace(self.libraries / "libnvidia-ml.so.1")

    def load(self, driver: Driver | None) -> None:
        """Have this driver's kernel module loaded, or none."""
        if driver is None:
            (self.root / "sys/module/nvidia/version").unlink()
        else:
            self.write("sys/module/nvidia/version", f"{driver.version}\n")

    def fault(self, *lines: str) -> None:
        self.write("var/lib/lab-silicon/faults", "".join(f"{line}\n" for line in lines))

    def run_engine(self, pid: int, service: str, rss_kib: int, *minors: int) -> None:
        """Have the llama-server of a service compute on these cards; without a service it is somebody else's."""
        self.write(f"proc/{pid}/comm", "llama-server\n")
        self.write(f"proc/{pid}/status", f"Name:\tllama-server\nVmRSS:\t{rss_kib} kB\n")
        self.write(f"proc/{pid}/ns/mnt", "")
        place = f"llama.slice/llama-{service}.slice/docker-{'a' * 64}.scope" if service else "user.slice"
        self.write(f"proc/{pid}/cgroup", f"0::/{place}\n")
        for minor in minors:
            self.write(f"proc/{pid}/root/dev/nvidia{minor}", "")

    @contextlib.contextmanager
    def exporter(self, **environment: str) -> Iterator[Exporter]:
        """Run an exporter on this machine, to the end of the test."""
        settings = {"port": 0, "period_seconds": 0.1, **self.settings}
        self.write("etc/llamarig/exporter.json", json.dumps(settings))
        played = {"LAB_SILICON_ROOT": str(self.root), "LD_LIBRARY_PATH": str(self.libraries)}
        log = self.directory / f"log-{time.monotonic_ns()}"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "llamarig.exporter.main"],
                env={**os.environ, **played, "LLAMARIG_ROOT": str(self.root), "PYTHONPATH": os.pathsep.join(sys.path)}
                | environment,
                stderr=stream,
            )
        exporter = Exporter(process, log)
        try:
            until(lambda: exporter.find_port() or process.poll() is not None, "it does not listen")
            yield exporter
        finally:
            process.kill()
            process.wait()


class Exporter:
    """A running exporter."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.port = 0

    def find_port(self) -> bool:
        found = LISTENS.search(self.said())
        self.port = int(found[1]) if found else 0
        return bool(found)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def get(self, path: str = "/metrics", *, method: str = "GET", **sent: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=UNTIL)
        try:
            connection.request(method, path, headers=sent)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())
        finally:
            connection.close()

    def samples(self) -> dict[str, dict[Labels, float]]:
        return self.get().samples

    def value(self, metric: str, **labels: str) -> float | None:
        return self.samples().get(metric, {}).get(tuple(sorted(labels.items())))

    def collected(self) -> None:
        """Wait until it has collected anew, all of it after this was asked."""
        before = time.time()

        def anew() -> bool:
            samples = self.samples()
            ended = samples.get("llamarig_collection_timestamp_seconds", {}).get((), 0.0)
            took = samples.get("llamarig_collection_duration_seconds", {}).get((), 0.0)
            return ended - took > before

        until(anew, "it does not collect")

    def connect(self, receive_bytes: int = 0) -> socket.socket:
        """Connect and say nothing; with so small a buffer for what comes."""
        client = socket.socket()
        if receive_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(UNTIL)
        client.connect(("127.0.0.1", self.port))
        return client

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def resident_kib(self) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.findall(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)[0])

    def ended(self) -> int:
        """Wait for its end, and return its exit code."""
        return self.process.wait(UNTIL)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()
