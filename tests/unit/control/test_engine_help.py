from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.config.engine_options import parse_help, recorded_versions
from llamarig.control.engine_help import FOLDER, record_help
from llamarig.errors import LlamarigError
from tests.support import ROOT

KNOWN = (ROOT / FOLDER / "0.7.0.txt").read_text(encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "0.7.0.txt").write_text(KNOWN, encoding="utf-8")
    return tmp_path


def test_the_folder_is_the_one_that_the_planner_reads() -> None:
    assert {path.stem for path in (ROOT / FOLDER).glob("*.txt")} == recorded_versions()


def test_a_new_version_is_recorded_under_its_name(checkout: Path) -> None:
    assert record_help(checkout, "0.8.0", KNOWN) == ("0.8.0", True)
    assert record_help(checkout, "0.8.0", KNOWN) == ("0.8.0", False)
    assert (checkout / FOLDER / "0.8.0.txt").read_text(encoding="utf-8") == KNOWN


def test_the_same_text_is_no_news(checkout: Path) -> None:
    assert record_help(checkout, "0.7.0", KNOWN) == ("0.7.0", False)
    assert len(list((checkout / FOLDER).iterdir())) == 1


def test_a_build_with_other_options_is_told_apart_and_the_known_help_stays(checkout: Path) -> None:
    other = KNOWN.replace("--jinja", "--ninja")
    name, changed = record_help(checkout, "0.7.0", other)
    assert changed
    assert name.startswith("0.7.0+")
    assert record_help(checkout, name, other) == (name, False)
    assert (checkout / FOLDER / "0.7.0.txt").read_text(encoding="utf-8") == KNOWN
    assert "ninja" in parse_help((checkout / FOLDER / f"{name}.txt").read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", ["", "error: no such file\n", "--model FNAME\n"])
def test_what_is_no_help_is_refused(checkout: Path, text: str) -> None:
    with pytest.raises(LlamarigError, match="--ctx-size"):
        record_help(checkout, "0.9.0", text)
    assert not (checkout / FOLDER / "0.9.0.txt").exists()
