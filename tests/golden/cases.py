"""The golden cases: directories with a host's variables and, under ``expected``, every file that the host gets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import yaml

from llamarig.planning.intent import plan_host
from tests.support import HOST, below, rendered

HERE: Final = Path(__file__).parent
CASES: Final = sorted(path.parent for path in HERE.glob("*/input.yml"))


def produced(case: Path) -> dict[str, str]:
    """Plan a case and render its files, by path on the host."""
    return rendered(plan_host(HOST, yaml.safe_load((case / "input.yml").read_text(encoding="utf-8"))))


def expected(case: Path) -> dict[str, str]:
    """Return the files that were looked at and found right."""
    directory = case / "expected"
    found = (path for path in directory.rglob("*") if path.is_file())
    return {f"/{path.relative_to(directory)}": path.read_bytes().decode() for path in found}


def regenerate(case: Path) -> None:
    """Write what a case produces now; a person reads the difference before it is committed."""
    shutil.rmtree(case / "expected", ignore_errors=True)
    for name, content in produced(case).items():
        path = below(case / "expected", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
