"""Plans for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from llamarig.cli.output import table
from llamarig.config.spec import Spec


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
    settings = [(key, str(origin["value"]), str(origin["layer"])) for key, origin in spec.origins.items()]
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
