"""What ``llamarig tune`` does and says."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from llamarig.config import paths
from llamarig.daemon.state import StateStore
from llamarig.errors import LlamarigError
from llamarig.hardware.declared import read_declared
from llamarig.hardware.nvml_process import NvmlProcess
from llamarig.hardware.tuning import Tuner, this_start


def run(root: Path, *, dry: bool) -> tuple[dict[str, Any], list[str]]:
    """Tune the cards of this host, or with ``dry`` say what would be changed, for programs and for people.

    Raises:
        LlamarigError: nothing is known of the declared cards, a value is refused, or a card is not there.

    """
    declared = read_declared(root)
    if declared is None:
        msg = f"{root / paths.HARDWARE_FILE.lstrip('/')} is missing"
        raise LlamarigError(msg, "run playbooks/site.yml for this host: it writes what is declared")
    host = platform.node()
    tuner = Tuner(declared, NvmlProcess(), StateStore(root), this_start(root), host)
    outcome = tuner.run(dry=dry)
    if outcome.missing and not dry:
        cards = ", ".join(outcome.missing)
        raise LlamarigError(f"{host}: not there to be tuned: {cards}; the others are as declared", "llamarig doctor")
    data = {
        "changed": outcome.changed,
        "changes": [change.to_dict() for change in outcome.changes],
        "missing": outcome.missing,
        "waits": outcome.waits,
    }
    return data, _lines(declared.cards != (), outcome.waits, [str(change) for change in outcome.changes], dry=dry)


def _lines(declared: bool, waits: str, changes: list[str], *, dry: bool) -> list[str]:
    if waits:
        return [f"would tune the cards once the driver runs: {waits}"]
    if changes:
        return [f"{'would set ' if dry else ''}{change}" for change in changes]
    return ["the cards are as declared" if declared else "no GPU is declared"]
