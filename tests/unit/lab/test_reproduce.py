from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from llamarig.lab.machine import LabError
from llamarig.lab.reproduce import compare, source_tree, tree_version

LISTS = "".join(f"set(LLAMA_VERSION_{part} {number})\n" for part, number in (("MAJOR", 0), ("MINOR", 7), ("PATCH", 12)))


def tree(directory: Path, text: str = LISTS) -> Path:
    directory.mkdir(parents=True)
    (directory / "CMakeLists.txt").write_text(text, encoding="utf-8")
    return directory


def test_the_version_is_the_trees_own(tmp_path: Path) -> None:
    assert tree_version(tree(tmp_path / "a")) == "0.7.12"
    for bad in (tree(tmp_path / "b", "set(LLAMA_VERSION_MAJOR 1)\n"), tmp_path):
        with pytest.raises(LabError, match=r"is no llama\.cpp"):
            tree_version(bad)


def test_files_that_differ_or_are_in_one_alone_are_named() -> None:
    assert compare({"a": "1", "b": "2"}, {"a": "1", "b": "2"}) == []
    assert compare({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "x", "d": "4"}) == ["b", "c", "d"]


@pytest.mark.parametrize("around", ["", "llama.cpp-v0.7.12/"])
def test_a_source_may_be_a_directory_or_an_archive(tmp_path: Path, around: str) -> None:
    directory = tree(tmp_path / "source")
    with source_tree(directory) as found:
        assert found == directory
    archive = tmp_path / "source.tar.gz"
    with tarfile.open(archive, "w:gz") as writer:
        writer.add(directory / "CMakeLists.txt", f"{around}CMakeLists.txt")
    with source_tree(archive) as found:
        assert tree_version(found) == "0.7.12"
    assert not found.exists()


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "other.tar"
    with tarfile.open(archive, "w") as writer:
        writer.add(tree(tmp_path / "one/two/three"), "one/two/three")
    with pytest.raises(LabError, match=r"other\.tar holds no llama\.cpp"), source_tree(archive):
        pass
    with pytest.raises(LabError, match="there is no"), source_tree(tmp_path / "nothing"):
        pass
