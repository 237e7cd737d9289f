"""What apt and dpkg say of a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamarig.hardware import machine
from tests.unit.hardware.roots import Root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "uris"),
    [
        ("a.list", "deb https://a.example/x/ ./\n", ["https://a.example/x"]),
        ("a.list", "deb [arch=amd64 signed-by=/k.asc] https://a.example/x stable main\n", ["https://a.example/x"]),
        ("a.list", "# deb https://a.example/x ./\n#deb https://a.example/y ./\n", []),
        ("a.list", "deb-src https://a.example/x ./\n", []),
        ("a.list", "deb https://a.example/x ./\ndeb file:/srv/y ./\n", ["https://a.example/x", "file:/srv/y"]),
        ("a.sources", "Types: deb\nURIs: https://a.example/x/ https://b.example\nSuites: /\n", [
            "https://a.example/x", "https://b.example",
        ]),
        ("a.sources", "Types: deb\n# URIs: https://a.example/x\nURIs:https://b.example\n", ["https://b.example"]),
    ],
)  # fmt: skip
def test_a_source_names_its_archives(root: Root, name: str, text: str, uris: list[str]) -> None:
    root.write(f"etc/apt/sources.list.d/{name}", text)
    assert machine.read_apt_sources(root.path)[f"/etc/apt/sources.list.d/{name}"] == uris


def test_files_that_apt_does_not_read_are_no_sources(root: Root) -> None:
    root.write("etc/apt/sources.list", "deb https://a.example ./\n")
    root.write("etc/apt/sources.list.d/old.list.save", "deb https://b.example ./\n")
    root.write("etc/apt/sources.list.d/README", "deb https://c.example ./\n")
    assert machine.read_apt_sources(root.path) == {"/etc/apt/sources.list": ["https://a.example"]}


def test_dpkg_says_what_is_installed_and_held(root: Root) -> None:
    root.dpkg(
        ("there", "install ok installed", "5:1.2-3"),
        ("kept", "hold ok installed", "2"),
        ("gone", "deinstall ok config-files", "3"),
        ("kept-gone", "hold ok config-files", "4"),
    )
    found: dict[str, Any] = machine.read(root.path)
    assert found["packages"] == {"there": "5:1.2-3", "kept": "2"}
    assert (found["held"], found["interrupted"]) == (["kept", "kept-gone"], False)


@pytest.mark.parametrize("state", ["half-installed", "unpacked", "half-configured", "triggers-awaited"])
def test_a_package_that_is_half_there_is_an_interrupted_dpkg(root: Root, state: str) -> None:
    root.dpkg(("there", "install ok installed", "1"), ("half", f"install ok {state}", "2"))
    assert machine._dpkg(root.path) == ({"there": "1"}, [], True)


def test_a_journal_that_dpkg_did_not_finish_is_an_interrupted_dpkg(root: Root) -> None:
    root.dpkg(("there", "install ok installed", "1"))
    root.write("var/lib/dpkg/updates/0000")
    assert machine._dpkg(root.path) == ({"there": "1"}, [], True)
