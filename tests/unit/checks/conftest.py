from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llamarig.checks.box import Box
from llamarig.checks.doctor import examine
from llamarig.checks.result import CheckResult, Status
from llamarig.errors import LlamarigError
from llamarig.hardware import machine
from llamarig.hardware.gpus import RecordedGpus
from llamarig.runtime.container_probe import Computed
from llamarig.runtime.specs import SpecStore
from tests.support import make_spec
from tests.unit.daemon.fakes import Host
from tests.unit.hardware.recordings import ADA, BLACKWELL, DRIVER, begin, declare, hardware, recorded

KERNEL = "6.8.0-85-generic"
_LIBRARY = f"/usr/lib/x86_64-linux-gnu/libcuda.so.{DRIVER}"
CDI = f"""\
cdiVersion: 0.7.0
kind: nvidia.com/gpu
devices:
  - name: "0"
  - name: {ADA}
  - name: {BLACKWELL}
containerEdits:
  mounts:
    - hostPath: {_LIBRARY}
      containerPath: {_LIBRARY}
    - hostPath: /usr/bin/nvidia-smi
      containerPath: /usr/bin/nvidia-smi
"""
_LINK = {"generation": 1, "generation_max": 4, "width": 16, "width_max": 16}
# What machine.read says of a host on which all is well, as far as checks ask.
_FACTS: dict[str, Any] = {
    "memory_mib": 64214,
    "kernel": KERNEL,
    "cards": [
        {
            "address": address,
            "device_id": device,
            "name": name,
            "architecture": architecture,
            "driver": "nvidia",
            "link": _LINK,
        }
        for address, device, name, architecture in (
            ("0000:01:00.0", "2684", "NVIDIA GeForce RTX 4090", "Ada"),
            ("0000:04:00.0", "2c05", "NVIDIA GeForce RTX 5070 Ti", "Blackwell"),
        )
    ],
    "driver": {
        "loaded": DRIVER,
        "on_disk": DRIVER,
        "userspace": DRIVER,
        "open": True,
        "signer": "Canonical Ltd. Kernel Module Signing",
        "nouveau": False,
        "run_file": False,
    },
    "cdi": {"path": "/var/run/cdi/nvidia.yaml", "devices": ["0", ADA, BLACKWELL], "driver": DRIVER},
    "secure_boot": True,
    "clock_synchronized": True,
    "reboot_required": False,
    "packages": {
        "bash": "5.2",
        "linux-generic": "6.8.0-85.85",
        "linux-image-generic": "6.8.0-85.85",
        "nvidia-utils-580-server": "580.95.05-0ubuntu0.24.04.1",
        "nvidia-container-toolkit": "1.20.0-1",
        "libnvidia-container1": "1.20.0-1",
    },
    "held": ["linux-generic", "linux-image-generic", "nvidia-utils-580-server"],
}


class FakeDaemon:
    """A daemon that answers, unless there is ``trouble``."""

    def __init__(self) -> None:
        self.trouble: LlamarigError | None = None
        self.agent: dict[str, Any] = {"version": "0.1.0", "release": None}

    def get(self, path: str) -> dict[str, Any]:
        assert path == "/status"
        if self.trouble is not None:
            raise self.trouble
        return {"agent": self.agent}


class FakeProbe:
    """Containers that compute on every card, but those in ``codes``; ``asked`` is what was asked for."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.trouble: Exception | None = None
        self.asked: list[list[str]] = []
        self.changes: dict[str, Any] = {}

    def compute(self, uuids: Sequence[str]) -> Computed:
        self.asked.append(list(uuids))
        if self.trouble is not None:
            raise self.trouble
        code = next((self.codes[uuid] for uuid in uuids if uuid in self.codes), 0)
        values: dict[str, Any] = {"library": _LIBRARY, "code": code, "cards": 0 if code else len(uuids)}
        return Computed(**values | self.changes)


class Examined:
    """A host to examine: change what is declared, found or measured, then ask for a check."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = Host(root, make_spec("chat", gpus=[ADA, BLACKWELL]), default="chat")
        self.host.switch("chat")
        self.facts = copy.deepcopy(_FACTS)
        self.probe = FakeProbe()
        self.recorded = recorded()
        for pid, card in enumerate(self.recorded["cards"], start=41):
            card["processes"] = [{"pid": pid, "used_mib": 9000}]
            self.process(pid, "0::/llama.slice/llama-chat.slice/docker-1.scope")
        declare(root, hardware())
        begin(root)
        self.write("var/run/cdi/nvidia.yaml", CDI)
        self.write(_LIBRARY.lstrip("/"), "")
        self.write("usr/bin/nvidia-smi", "")

    def write(self, path: str, text: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")

    def process(self, pid: int, cgroup: str) -> None:
        self.write(f"proc/{pid}/cgroup", f"{cgroup}\n")

    def declare(self, ada: dict[str, Any] | None = None, blackwell: dict[str, Any] | None = None, **rest: Any) -> None:
        declare(self.root, hardware(ada, blackwell, **rest))

    def card(self, number: int, **changes: Any) -> None:
        self.recorded["cards"][number].update(changes)

    def driver(self, **changes: Any) -> None:
        self.facts["driver"].update(changes)

    @property
    def box(self) -> Box:
        host = self.host
        gpus = RecordedGpus(self.recorded)
        daemon = FakeDaemon()
        return Box(SpecStore(self.root), host.state, host.units, host.engine, daemon, host.door, gpus, self.probe)

    def results(self) -> list[CheckResult]:
        return list(examine(self.box))

    def says(self, name: str) -> tuple[Status, str, str] | None:
        """Status, message and remedy of one check, None where it is left out."""
        found = next((result for result in self.results() if result.name == name), None)
        return (found.status, found.message, found.remedy) if found else None


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examined:
    """A host with two cards on which all is well, examined by root."""
    result = Examined(tmp_path)
    monkeypatch.setattr(machine, "read", lambda _: result.facts)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return result


Break = Callable[[Examined], object]
