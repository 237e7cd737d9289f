from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.cases import CASES, expected, produced


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_host_gets_these_files_and_no_others(case: Path) -> None:
    assert sorted(produced(case)) == sorted(expected(case))


@pytest.mark.parametrize(
    ("case", "path"),
    [(case, path) for case in CASES for path in sorted(expected(case))],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_a_file_is_what_a_person_found_right(case: Path, path: str) -> None:
    assert produced(case)[path] == expected(case)[path]
