"""Every role has the same anatomy, and its defaults, its argument specs and its README say the same."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llamarig.config.host import HostIntent
from tests.contract.tree import PLAYBOOKS, ROLES, ROOT, load, tasks_of

MAIN_LINES = 20
TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "path": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list,
    "dict": dict,
}

# Entry points of their own: a playbook names them, main.yml does not.
NAMED = [
    task["ansible.builtin.import_role"]
    for path in [*PLAYBOOKS, *ROOT.glob("playbooks/tasks/*.yml")]
    for task in tasks_of(load(path))
    if "ansible.builtin.import_role" in task
]
each_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def entry_points(role: Path) -> set[str]:
    return {"main.yml", *(f"{item.get('tasks_from', 'main')}.yml" for item in NAMED if item["name"] == role.name)}


def main_options(role: Path) -> dict[str, Any]:
    options: dict[str, Any] = load(role / "meta/argument_specs.yml")["argument_specs"]["main"].get("options") or {}
    return options


@each_role
def test_the_anatomy(role: Path) -> None:
    wanted = ["README.md", "meta/main.yml", "meta/argument_specs.yml", "defaults/main.yml", "tasks/main.yml"]
    assert [name for name in wanted if not (role / name).is_file()] == []
    known = {"README.md", "defaults", "files", "handlers", "meta", "tasks", "templates", "vars"}
    assert {path.name for path in role.iterdir()} <= known


@each_role
def test_a_role_calls_no_other(role: Path) -> None:
    assert load(role / "meta/main.yml") == {"dependencies": []}
    for path in role.glob("tasks/*.yml"):
        used = [key for task in tasks_of(load(path)) for key in task if key.endswith(("include_role", "import_role"))]
        assert used == [], path.name


@each_role
def test_main_is_a_table_of_contents(role: Path) -> None:
    main = role / "tasks/main.yml"
    assert len(main.read_text(encoding="utf-8").splitlines()) <= MAIN_LINES
    others = {path.name for path in role.glob("tasks/*.yml")} - entry_points(role)
    if others:
        doing = [
            task["name"]
            for task in tasks_of(load(main))
            if not task.keys() & {"ansible.builtin.import_tasks", "ansible.builtin.include_tasks"}
        ]
        assert doing == [], f"{role.name}/tasks/main.yml does work itself although it has {', '.join(sorted(others))}"


@each_role
def test_every_tasks_file_is_reached(role: Path) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in role.glob("tasks/*.yml"))
    for path in role.glob("tasks/*.yml"):
        if path.name not in entry_points(role):
            assert path.name in text or f"{path.name.split('_', maxsplit=1)[0]}_{{{{" in text


@each_role
def test_templates_are_a_link_to_the_roles_slice(role: Path) -> None:
    slice_, link = ROOT / "templates" / role.name, role / "templates"
    assert slice_.is_dir() == link.is_symlink(), "a role with templates has a link, and no other role has one"
    if link.is_symlink():
        assert str(link.readlink()) == f"../../templates/{role.name}"


@each_role
def test_defaults_are_those_of_the_argument_specs(role: Path) -> None:
    defaults = load(role / "defaults/main.yml")
    options = main_options(role)
    assert defaults == {name: option["default"] for name, option in options.items() if "default" in option}
    undecided = [name for name, option in options.items() if "default" not in option and not option.get("required")]
    assert undecided == [], "an option has a default or is required"


@pytest.mark.parametrize(
    ("role", "variable", "field"),
    [
        ("agent", "agent_api_port", "management_port"),
        ("exporter", "exporter_port", "exporter_port"),
        ("firewall", "firewall_enabled", "firewall"),
    ],
)
def test_what_the_planner_reads_too_has_one_default(role: str, variable: str, field: str) -> None:
    assert load(ROOT / f"roles/{role}/defaults/main.yml")[variable] == HostIntent.model_fields[field].default


@each_role
def test_every_variable_carries_its_roles_name(role: Path) -> None:
    names = {*main_options(role), *load(role / "defaults/main.yml")}
    for path in role.glob("vars/*.yml"):
        names |= load(path).keys()
    assert {name for name in names if not name.startswith(f"{role.name}_")} == set()


@each_role
def test_every_option_is_described_and_has_a_default_of_its_type(role: Path) -> None:
    for name, option in main_options(role).items():
        assert option.get("description"), name
        if "default" in option:
            assert isinstance(option["default"], TYPES[option["type"]]), name
        assert (option["type"] == "list") == ("elements" in option), f"{name}: a list says what it holds"


@each_role
def test_every_default_is_explained_where_it_stands(role: Path) -> None:
    lines = (role / "defaults/main.yml").read_text(encoding="utf-8").splitlines()
    bare = [line for before, line in pairwise(lines) if line[:1].isalpha() and before[:1] != "#"]
    assert bare == []


@each_role
def test_group_vars_give_a_role_only_what_it_takes(role: Path) -> None:
    given = {
        name
        for path in (ROOT / "group_vars/gpu_hosts").rglob("*.yml")
        for name in load(path)
        if name.startswith(f"{role.name}_")
    }
    assert given - main_options(role).keys() == set()


TASK_FILES = sorted(
    {*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/handlers/*.yml"), *ROOT.glob("playbooks/**/*.yml")}
)


@pytest.mark.parametrize("path", TASK_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_computes_or_hides_in_tasks(path: Path) -> None:
    for task in tasks_of(load(path)):
        name = task.get("name")
        assert name, "every task and play has a name"
        assert not task.keys() & {"ansible.builtin.set_fact", "set_fact"}, f"{name}: the plan computes, tasks do not"
        assert "ignore_errors" not in task, name
        assert task.get("failed_when") is not False, f"{name}: a failure that nobody sees"


def test_no_verification_asserts_nothing() -> None:
    for path in [*ROOT.glob("molecule/**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]:
        loaded = load(path)
        for task in tasks_of(loaded if isinstance(loaded, list) else []):
            assertion = task.get("ansible.builtin.assert") or {}
            assert assertion.get("that") not in (True, "true", [True]), path
