"""The engine's lock is changed where it changed and nowhere else."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from llamarig.control.engine_lock import LockError, digests_of, read_lock, rendered, source_of, write_lock
from tests.support import ROOT

OURS = ROOT / "group_vars/all/engine.yml"
ARCHIVE = {"file": "vendor/llama.cpp-abababababab.tar.bz2", "sha256": "0" * 64, "bytes": 3568745, "pruned": True}
SITE = """\
---
# Ours, do not touch.
llama_image_source:  # the engine
  # our mirror
  repository: https://mirror.example/llama.cpp.git  # behind the firewall

  ref: "v0.7.0"   # pinned in May
  version: 0.7.0
  commit: null  # not yet
  committed:
  build: null

  archive: null  # on the share
  # the end

# Bases.
llama_image_digests: {}  # none
# Of the site.
site_note: "a 'quoted' value"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "engine.yml"
    path.write_text(SITE, encoding="utf-8")
    return path


def locked(lock: dict[str, Any], **changes: Any) -> dict[str, Any]:
    result = copy.deepcopy(lock)
    result["llama_image_source"] |= changes
    return result


def test_only_what_changed_is_changed_and_every_comment_stays(path: Path) -> None:
    changes = {"commit": "ab" * 20, "committed": 1790000000, "archive": ARCHIVE}
    lock = locked(read_lock(path), **changes)
    lock["llama_image_digests"] = {"docker.io/library/ubuntu:24.04": f"sha256:{'1' * 64}"}
    assert write_lock(path, lock) is True
    assert read_lock(path) == lock
    expected = SITE.replace("commit: null  # not yet", f"commit: {'ab' * 20}  # not yet")
    expected = expected.replace("committed:\n", "committed: 1790000000\n")
    block = "".join(f"    {key}: {str(value).lower() if value is True else value}\n" for key, value in ARCHIVE.items())
    block = block.replace("0" * 64, f"'{'0' * 64}'")
    expected = expected.replace("archive: null  # on the share\n", f"archive:  # on the share\n{block}")
    digest = f"  docker.io/library/ubuntu:24.04: sha256:{'1' * 64}\n"
    expected = expected.replace("llama_image_digests: {}  # none\n", f"llama_image_digests:  # none\n{digest}")
    assert path.read_text(encoding="utf-8") == expected


def test_going_back_gives_the_same_file_again(path: Path) -> None:
    before = read_lock(path)
    there = locked(before, commit="ab" * 20, archive=ARCHIVE) | {"engine_before": {"llama_image_source": {"ref": "x"}}}
    assert write_lock(path, there) is True
    assert write_lock(path, before) is True
    assert path.read_text(encoding="utf-8") == SITE


def test_a_file_that_says_it_all_already_is_not_touched(path: Path) -> None:
    stamp = path.stat()
    assert write_lock(path, read_lock(path)) is False
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)


def test_values_that_yaml_would_take_for_something_else_are_quoted(path: Path) -> None:
    lock = locked(read_lock(path), ref="1234567", version="0.7", commit="1e9")
    write_lock(path, lock)
    assert read_lock(path) == lock
    assert "ref: '1234567'   # pinned in May" in path.read_text(encoding="utf-8").replace("  #", "   #")


def test_one_digest_more_leaves_the_others_as_they_are(path: Path) -> None:
    text = SITE.replace("llama_image_digests: {}  # none", "llama_image_digests:\n  a: sha256:0  # old\n  b: sha256:1")
    path.write_text(text, encoding="utf-8")
    lock = read_lock(path)
    lock["llama_image_digests"] = {"a": "sha256:0", "c": "sha256:2"}
    write_lock(path, lock)
    expected = text.replace("  b: sha256:1\n", "  c: sha256:2\n")
    assert path.read_text(encoding="utf-8") == expected


def test_a_lock_without_a_last_newline_is_taken_too(path: Path) -> None:
    path.write_text(SITE.rstrip("\n"), encoding="utf-8")
    lock = locked(read_lock(path), build=5) | {"site_note": "other", "more": [1, {"a": None}]}
    write_lock(path, lock)
    assert read_lock(path) == lock


def test_a_lock_that_is_not_there_yet_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "candidate.yml"
    lock = read_lock(OURS)
    assert write_lock(path, lock) is True
    assert read_lock(path) == lock
    assert path.read_text(encoding="utf-8").startswith("---\n")
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_file_keeps_its_rights_and_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    path.chmod(0o640)
    link = tmp_path / "link.yml"
    link.symlink_to(path)
    write_lock(link, locked(read_lock(path), build=1))
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert read_lock(path)["llama_image_source"]["build"] == 1
    assert sorted(item.name for item in tmp_path.iterdir()) == ["engine.yml", "link.yml"]


def test_a_disk_without_room_leaves_the_old_lock_whole(path: Path) -> None:
    """A limit on the size of files stands for the disk: what is written does not get to its end."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from llamarig.control.engine_lock import *;"
        " signal.signal(signal.SIGXFSZ, signal.SIG_IGN); path = Path(sys.argv[1]); lock = read_lock(path);"
        " lock['more'] = 'x' * 4000; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); write_lock(path, lock)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"LockError: {path} cannot be written: File too large" in done.stderr
    assert path.read_text(encoding="utf-8") == SITE
    assert [item.name for item in path.parent.iterdir()] == ["engine.yml"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "is no plain YAML"),
        ("a: !vault |\n  1\n", "is no plain YAML"),
        ("- a\n", "holds no variables"),
    ],
)
def test_what_is_no_plain_yaml_is_an_error(path: Path, text: str, says: str) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LockError, match=says) as caught:
        read_lock(path)
    assert "git checkout" in caught.value.remedy


def test_forms_that_cannot_be_changed_in_place_are_refused_and_stay(path: Path) -> None:
    text = "x: &x {ref: a}\nllama_image_source: *x\n"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LockError, match="anchors"):
        write_lock(path, {"x": {"ref": "a"}, "llama_image_source": {"ref": "b"}})
    assert path.read_text(encoding="utf-8") == text


def test_a_lock_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LockError, match=r"there is no .*engine\.yml"):
        read_lock(tmp_path / "engine.yml")


def test_everything_wrong_with_a_lock_is_said_at_once(path: Path) -> None:
    lock = locked(read_lock(path), ref="-x", commit="v0.7.0", colour="red")
    with pytest.raises(LockError) as caught:
        source_of(path, lock)
    for key in ("ref", "commit", "colour"):
        assert f"llama_image_source.{key}: " in caught.value.message
    with pytest.raises(LockError, match="llama_image_digests"):
        digests_of(path, {"llama_image_digests": {"ubuntu:24.04": "latest"}})
    with pytest.raises(LockError, match="has no llama_image_source"):
        source_of(path, {})


def test_the_lock_of_this_checkout_can_be_read_and_changed() -> None:
    lock = read_lock(OURS)
    source = source_of(OURS, lock)
    assert source.repository.startswith("https://")
    text = OURS.read_text(encoding="utf-8")
    other = rendered(OURS, text, locked(lock, commit="cd" * 20, archive=ARCHIVE))
    assert [line for line in text.splitlines() if "#" in line] == [line for line in other.splitlines() if "#" in line]


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20), st.floats(allow_nan=False))
KEYS = st.text(st.characters(categories=["L", "N"], include_characters="._-/: @#"), min_size=1, max_size=12)
LOCKS = st.dictionaries(KEYS, st.one_of(SCALARS, st.dictionaries(KEYS, SCALARS, max_size=3)), max_size=4)


# YAML takes NEL and U+2028 for line breaks, and PyYAML does not write the first one back as it was.
@example({}, {"0": "\x85"})
@example({"0": None, "1": {"2": 3}}, {"0": "\x85x", "1": {"2": "a\u2028b"}})
@given(LOCKS, LOCKS)
def test_any_lock_becomes_any_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    text = yaml.safe_dump(before, allow_unicode=True, sort_keys=False)
    assert (yaml.safe_load(rendered(Path("engine.yml"), text, after)) or {}) == after
