"""Every package is pinned with hashes, and no lock says where it comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llamarig.config import engine_options
from tests.contract.tree import ROOT, load

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
INPUTS = sorted((ROOT / "requirements").glob("*.in"))
HOST = re.compile(r"\b[a-z0-9-]+\.(com|dev|internal|io|local|net|org)\b", re.IGNORECASE)
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$")

each_lock = pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: Path) -> dict[str, str]:
    """Name and version of every requirement; each has at least one hash."""
    found: dict[str, str] = {}
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        pin = PIN.match(words[0])
        assert pin, f"{lock.name}: {line.strip()[:80]!r} is no pin"
        hashes = [word for word in words[1:] if re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word)]
        assert hashes, f"{lock.name}: {pin[1]} has no hash"
        assert len(hashes) + 1 == len([w for w in words if w != ";"]), f"{lock.name}: {line.strip()[:80]!r}"
        assert normal(pin[1]) not in found, f"{lock.name}: {pin[1]} is pinned twice"
        found[normal(pin[1])] = pin[2]
    return found


def wanted(path: Path) -> set[str]:
    names = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.split("#", 1)[0].strip()
        if text.startswith("-r "):
            names |= wanted(path.parent / text.removeprefix("-r ").strip())
        elif text:
            names.add(normal(re.split(r"[<>=!~;\[ ]", text, maxsplit=1)[0]))
    return names


@each_lock
def test_every_requirement_has_hashes(lock: Path) -> None:
    assert pins(lock)


@each_lock
def test_a_lock_names_no_place(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert not re.search(r"index-url|find-links|trusted-host|://| @ ", text)
    assert not HOST.search(text)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_what_is_asked_for_is_in_every_lock(path: Path) -> None:
    locks = [lock for lock in LOCKS if lock.name.startswith(f"{path.stem}-py")]
    assert locks, f"{path.name} has no lock"
    for lock in locks:
        assert wanted(path) - pins(lock).keys() == set(), lock.name


@pytest.mark.parametrize("python", ["311", "312", "313"])
def test_who_has_the_test_set_has_the_control_set(python: str) -> None:
    """scripts/lib.sh relies on it."""
    control = pins(ROOT / f"requirements/control-py{python}.txt")
    test = pins(ROOT / f"requirements/test-py{python}.txt")
    assert {name: test.get(name) for name in control} == control


def test_every_lock_has_an_input() -> None:
    assert {lock.name.rsplit("-py", 1)[0] for lock in LOCKS} == {path.stem for path in INPUTS}


def test_every_pinned_engine_has_its_help_recorded() -> None:
    package = load(ROOT / "group_vars/all/versions.yml")["llama_image_package"]
    source = load(ROOT / "group_vars/all/engine.yml")["llama_image_source"]
    assert {package["version"], source["version"]} <= engine_options.recorded_versions()
    assert engine_options.RECORDED in engine_options.recorded_versions()
