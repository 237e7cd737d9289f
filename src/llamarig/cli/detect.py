"""What ``llamarig detect`` does and says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from llamarig.cli.output import table
from llamarig.errors import ExitCode, LlamarigError

_COLOURS = {"+": "green", "-": "red"}


def run(
    inventory: Path, hosts: Sequence[str], *, dry: bool, ask_sudo: bool
) -> tuple[dict[str, Any], list[str], ExitCode]:
    """Detect hosts and record what they have, or with ``dry`` say what would be recorded, for programs and for people.

    Raises:
        LlamarigError: this is no control node, or the inventory cannot be read.

    """
    try:
        from llamarig.control.host_vars import record  # noqa: PLC0415  not part of a host's release
        from llamarig.control.inventory import look_at_hosts  # noqa: PLC0415
    except ImportError as error:
        raise LlamarigError("hosts are detected from the control node", "run it there") from error
    looks = look_at_hosts(inventory, ",".join(hosts) or None, ask_sudo=ask_sudo)
    told = {host: record(inventory, host, look, dry=dry).to_dict() for host, look in looks.items()}
    failed = [host for host, said in told.items() if said["problems"]]
    lines = [line for host, said in told.items() for line in _lines(host, said, dry=dry)]
    if failed:
        lines.append(f"{len(failed)} of {len(told)} hosts with problems: {', '.join(failed)}")
    return {"check": dry, "failed": failed, "hosts": told}, lines, ExitCode.FAILED if failed else ExitCode.OK


def _lines(host: str, said: dict[str, Any], *, dry: bool) -> list[str]:
    lines: list[str] = []
    if said["hardware"] is not None:
        lines += [*_cards(said["hardware"]), *said["notes"]]
        verb = "would write" if dry else "wrote"
        lines += [f"{verb} {path}" for path in said["files"]] or (
            [] if said["problems"] else ["host_vars say so already"]
        )
        lines += [f"  {click.style(line, fg=_COLOURS.get(line[:1]))}" for line in said["text"]]
    for problem in said["problems"]:
        lines += [click.style(problem["message"], fg="red"), f"    remedy: {problem['remedy']}"]
    return [f"{host}:", *(f"  {line}" for line in lines), ""]


def _cards(hardware: dict[str, Any]) -> list[str]:
    keys = ("name", "model", "memory_mib", "compute_capability", "pci_address")
    rows = [tuple(str(gpu.get(key, "-")) for key in keys) for gpu in hardware.get("gpus", [])]
    machine = f"memory {hardware['memory_mib']} MiB, threads {hardware['cpu_threads']}"
    return [machine, *(table(("CARD", "MODEL", "MIB", "COMPUTE", "PCI"), rows) if rows else [])]
