from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from llamarig.control.generated import outdated, run
from llamarig.errors import LlamarigError


def wanted(root: Path) -> Mapping[Path, str]:
    return {root / "same.md": "a\n", root / "other.md": "b\n", root / "new/board.json": "{}\n"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "same.md").write_text("a\n", encoding="utf-8")
    (tmp_path / "other.md").write_text("before\n", encoding="utf-8")
    return tmp_path


def generate(place: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr("sys.argv", ["generate", *options])
    run("llamarig.example", "Write examples.", wanted, place)


def test_what_differs_and_what_is_not_there_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    untouched = (place / "same.md").stat().st_mtime_ns
    generate(place, monkeypatch)
    assert capsys.readouterr().out == "other.md written\nnew/board.json written\n"
    assert outdated(wanted(place)) == []
    assert (place / "same.md").stat().st_mtime_ns == untouched
    generate(place, monkeypatch, "--check")
    assert capsys.readouterr().out == ""


def test_check_names_it_and_changes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        generate(place, monkeypatch, "--check")
    assert ended.value.code == "    remedy: .venv/bin/python -m llamarig.example"
    assert capsys.readouterr().out == "other.md is out of date\nnew/board.json is out of date\n"
    assert [path.name for path in outdated(wanted(place))] == ["other.md", "board.json"]


def test_what_cannot_be_generated_is_said_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Mapping[Path, str]:
        raise LlamarigError("nobody says what it is", "say it")

    monkeypatch.setattr("sys.argv", ["generate"])
    with pytest.raises(SystemExit) as ended:
        run("llamarig.example", "Write examples.", refuse, tmp_path)
    assert ended.value.code == "llamarig.example: nobody says what it is\n    remedy: say it"
