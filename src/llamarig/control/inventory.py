"""Plans of a whole inventory, made on the control node: no host is reached."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from llamarig.config.spec import Spec
from llamarig.errors import LlamarigError

ROOT = Path(__file__).resolve().parents[3]


def plan_inventory(inventory: Path, limit: str | None = None) -> dict[str, list[Spec]]:
    """Return the specs of every host of an inventory, by host name.

    Ansible itself reads the inventory (playbooks/plan.yml), so that variables mean here what they mean in a deployment.

    Raises:
        LlamarigError: with every problem of every host, or with Ansible's words if it could not read the inventory.

    """
    program = Path(sys.executable).with_name("ansible-playbook")
    with tempfile.TemporaryDirectory(prefix="llamarig-plan-") as directory:
        command = [str(program), "-i", str(inventory.resolve()), "playbooks/plan.yml", "-e", f"plan_output={directory}"]
        if limit:
            command += ["--limit", limit]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        plans = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in Path(directory).glob("*.json")}
    problems = [problem for host in sorted(plans) for problem in plans[host].get("problems", [])]
    if problems:
        raise LlamarigError("\n".join([f"{len(problems)} problems in {inventory}:", *problems]))
    if done.returncode != 0 or not plans:
        said = (done.stderr or done.stdout).strip()[-1500:] or "it names no host of the group gpu_hosts"
        msg = f"{inventory} cannot be planned: {said}"
        raise LlamarigError(msg, "ansible-inventory --graph shows what Ansible makes of it")
    return {host: [Spec.from_dict(spec) for spec in plan["specs"]] for host, plan in sorted(plans.items())}
