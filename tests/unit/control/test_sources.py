from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from llamarig.control.sources import check_local_models
from llamarig.errors import ConfigError
from tests.support import HOST, MODEL


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with one model in it."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "small.gguf").write_bytes(MODEL)
    return tmp_path


def source(**changes: Any) -> dict[str, Any]:
    values = {
        "name": "small.gguf",
        "path": "models/small.gguf",
        "url": None,
        "bytes": len(MODEL),
        "sha256": hashlib.sha256(MODEL).hexdigest(),
    }
    return values | changes


def refusal(root: Path, *items: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check_local_models(HOST, list(items), root)
    return caught.value


def test_a_relative_path_is_relative_to_the_checkout_and_becomes_absolute(root: Path) -> None:
    item = source()
    check_local_models(HOST, [item], root)
    assert item["path"] == str(root / "models" / "small.gguf")


def test_an_absolute_path_stays(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x.gguf"
    elsewhere.write_bytes(MODEL)
    item = source(path=str(elsewhere))
    check_local_models(HOST, [item], root)
    assert item["path"] == str(elsewhere)


def test_what_the_host_fetches_itself_is_not_looked_at(root: Path) -> None:
    item = source(path=None, url="https://models.test/small.gguf", sha256="0" * 64)
    check_local_models(HOST, [item], root)
    assert item["path"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "models/gone.gguf"}, "there is no file"),
        ({"path": "models"}, "there is no file"),
        ({"bytes": 7}, f"has {len(MODEL)} bytes, the profile says 7"),
        ({"sha256": "0" * 64}, f"has sha256 {hashlib.sha256(MODEL).hexdigest()}, the profile says {'0' * 64}"),
    ],
)
def test_a_file_that_is_not_what_the_profile_says_is_refused(root: Path, changes: dict[str, Any], message: str) -> None:
    (problem,) = refusal(root, source(**changes)).problems
    assert (problem.host, problem.key) == (HOST, "file small.gguf")
    assert message in problem.message
    assert "correct path, bytes and sha256" in problem.remedy


def test_every_bad_file_is_reported_at_once(root: Path) -> None:
    error = refusal(root, source(name="a", path="gone"), source(), source(name="b", bytes=1))
    assert [problem.key for problem in error.problems] == ["file a", "file b"]


def test_a_checksum_is_computed_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_local_models(HOST, [source()], root)

    def reads_again(*_: object) -> None:
        pytest.fail("the file was read again")

    monkeypatch.setattr(hashlib, "file_digest", reads_again)
    check_local_models(HOST, [source()], root)
    assert "the profile says" in str(refusal(root, source(sha256="0" * 64)))


def test_a_file_that_changed_is_read_again(root: Path) -> None:
    check_local_models(HOST, [source()], root)
    path = root / "models" / "small.gguf"
    before = path.stat()
    path.write_bytes(MODEL.swapcase())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert "has sha256" in str(refusal(root, source()))
