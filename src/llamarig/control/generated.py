"""Files of the checkout that are generated: which of them differ from what they should be, and the command for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from llamarig.errors import LlamarigError

ROOT: Final = Path(__file__).resolve().parents[3]


def present(path: Path) -> str | None:
    """Return the text of a file, None where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else None


def outdated(wanted: Mapping[Path, str]) -> list[Path]:
    """Return the files whose text is not what it should be."""
    return [path for path, text in wanted.items() if present(path) != text]


def run(module: str, describes: str, wanted: Callable[[Path], Mapping[Path, str]], root: Path = ROOT) -> None:
    """Write the files that differ, or with ``--check`` name them and exit 1; ``python -m`` starts the module."""
    command = f"python -m {module}"
    parser = argparse.ArgumentParser(prog=command, description=describes)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something is out of date")
    arguments = parser.parse_args()
    try:
        files = wanted(root)
    except LlamarigError as error:
        sys.exit(f"{module}: {error.message}" + (f"\n    remedy: {error.remedy}" if error.remedy else ""))
    stale = outdated(files)
    for path in stale:
        if not arguments.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(root)} {'is out of date' if arguments.check else 'written'}\n")
    if stale and arguments.check:
        sys.exit(f"    remedy: .venv/bin/{command}")
