"""A repository of the engine's source is the same wherever it is made."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from llamarig.lab.engine_site import REF, ensure_repository
from llamarig.lab.machine import LabError


def tree(directory: Path) -> Path:
    made = directory / "llama.cpp-1.2.3"
    (made / "src").mkdir(parents=True)
    (made / "CMakeLists.txt").write_text("project(llama.cpp)\n", encoding="utf-8")
    (made / "src/llama.cpp").write_text("int main() {}\r\n", encoding="utf-8")
    (made / "build.sh").write_text("#!/bin/sh\n", encoding="utf-8")
    (made / "build.sh").chmod(0o755)
    # What the tree itself would leave out was in the sdist all the same.
    (made / ".gitignore").write_text("src/\n", encoding="utf-8")
    return made


def said(repository: Path, *arguments: str) -> str:
    command = ["git", "--git-dir", str(repository), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_same_tree_is_the_same_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ensure_repository(tmp_path / "one", tree(tmp_path / "a"))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "somebody else")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    os.utime(tree(tmp_path / "b") / "CMakeLists.txt", (0, 0))
    other = ensure_repository(tmp_path / "other", tmp_path / "b/llama.cpp-1.2.3")
    assert said(one, "rev-parse", REF) == said(other, "rev-parse", REF)
    listed = said(one, "ls-tree", "-r", "--format=%(objectmode) %(path)", REF).splitlines()
    assert listed == ["100644 .gitignore", "100644 CMakeLists.txt", "100755 build.sh", "100644 src/llama.cpp"]
    assert said(one, "cat-file", "blob", f"{REF}:src/llama.cpp") == "int main() {}"
    assert ensure_repository(tmp_path / "one", tmp_path / "a/llama.cpp-1.2.3") == one


def test_nothing_is_left_of_a_repository_that_could_not_be_made(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"git .* failed"):
        ensure_repository(tmp_path / "one", tmp_path / "nowhere")
    assert list((tmp_path / "one").iterdir()) == []
