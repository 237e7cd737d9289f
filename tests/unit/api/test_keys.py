from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from llamarig.api import keys
from llamarig.api.keys import KeyRing
from llamarig.config import paths
from llamarig.errors import ExitCode, LlamarigError, NotFoundError
from tests.support import below


def file_of(root: Path) -> Path:
    return below(root, paths.API_KEYS_FILE)


def write(root: Path, content: bytes) -> None:
    file_of(root).parent.mkdir(parents=True, exist_ok=True)
    file_of(root).write_bytes(content)


def test_a_key_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    text = keys.add(tmp_path, "wall", "read", now=lambda: 1234.5678)
    assert text.startswith("llamarig_")
    assert len(text.removeprefix("llamarig_")) >= 43, "256 bits"
    kept = file_of(tmp_path).read_text(encoding="utf-8")
    assert text not in kept
    assert text.removeprefix("llamarig_") not in kept
    assert json.loads(kept) == {
        "keys": [{"name": "wall", "scope": "read", "sha256": keys.digest(text), "created": 1234.568}]
    }
    assert [(key.name, key.scope) for key in keys.listed(tmp_path)] == [("wall", "read")]


def test_no_key_is_like_another(tmp_path: Path) -> None:
    texts = {keys.add(tmp_path, f"key{number}", "read") for number in range(20)}
    assert len(texts) == 20


def test_only_root_and_the_daemon_may_read_the_file(tmp_path: Path) -> None:
    keys.add(tmp_path, "wall", "read")
    assert stat.S_IMODE(file_of(tmp_path).stat().st_mode) == 0o640
    others = [path for path in file_of(tmp_path).parent.iterdir() if path != file_of(tmp_path)]
    # What keeps others from writing can be opened, and so held, by root alone.
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in others] == [(".api-keys.lock", 0o600)]


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_the_files_mode_is_the_same_whatever_roots_umask_is(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        keys.add(tmp_path, "wall", "read")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file_of(tmp_path).parent.iterdir()}
    assert modes == {file_of(tmp_path).name: 0o640, ".api-keys.lock": 0o600}


@pytest.mark.parametrize("revokes", [False, True])
def test_a_power_cut_undoes_nothing(*, revokes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is on disk before it has its name, and the name before anybody is told."""
    keys.add(tmp_path, "wall", "read")
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink().name))
    if revokes:
        keys.revoke(tmp_path, "wall")
    else:
        keys.add(tmp_path, "ci", "read")
    assert synced == [f".{file_of(tmp_path).name}.new", file_of(tmp_path).parent.name]


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "a/b", "a\n", "x" * 65, "ä"])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(LlamarigError, match="no name"):
        keys.add(tmp_path, name, "read")
    assert not file_of(tmp_path).exists()


def test_a_name_or_a_scope_that_cannot_be_is_refused(tmp_path: Path) -> None:
    keys.add(tmp_path, "wall", "read")
    with pytest.raises(LlamarigError, match="already"):
        keys.add(tmp_path, "wall", "manage")
    with pytest.raises(LlamarigError, match="no scope"):
        keys.add(tmp_path, "other", "root")


def test_a_key_is_taken_back(tmp_path: Path) -> None:
    text = keys.add(tmp_path, "wall", "read")
    keys.add(tmp_path, "ci", "manage")
    ring = KeyRing(tmp_path)
    assert ring.scope(text) == "read"
    keys.revoke(tmp_path, "wall")
    assert ring.scope(text) is None
    assert [key.name for key in keys.listed(tmp_path)] == ["ci"]
    with pytest.raises(NotFoundError, match="no key 'wall'") as caught:
        keys.revoke(tmp_path, "wall")
    assert caught.value.exit_code is ExitCode.NOT_FOUND
    assert "ci" in caught.value.remedy


def test_keys_say_what_they_may(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    assert [ring.required, ring.scope("anything")] == [False, None]
    reads, manages = keys.add(tmp_path, "wall", "read"), keys.add(tmp_path, "ci", "manage")
    assert [ring.required] == [True]
    assert (ring.scope(reads), ring.scope(manages)) == ("read", "manage")
    for wrong in ("", reads[:-1], f"{reads}x", reads.upper(), "llamarig_", "\udcff", keys.digest(reads)):
        assert ring.scope(wrong) is None


def test_every_key_is_compared_in_constant_time_whichever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [keys.add(tmp_path, f"key{number}", "read") for number in range(5)]
    ring = KeyRing(tmp_path)
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    counts = []
    for text in [texts[0], texts[-1], "llamarig_wrong"]:
        compared.clear()
        ring.scope(text)
        counts.append(len(compared))
        assert all(len(one) == len(other) == 64 for one, other in compared)
    assert counts == [5, 5, 5]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"keys": 3}',
        b'{"keys": [{}]}',
        b'{"keys": [{"name": "a", "scope": "root", "sha256": "' + b"0" * 64 + b'", "created": 1}]}',
        b'{"keys": [{"name": "a", "scope": "manage", "sha256": "", "created": 1}]}',
        b"\xff",
    ],
)
def test_a_file_that_cannot_be_read_lets_nobody_in(content: bytes, tmp_path: Path) -> None:
    write(tmp_path, content)
    ring = KeyRing(tmp_path)
    assert ring.required
    assert ring.scope("anything") is None
    assert ring.scope("") is None
    for work in (lambda: keys.add(tmp_path, "b", "read"), lambda: keys.listed(tmp_path)):
        with pytest.raises(LlamarigError, match="cannot be read"):
            work()


def test_a_file_that_is_mended_is_read_again(tmp_path: Path) -> None:
    text = keys.add(tmp_path, "wall", "read")
    good = file_of(tmp_path).read_bytes()
    ring = KeyRing(tmp_path)
    write(tmp_path, b"{ ")
    assert ring.scope(text) is None
    write(tmp_path, good)
    assert ring.scope(text) == "read"
    file_of(tmp_path).unlink()
    assert not ring.required
    assert ring.scope(text) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_lets_nobody_in(tmp_path: Path) -> None:
    keys.add(tmp_path, "wall", "read")
    file_of(tmp_path).chmod(0)
    assert KeyRing(tmp_path).required


def test_keys_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    names = [f"key{number}" for number in range(12)]
    threads = [threading.Thread(target=keys.add, args=(tmp_path, name, "read")) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in keys.listed(tmp_path)} == set(names)
