"""The rooms of the package import inwards only, as docs/explanation/house.md says."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from llamarig.control.release import _LEFT_OUT
from tests.contract.tree import ROOT

PACKAGE = ROOT / "src/llamarig"
MODULES = sorted(PACKAGE.rglob("*.py"))
# What every room may import: the words for what goes wrong, and the version.
COMMON = {"errors", "__init__"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Full names of everything a module imports, wherever in the module it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # Ansible ships files of hardware/ below a name of its own, where only a relative import finds them.
            here = node.level == 1 and node.module is None and room_of(path) == "hardware"
            assert node.level == 0 or here, f"{path}: relative import"
            module = "llamarig.hardware" if here else node.module
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(path: Path) -> set[str]:
    rooms = set()
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "llamarig" and len(parts) > 1:
            is_room = (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()
            rooms.add(parts[1] if is_room else "__init__")
    return rooms - {"_release"}


def house() -> dict[str, tuple[set[str], set[str]]]:
    """The table of docs/explanation/house.md: room, rooms it may import, banned modules it uses."""
    table = {}
    for line in (ROOT / "docs/explanation/house.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            room, _, may, banned = cells
            table[room.rstrip("/")] = (
                {*may.replace(",", " ").split()} - {"-"},
                {*banned.replace(",", " ").split()} - {"-"},
            )
    return table


def test_every_room_is_in_the_house() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert house().keys() == rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    room = room_of(path)
    if room in {"__init__", "__main__", "errors"}:
        # The version knows the release, which is written beside it when that is made.
        assert rooms_imported(path) <= {"__main__": {"cli"}, "__init__": {"__init__"}}.get(room, set())
        return
    assert rooms_imported(path) - {room} - COMMON <= house()[room][0]


def test_config_and_planning_stay_pure() -> None:
    """No I/O, no clock, no environment, and nothing of what runs on a host."""
    for path in [*(PACKAGE / "config").glob("*.py"), *(PACKAGE / "planning").glob("*.py")]:
        assert rooms_imported(path) <= {"config", "planning", *COMMON}, path
        outside = {name.split(".")[0] for name in imported(path)}
        assert not outside & {"os", "pathlib", "random", "socket", "subprocess", "sys", "time", "datetime"}, path


def unguarded(path: Path) -> set[str]:
    """Rooms that a module cannot do without: imported outside of any try that handles ImportError."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and "ImportError" in {getattr(h.type, "id", "") for h in node.handlers}
        for statement in node.body
        for inner in ast.walk(statement)
    }
    loose = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node not in guarded]
    return {(node.module or "").split(".")[1] for node in loose if (node.module or "").startswith("llamarig.")}


def test_a_host_needs_nothing_that_its_release_leaves_out() -> None:
    for path in MODULES:
        if room_of(path) not in _LEFT_OUT:
            assert not unguarded(path) & set(_LEFT_OUT), path


def test_the_linter_bans_what_the_house_says() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    banned = set(settings["flake8-tidy-imports"]["banned-api"])
    used: dict[str, set[str]] = {}
    for path in MODULES:
        found = {name.split(".")[0] for name in imported(path)} & banned
        if found and path.parent != PACKAGE:
            used.setdefault(room_of(path), set()).update(found)
    assert used == {room: modules for room, (_, modules) in house().items() if modules}
    allowed = {
        pattern.removeprefix("src/llamarig/").split("/")[0]
        for pattern, rules in settings["per-file-ignores"].items()
        if pattern.startswith("src/") and "TID251" in rules
    }
    assert allowed == used.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_everything_public_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    scopes: list[ast.Module | ast.ClassDef] = [tree]
    scopes += [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
    silent = [
        node.name
        for scope in scopes
        for node in scope.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert silent == []
