"""An inventory, as Ansible itself reads it; playbooks that say something about its hosts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from llamarig.config.spec import Spec
from llamarig.errors import LlamarigError

ROOT = Path(__file__).resolve().parents[3]


def plan_inventory(inventory: Path, limit: str | None = None) -> dict[str, list[Spec]]:
    """Return the specs of every host of an inventory, by host name; no host is reached.

    Ansible itself reads the inventory (playbooks/plan.yml), so that variables mean here what they mean in a deployment.

    Raises:
        LlamarigError: with every problem of every host, or with Ansible's words if it could not read the inventory.

    """
    plans, said = _run("plan", inventory, limit)
    problems = [problem for host in sorted(plans) for problem in plans[host].get("problems", [])]
    if problems:
        raise LlamarigError("\n".join([f"{len(problems)} problems in {inventory}:", *problems]))
    if said or not plans:
        raise _unread(inventory, "planned", said)
    return {host: [Spec.from_dict(spec) for spec in plan["specs"]] for host, plan in sorted(plans.items())}


def look_at_hosts(inventory: Path, limit: str | None = None, *, ask_sudo: bool = False) -> dict[str, Any]:
    """Return what playbooks/detect.yml wrote of every host, by host name, of those that could not be reached too.

    Raises:
        LlamarigError: with Ansible's words if it could not read the inventory.

    """
    looks, said = _run("detect", inventory, limit, *(["--ask-become-pass"] if ask_sudo else []))
    if not looks:
        raise _unread(inventory, "looked at", said)
    return dict(sorted(looks.items()))


def _run(name: str, inventory: Path, limit: str | None, *options: str) -> tuple[dict[str, Any], str]:
    """Run a playbook that writes a file for each host; return them by host name, and Ansible's words if it failed."""
    program = Path(sys.executable).with_name("ansible-playbook")
    with tempfile.TemporaryDirectory(prefix=f"llamarig-{name}-") as directory:
        command = [str(program), "-i", str(inventory.resolve()), f"playbooks/{name}.yml"]
        command += ["-e", f"{name}_output={directory}", *options, *(["--limit", limit] if limit else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        written = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in Path(directory).glob("*.json")}
    return written, "" if done.returncode == 0 else (done.stderr or done.stdout).strip()[-1500:] or "it says nothing"


def _unread(inventory: Path, verb: str, said: str) -> LlamarigError:
    msg = f"{inventory} cannot be {verb}: {said or 'it names no host of the group gpu_hosts'}"
    remedy = "ansible-inventory --graph shows what Ansible makes of it"
    return LlamarigError(msg, "set ANSIBLE_VAULT_PASSWORD_FILE" if "vault secrets" in said else remedy)
