"""A template is a form, not a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, nodes

from llamarig.control import docs_intent
from tests.contract.tree import ROOT

TEMPLATES = sorted(ROOT.glob("templates/*/*.j2"))
LINES = 60
DEPTH = 2
FILTERS = {"comment", "indent", "join", "quote", "to_json", "to_nice_json", "to_nice_yaml"}
FORBIDDEN = (
    nodes.Assign,
    nodes.AssignBlock,
    nodes.BinExpr,
    nodes.Block,
    nodes.Call,
    nodes.CallBlock,
    nodes.Compare,
    nodes.CondExpr,
    nodes.Extends,
    nodes.FilterBlock,
    nodes.FromImport,
    nodes.Import,
    nodes.Include,
    nodes.Macro,
    nodes.Neg,
    nodes.NSRef,
    nodes.Pos,
)

each_template = pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))


def parsed(path: Path) -> nodes.Template:
    environment = Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701  nothing is rendered
    return environment.parse(path.read_text(encoding="utf-8"))


def read_by(path: Path) -> set[str]:
    """Names that a template reads and does not bind itself."""
    names = list(parsed(path).find_all(nodes.Name))
    return {name.name for name in names if name.ctx == "load"} - {name.name for name in names if name.ctx == "store"}


def depth(node: nodes.Node) -> int:
    inner = max((depth(child) for child in node.iter_child_nodes()), default=0)
    return inner + isinstance(node, (nodes.For, nodes.If))


@each_template
def test_a_template_does_not_compute(path: Path) -> None:
    found = {f"{type(node).__name__} in line {node.lineno}" for node in parsed(path).find_all(FORBIDDEN)}
    assert found == set()


@each_template
def test_a_template_uses_few_filters(path: Path) -> None:
    assert {node.name for node in parsed(path).find_all(nodes.Filter)} <= FILTERS


@each_template
def test_a_template_is_short_and_flat(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES
    assert depth(parsed(path)) <= DEPTH


@each_template
def test_a_template_says_who_wrote_the_file(path: Path) -> None:
    if not path.name.endswith(".json.j2"):
        first = "".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:2])
        comment = "//" if path.name.endswith(".rules.j2") else "#"
        assert f"{comment} Written by llamarig, role {path.parent.name}" in first


def given() -> dict[str, set[str]]:
    """The variables that manifests hand to each template."""
    entries = docs_intent.example()["manifest"]["files"]
    # Archives are a site's own; planning/stack.py makes an entry of each.
    found: dict[str, set[str]] = {"apt_sources/archive.sources.j2": {"archive"}}
    for entry in entries:
        found.setdefault(f"llama_service/{entry['template']}", set()).update(entry["vars"])

    def walk(node: Any, role: str) -> None:
        if isinstance(node, dict):
            if "template" in node and "path" in node:
                found.setdefault(f"{role}/{node['template']}", set()).update(node.get("vars", {}))
            node = list(node.values())
        if isinstance(node, list):
            for item in node:
                walk(item, role)

    for path in [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/vars/*.yml")]:
        walk(yaml.safe_load(path.read_text(encoding="utf-8")), path.parent.parent.name)
    return found


@each_template
def test_a_template_reads_what_its_manifest_gives_and_nothing_else(path: Path) -> None:
    name = str(path.relative_to(ROOT / "templates"))
    assert name in given(), "no manifest prints this template"
    assert read_by(path) == given()[name]


def test_this_test_sees_a_program(tmp_path: Path) -> None:
    bad = tmp_path / "bad.j2"
    for text in (
        "{% set a = 1 %}",
        "{% macro m() %}{% endmacro %}",
        "{{ a + 1 }}",
        "{{ lookup('file', 'x') }}",
        "{{ 'a' if b == 1 }}",
        "{% set n = namespace(a=1) %}",
    ):
        bad.write_text(text)
        assert list(parsed(bad).find_all(FORBIDDEN)), text
