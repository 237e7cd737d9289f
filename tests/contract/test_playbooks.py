"""Playbooks, plugins and inventories load."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llamarig.planning.intent import plan_host
from tests.contract.tree import PLAYBOOKS, ROLES, ROOT, ansible, load

INVENTORIES = sorted(path for path in (ROOT / "inventories").iterdir() if path.is_dir())
# The monitoring host need not be a GPU host: playbooks/monitoring.yml brings it.
ELSEWHERE = {"monitoring"}
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))


def test_every_playbook_can_be_read() -> None:
    done = ansible("ansible-playbook", "--syntax-check", *map(str, PLAYBOOKS))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in PLAYBOOKS if f"playbook: {path}" not in done.stdout] == []


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_a_playbook_is_described_with_its_tags(path: Path) -> None:
    text = (ROOT / "playbooks/README.md").read_text(encoding="utf-8")
    row = next((line for line in text.splitlines() if line.startswith(f"| `{path.name}` |")), "")
    assert row, f"playbooks/README.md has no row for {path.name}"
    steps = [step for play in load(path) for step in [*play.get("roles", []), *play.get("tasks", [])]]
    tags = {tag for step in steps for tag in step.get("tags", [])}
    assert [tag for tag in tags - {"always", "never"} if f"`{tag}`" not in row] == []


def test_site_lists_roles_only() -> None:
    """A play is a list of roles, each brought by a task that says so aloud; the plan has validated their inputs."""
    plays = load(ROOT / "playbooks/site.yml")
    brought = []
    for play in plays:
        assert play.keys() <= {"name", "hosts", "gather_facts", "any_errors_fatal", "become", "tags", "tasks"}
        for task in play["tasks"]:
            assert task.keys() <= {"name", "ansible.builtin.import_role", "tags", "when"}
            role = task["ansible.builtin.import_role"]
            if "tasks_from" not in role:
                assert role["rolespec_validate"] is False
                brought.append(role["name"])
    assert sorted(brought) == [role.name for role in ROLES if role.name not in ELSEWHERE]


def test_every_module_of_our_own_loads() -> None:
    done = ansible("ansible-doc", "-t", "module", "--json", *MODULES, ANSIBLE_LIBRARY=str(ROOT / "plugins/modules"))
    assert done.returncode == 0, done.stderr
    docs = json.loads(done.stdout)
    assert sorted(docs) == MODULES
    for name, item in docs.items():
        assert item["doc"]["short_description"], name
        assert item["doc"]["attributes"]["check_mode"]["support"] == "full", name
        assert item["examples"], name
        assert item["return"], name


@pytest.mark.parametrize("name", MODULES)
def test_a_module_documents_the_options_it_takes(name: str) -> None:
    source = (ROOT / "plugins/modules" / f"{name}.py").read_text(encoding="utf-8")
    documented = load_documentation(source)
    taken = re.findall(r'^            "(\w+)": \{', source.split("argument_spec={", 1)[1], re.MULTILINE)
    assert sorted(documented) == sorted(taken)


def load_documentation(source: str) -> list[str]:
    found = re.search(r'DOCUMENTATION = r"""\n(.*?)"""', source, re.DOTALL)
    assert found
    options = found[1].split("\noptions:\n", 1)[1]
    return re.findall(r"^  (\w+):$", options, re.MULTILINE)


def test_every_action_plugin_has_its_module_or_is_one_of_the_control_node() -> None:
    assert {path.stem for path in (ROOT / "plugins/action").glob("*.py")} - set(MODULES) == {
        "plan",
        "stack",
        "monitoring_targets",
        "engine_lock",
        "engine_upgrade",
    }


@pytest.mark.parametrize("path", INVENTORIES, ids=lambda path: path.name)
def test_an_inventory_links_the_fleet_layer(path: Path) -> None:
    link = path / "group_vars"
    assert link.is_symlink()
    assert str(link.readlink()) == "../../group_vars"


@pytest.mark.parametrize(
    "path", [path for path in INVENTORIES if list(path.glob("hosts.*"))], ids=lambda path: path.name
)
def test_an_inventory_loads_the_fleet_layer_and_can_be_planned(path: Path) -> None:
    done = ansible("ansible-inventory", "-i", str(path), "--playbook-dir", "playbooks", "--list")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    hosts = set(listed["_meta"]["hostvars"])
    assert hosts
    for host in hosts:
        variables = listed["_meta"]["hostvars"][host]
        assert variables.get("fleet_layer_loaded") is True, host
        assert variables.keys() >= {"host_hardware", "llm_services", "llama_image_bases", "fleet_models_dir"}, host
        assert plan_host(host, variables, only_plan=True)["specs"], f"{host} runs nothing"


def test_no_expression_in_the_fleet_layer_is_longer_than_a_line() -> None:
    for path in (ROOT / "group_vars").rglob("*.yml"):
        text = path.read_text(encoding="utf-8")
        assert all(part.count("}}") for part in text.replace("\n", "\0").split("{{")[1:]), path
        assert not re.search(r"\{\{[^}]*\n", text), path
