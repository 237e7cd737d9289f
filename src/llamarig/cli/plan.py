"""Plans for people."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llamarig.cli.output import table
from llamarig.config.spec import Spec
from llamarig.daemon.state import StateStore
from llamarig.errors import LlamarigError, NotFoundError
from llamarig.runtime.specs import SpecStore


def present(
    root: Path, service: str | None, inventory: Path | None, limit: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return what ``llamarig plan`` says, for programs and for people.

    Raises:
        LlamarigError: no such service, or the inventory has problems.

    """
    if inventory is not None:
        return _of_inventory(inventory, service, limit)
    store = SpecStore(root)
    active = StateStore(root).read().active
    specs = [store.get(service)] if service else store.all()
    leaves = {spec.service: [active] if active and active != spec.service else [] for spec in specs}
    data = {"specs": [{**spec.to_dict(), "leaves": leaves[spec.service]} for spec in specs]}
    return data, describe(specs[0], leaves[specs[0].service]) if service else summary(specs, leaves)


def _of_inventory(inventory: Path, service: str | None, limit: str | None) -> tuple[dict[str, Any], list[str]]:
    try:
        from llamarig.control.inventory import plan_inventory  # noqa: PLC0415  not part of a host's release
    except ImportError as error:
        raise LlamarigError("inventories are planned on the control node", "run it there, or leave -i out") from error
    plans = plan_inventory(inventory, limit)
    chosen = {host: [s for s in specs if service in (None, s.service)] for host, specs in plans.items()}
    if service and not any(chosen.values()):
        raise NotFoundError(f"no host of {inventory} runs a service {service!r}", "llamarig plan -i shows all of them")
    lines: list[str] = []
    for host, specs in chosen.items():
        nothing: dict[str, list[str]] = {spec.service: [] for spec in specs}
        shown = [line for spec in specs for line in describe(spec, [])] if service else summary(specs, nothing)
        lines += [f"{host}:", *(f"  {line}" for line in shown), ""]
    return {"hosts": {host: [spec.to_dict() for spec in specs] for host, specs in chosen.items()}}, lines


def summary(specs: Sequence[Spec], leaves: Mapping[str, Sequence[str]]) -> list[str]:
    """One line a service."""
    rows = [
        (
            spec.service,
            spec.profile,
            spec.strategy,
            f"{spec.bind}:{spec.port}",
            f"{sum(item.bytes for item in spec.files) / 2**20:.0f} MiB",
            f"{spec.memory_mib} MiB",
            ", ".join(leaves[spec.service]) or "-",
            spec.reason,
        )
        for spec in specs
    ]
    head = ("SERVICE", "PROFILE", "STRATEGY", "ADDRESS", "WEIGHTS", "MEMORY LIMIT", "WHAT LEAVES", "WHY")
    return table(head, rows) if rows else ["no services"]


def describe(spec: Spec, leaves: Sequence[str]) -> list[str]:
    """One service in full: what runs, what would leave, every setting with its layer."""
    settings = [(key, json.dumps(origin["value"]), str(origin["layer"])) for key, origin in spec.origins.items()]
    return [
        f"{spec.service} on {spec.host}: {spec.profile}, strategy {spec.strategy} ({spec.reason})",
        f"engine       {spec.image}",
        f"address      {spec.bind}:{spec.port}{', with API key' if spec.api_key_file else ''}",
        *(f"file         {item.path} ({item.bytes / 2**20:.1f} MiB)" for item in spec.files),
        f"memory limit {spec.memory_mib} MiB",
        f"what leaves  {', '.join(leaves) or 'nothing'}",
        "",
        *table(("SETTING", "VALUE", "LAYER"), settings),
        "",
        f"llama-server {shlex.join(spec.argv)}",
    ]
