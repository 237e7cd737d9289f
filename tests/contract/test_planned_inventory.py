"""llamarig plan -i reads an inventory as a deployment does; what is not complete is planned and not deployed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamarig.control.inventory import plan_inventory
from tests.contract.tree import ROOT, ansible
from tests.inventories import box, write_inventory

INCOMPLETE = {"name": "long", "profile": "glm-flash-q8", "strategy": "auto", "port": 8090}
FILE = "profile glm-flash-q8, file GLM-4.7-Flash/GLM-4.7-Flash-Q8_0.gguf"


def by_playbook(inventory: Path, output: Path) -> tuple[dict[str, object], str]:
    """Return the plans that playbooks/plan.yml writes, by host, and what it said."""
    output.mkdir()
    done = ansible("ansible-playbook", "playbooks/plan.yml", "-i", str(inventory), "-e", f"plan_output={output}")
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in output.glob("*.json")}, done.stdout


@pytest.mark.parametrize("site", ["example", "lab"])
def test_the_command_plans_what_the_playbook_plans(site: str, tmp_path: Path) -> None:
    inventory = ROOT / "inventories" / site
    written, _ = by_playbook(inventory, tmp_path / "plans")
    planned = {host: json.loads(json.dumps(plan.to_dict())) for host, plan in plan_inventory(inventory).items()}
    assert planned == written


def test_the_playbook_plans_what_cannot_be_deployed_yet_and_says_so(tmp_path: Path) -> None:
    inventory = write_inventory(tmp_path / "site", {"gpu01": box(INCOMPLETE)})
    written, said = by_playbook(inventory, tmp_path / "plans")
    assert f"cannot be deployed yet: gpu01, service 'long': {FILE}: has no sha256" in said
    assert written.keys() == {"gpu01"}


@pytest.mark.parametrize("arguments", [(), ("--check",), ("-e", "plan_only=true"), ("-e", "only_plan=true")], ids=str)
def test_a_deployment_refuses_it_before_any_host_is_touched(arguments: tuple[str, ...], tmp_path: Path) -> None:
    nowhere: dict[str, Any] = {"ansible_host": "192.0.2.1", "ansible_ssh_common_args": "-o ConnectTimeout=1"}
    inventory = write_inventory(tmp_path / "site", {"gpu01": box(INCOMPLETE, **nowhere)})
    done = ansible("ansible-playbook", "playbooks/site.yml", "-i", str(inventory), *arguments)
    said = done.stdout + done.stderr
    assert done.returncode not in (0, 4), said
    assert f"{FILE}: has no sha256" in said
    assert "UNREACHABLE" not in said
    assert "Make every host what its plan says" not in said
