from __future__ import annotations

import platform
from pathlib import Path

import pytest

from llamarig.lab import machine
from tests.support import below

MIRROR = "http://mirror.test/debian"
DEB822 = f"""\
# Debian sources
Types: deb deb-src
URIs: {MIRROR}/
Suites: trixie trixie-updates
Components: main

Types: deb
URIs: http://security.test/debian-security
Suites: trixie-security
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An /etc/apt of our own."""
    monkeypatch.setattr(machine, "Path", lambda path: below(tmp_path, path))
    directory = tmp_path / "etc/apt"
    (directory / "sources.list.d").mkdir(parents=True)
    return directory


@pytest.mark.parametrize(
    "line",
    [
        f"deb {MIRROR} trixie main",
        f"deb {MIRROR}/ trixie main",
        f"deb\t{MIRROR}\ttrixie main",
        f"  deb  {MIRROR} trixie main",
        f"deb [arch=amd64] {MIRROR} trixie main",
        f"deb [ arch=amd64 signed-by=/usr/share/keyrings/a.gpg ] {MIRROR} trixie main",
    ],
)
def test_the_mirror_is_read_from_one_line_sources(apt: Path, line: str) -> None:
    (apt / "sources.list").write_text(f"# comment\n\n{line}\n", encoding="utf-8")
    assert machine.debian_mirror() == MIRROR


def test_the_mirror_is_read_from_deb822_sources(apt: Path) -> None:
    (apt / "sources.list.d" / "debian.sources").write_text(DEB822, encoding="utf-8")
    assert machine.debian_mirror() == MIRROR


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list", f"# deb {MIRROR} trixie main\n"),
        ("sources.list", f"deb-src {MIRROR} trixie main\n"),
        ("sources.list", f"deb {MIRROR}-security trixie-security main\n"),
        ("sources.list", "deb http://mirror.test/ubuntu noble main\n"),
        ("sources.list.d/debian.sources", f"#URIs: {MIRROR}\n"),
        ("sources.list.d/debian.sources.save", f"URIs: {MIRROR}\n"),
        ("sources.list.d/readme", f"deb {MIRROR} trixie main\n"),
    ],
)
def test_what_apt_itself_would_not_use_for_debian_is_no_mirror(apt: Path, name: str, text: str) -> None:
    (apt / name).write_text(text, encoding="utf-8")
    assert "mirror.test" not in machine.debian_mirror()


def test_the_first_mirror_wins_and_sources_list_is_first(apt: Path) -> None:
    (apt / "sources.list.d" / "b.list").write_text("deb http://third.test/debian trixie main\n", encoding="utf-8")
    (apt / "sources.list.d" / "a.sources").write_text("URIs: http://second.test/debian\n", encoding="utf-8")
    assert machine.debian_mirror() == "http://second.test/debian"
    (apt / "sources.list").write_text("deb http://first.test/debian trixie main\n", encoding="utf-8")
    assert machine.debian_mirror() == "http://first.test/debian"


@pytest.mark.parametrize(
    ("release", "suite", "mirror"),
    [
        ({"ID": "ubuntu"}, "noble", "http://mirror.test/ubuntu"),
        ({"ID": "debian"}, "trixie", "http://mirror.test/debian"),
        ({"ID": "arch"}, "trixie", "http://mirror.test/debian"),
    ],
)
def test_lab_hosts_are_made_of_this_machines_distribution_where_it_can_be(
    apt: Path, monkeypatch: pytest.MonkeyPatch, release: dict[str, str], suite: str, mirror: str
) -> None:
    lines = [f"deb http://mirror.test/{name} any main\n" for name in ("ubuntu", "debian")]
    (apt / "sources.list").write_text("".join(lines), encoding="utf-8")
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    assert (machine.base().suite, machine.base().mirror) == (suite, mirror)


def test_the_cards_of_this_machine_are_hidden_from_lab_hosts(tmp_path: Path) -> None:
    assert machine.hidden_bus(tmp_path) == ["--tmpfs", str(tmp_path)]
    assert machine.hidden_bus(tmp_path / "none") == []
