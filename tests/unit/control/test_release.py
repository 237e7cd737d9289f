from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from llamarig.config import paths
from llamarig.control.release import Release, ReleaseError
from tests.support import ROOT, below, make_spec, provision

Change = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the checkout's parts that a release is made of."""
    return copy_checkout(tmp_path / "checkout")


def copy_checkout(target: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__", "_release.py")
    shutil.copytree(ROOT / "src", target / "src", ignore=ignore)
    shutil.copytree(ROOT / "requirements", target / "requirements")
    return target


def release(root: Path, python: str = "3.12", machine: str = "x86_64") -> Release:
    return Release(root, python=python, machine=machine)


def append(path: str) -> Change:
    def change(root: Path) -> None:
        with (root / path).open("a", encoding="utf-8") as stream:
            stream.write("# changed\n")

    return change


def test_the_name_is_twelve_digits_and_the_same_in_every_checkout(root: Path, tmp_path: Path) -> None:
    name = release(root).name
    assert len(name) == 12
    assert int(name, 16) >= 0
    assert release(copy_checkout(tmp_path / "another")).name == name


@pytest.mark.parametrize(
    "change",
    [
        append("src/llamarig/cli/main.py"),
        append("requirements/agent-py312.txt"),
        lambda root: (root / "src/llamarig/cli/new.py").write_text("", encoding="ascii"),
        lambda root: (root / "src/llamarig/cli/follow.py").unlink(),
        lambda root: (root / "src/llamarig/cli/follow.py").rename(root / "src/llamarig/cli/tail.py"),
    ],
    ids=["source", "lock", "new file", "file gone", "file renamed"],
)
def test_the_name_changes_with_what_goes_in(root: Path, change: Change) -> None:
    before = release(root).name
    change(root)
    assert release(root).name != before


def test_the_name_changes_with_python_and_machine(root: Path) -> None:
    names = {release(root, *kind).name for kind in (("3.12", "x86_64"), ("3.13", "x86_64"), ("3.12", "aarch64"))}
    assert len(names) == 3


@pytest.mark.parametrize(
    "change",
    [
        append("src/llamarig/planning/plan.py"),
        append("src/llamarig/lab/hosts.py"),
        append("src/llamarig/control/release.py"),
        append("requirements/agent-py313.txt"),
        lambda root: (root / "src/llamarig/__pycache__").mkdir(),
    ],
    ids=["planning", "lab", "control", "another lock", "cache"],
)
def test_the_name_does_not_change_with_what_stays_on_the_control_node(root: Path, change: Change) -> None:
    before = release(root).name
    change(root)
    assert release(root).name == before


def test_a_python_without_locked_requirements_is_refused(root: Path) -> None:
    with pytest.raises(ReleaseError, match=r"no locked requirements for Python 3\.9") as caught:
        _ = release(root, "3.9").name
    assert "3.12 (Ubuntu 24.04)" in caught.value.remedy


def test_dependencies_that_cannot_be_had_are_an_error_and_leave_no_archive(root: Path) -> None:
    (root / "requirements" / "agent-py312.txt").write_text(f"click==8.3.0 --hash=sha256:{'0' * 64}\n", encoding="ascii")
    with pytest.raises(ReleaseError, match="could not be installed"):
        release(root).build()
    assert sorted(path.name for path in (root / ".cache" / "releases").iterdir()) == ["lock"]


def test_a_release_is_the_same_bytes_wherever_it_is_built_and_works_on_its_own(root: Path, tmp_path: Path) -> None:
    python = f"3.{sys.version_info.minor}"
    lock = root / "requirements" / f"agent-py3{sys.version_info.minor}.txt"
    if not lock.exists():  # the control node's Python may be older than any host's
        shutil.copyfile(root / "requirements" / "agent-py312.txt", lock)
    another = shutil.copytree(root, tmp_path / "another" / "deeper")
    first, digest = release(root, python).build()
    second, same = release(another, python).build()
    assert digest == same
    assert first.read_bytes() == second.read_bytes()

    stamp = first.stat().st_mtime_ns
    assert release(root, python).build() == (first, digest)
    assert first.stat().st_mtime_ns == stamp

    with tarfile.open(first) as tar:
        assert {(m.uid, m.gid, m.mtime, m.mode & 0o022) for m in tar} == {(0, 0, 0, 0)}
        tar.extractall(tmp_path / "release", filter="data")
    host = tmp_path / "host"
    provision(host, make_spec("alpha"))
    command = [sys.executable, "-IS", str(tmp_path / "release" / "bin" / "llamarig")]
    environment = {**os.environ, "LLAMARIG_ROOT": str(host)}
    for words in (["version", "--json"], ["plan", "alpha", "--json"], ["history", "--json"], ["doctor", "--help"]):
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=True, env=environment)
        if words[0] == "version":
            assert json.loads(done.stdout)["data"]["release"] == release(root, python).name
    # The daemon has everything that it imports; where it may not listen it ends at once.
    place = below(host, paths.READ_SOCKET)
    place.parent.mkdir(parents=True)
    place.touch()
    command[-1] += "d"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, "llamarigd cannot serve" in done.stderr) == (1, True), done.stderr
