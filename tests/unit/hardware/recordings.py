"""Two cards and what is declared of them, as plain data that tests change."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from llamarig.config import paths
from llamarig.hardware.declared import Declared, read_declared
from llamarig.hardware.gpus import Reading
from llamarig.hardware.tuning import this_start
from tests.support import below

ADA = "GPU-8d1c5b4e-0000-4000-8000-000000000001"
BLACKWELL = "GPU-8d1c5b4e-0000-4000-8000-000000000002"
DRIVER = "580.95.05"
_CARDS: list[dict[str, Any]] = [
    {
        "index": 0,
        "uuid": ADA,
        "name": "NVIDIA GeForce RTX 4090",
        "pci_address": "0000:01:00.0",
        "memory_mib": 24564,
        "memory_used_mib": 0,
        "compute_capability": "8.9",
        "persistence": True,
        "power_limit_w": 450.0,
        "power_min_w": 150.0,
        "power_max_w": 600.0,
        "power_default_w": 450.0,
        "clock_max_mhz": 3105,
        "link_generation": 1,
        "link_generation_max": 4,
        "link_width": 16,
        "link_width_max": 16,
        "utilisation": 0.0,
        "temperature_c": 34,
        "power_w": 21.0,
        "clock_mhz": 210,
        "memory_clock_mhz": 405,
        "throttle": [],
        "processes": [],
    },
    {
        "index": 1,
        "uuid": BLACKWELL,
        "name": "NVIDIA GeForce RTX 5070 Ti",
        "pci_address": "0000:04:00.0",
        "memory_mib": 16303,
        "memory_used_mib": 0,
        "compute_capability": "12.0",
        "persistence": True,
        "power_limit_w": 300.0,
        "power_min_w": 250.0,
        "power_max_w": 350.0,
        "power_default_w": 300.0,
        "clock_max_mhz": 3090,
        "link_generation": 1,
        "link_generation_max": 5,
        "link_width": 16,
        "link_width_max": 16,
        "utilisation": 0.0,
        "temperature_c": 34,
        "power_w": 21.0,
        "clock_mhz": 210,
        "memory_clock_mhz": 405,
        "throttle": [],
        "processes": [],
    },
]
_DECLARED: dict[str, Any] = {
    "schema_version": 1,
    "memory_mib": 64000,
    "gpus": [
        {
            "name": name,
            "uuid": card["uuid"],
            "model": card["name"],
            "memory_mib": card["memory_mib"],
            "compute_capability": card["compute_capability"],
            "pci_address": card["pci_address"],
            "pcie_generation": None,
            "pcie_width": None,
            "reserve_mib": 0,
            "power_limit_watts": None,
            "lock_clocks_mhz": None,
        }
        for name, card in zip(("rtx4090", "rtx5070ti"), _CARDS, strict=True)
    ],
    "driver": {"branch": "580", "minimum": "580.82.07"},
}


def recorded(ada: dict[str, Any] | None = None, blackwell: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    """A reading of both cards as plain data; what is given replaces."""
    cards = [card | changes for card, changes in zip(copy.deepcopy(_CARDS), (ada or {}, blackwell or {}), strict=True)]
    return {"driver_version": DRIVER, "cards": cards, "faults": []} | rest


def reading(ada: dict[str, Any] | None = None, blackwell: dict[str, Any] | None = None, **rest: Any) -> Reading:
    """A reading of both cards; what is given replaces."""
    return Reading.from_dict(recorded(ada, blackwell, **rest))


def hardware(ada: dict[str, Any] | None = None, blackwell: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    """What hardware.json says of both cards; what is given replaces."""
    data = copy.deepcopy(_DECLARED)
    for card, changes in zip(data["gpus"], (ada or {}, blackwell or {}), strict=True):
        card.update(changes)
    return data | rest


def declare(root: Path, data: dict[str, Any]) -> Declared:
    """Write hardware.json below a root and return what it declares."""
    path = below(root, paths.HARDWARE_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    found = read_declared(root)
    assert found is not None
    return found


def begin(root: Path, boot: str = "boot1", ticks: int = 5) -> str:
    """Start a host: write what names its present start, and return it."""
    (root / "proc/sys/kernel/random").mkdir(parents=True, exist_ok=True)
    (root / "proc/1").mkdir(exist_ok=True)
    (root / "proc/sys/kernel/random/boot_id").write_text(f"{boot}\n", encoding="ascii")
    fields = " ".join(["S", *("0" for _ in range(18)), str(ticks), "0"])
    (root / "proc/1/stat").write_text(f"1 (a name) with) {fields}\n", encoding="ascii")
    return this_start(root)
