"""One judge and one directory of ghosts for all cases; what was compared is kept for the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llamarig.lab.judge import Judge
from tests.engine.truth import Row


@pytest.fixture(scope="session")
def ghosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory that the judge may read."""
    directory = tmp_path_factory.mktemp("ghosts")
    for path in (directory, *directory.parents):
        if path.is_relative_to(tmp_path_factory.getbasetemp()):
            path.chmod(0o755)
    return directory


@pytest.fixture(scope="session")
def judge(ghosts: Path) -> Iterator[Judge]:
    """Return the engine, with no devices yet."""
    with Judge([], ghosts) as running:
        yield running


@pytest.fixture(scope="session")
def seen() -> dict[str, list[Row]]:
    """Collect rows by case, so that the last test compares them with the page that shows them."""
    return {}
