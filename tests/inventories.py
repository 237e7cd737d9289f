"""Small inventories in a directory of their own, with the fleet layer linked as in a site's."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support import ROOT

_CARDS: Final = (
    ("rtx-4090", "NVIDIA GeForce RTX 4090", 24564, "8.9"),
    ("rtx-5070-ti", "NVIDIA GeForce RTX 5070 Ti", 16303, "12.0"),
)
_HARDWARE: Final = {"memory_mib": 64000, "cpu_threads": 16}


def box(*services: Mapping[str, Any], number: int = 1, **variables: Any) -> dict[str, Any]:
    """The variables of a host with an RTX 4090 and an RTX 5070 Ti that runs these services."""
    gpus = [
        {
            "name": name,
            "uuid": f"GPU-{number:08}-0000-4000-8000-{place:012}",
            "model": model,
            "memory_mib": memory,
            "compute_capability": capability,
        }
        for place, (name, model, memory, capability) in enumerate(_CARDS)
    ]
    return {"host_hardware": {**_HARDWARE, "gpus": gpus}, "llm_services": list(services), **variables}


def write_inventory(directory: Path, hosts: Mapping[str, Mapping[str, Any]], **variables: Any) -> Path:
    """Write an inventory of the group gpu_hosts; ``variables`` are the group's. Returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "group_vars").symlink_to(ROOT / "group_vars")
    # Debian's engine needs no lock, whose commit nobody has looked up.
    group = {"hosts": dict.fromkeys(hosts), "vars": {"llama_image_recipe": "debian-package", **variables}}
    _write(directory / "hosts.yml", {"gpu_hosts": group})
    for name, said in hosts.items():
        _write(directory / "host_vars" / f"{name}.yml", said)
    return directory


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    # Without anchors: what is said twice is written twice, as a person would.
    text = yaml.safe_dump(copy.deepcopy(dict(content)), sort_keys=False)
    path.write_text(f"---\n{text}", encoding="utf-8")
