"""Draw the pictures of the documents: ``python -m llamarig.control.docs_pictures``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from llamarig.cli.plan import picture
from llamarig.control.docs_dashboard import SCREENS
from llamarig.errors import LlamarigError

ROOT: Final = Path(__file__).resolve().parents[3]
_COMMAND: Final = "python -m llamarig.control.docs_pictures"
# Each picture of a plan of the example inventory: the service that it shows, or all, and the hosts, or all.
_PLANS: Final[Mapping[str, tuple[str | None, str | None]]] = {
    "docs/pictures/two-cards.svg": ("glm-q8", None),
    "docs/pictures/experts-on-the-host.svg": ("gpt-oss", None),
    "docs/pictures/equal-boxes.svg": (None, "office"),
}
PICTURES: Final[Mapping[str, object]] = {**_PLANS, **SCREENS}


def pictures(root: Path = ROOT) -> dict[Path, str]:
    """Return every picture as it should be.

    Raises:
        LlamarigError: the example inventory has problems.

    """
    example = root / "inventories/example"
    plans = {root / name: picture(example, service, limit) for name, (service, limit) in _PLANS.items()}
    return plans | {root / name: draw() for name, draw in SCREENS.items()}


def main() -> None:
    """Write the pictures, or with ``--check`` name those that are out of date."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description="Draw the pictures of the documents.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a picture is out of date")
    arguments = parser.parse_args()
    try:
        wanted = pictures()
    except LlamarigError as error:
        sys.exit(f"docs_pictures: {error.message}")
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if not arguments.check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)} {'is out of date' if arguments.check else 'written'}\n")
    if stale and arguments.check:
        sys.exit(f"    remedy: .venv/bin/{_COMMAND}")


if __name__ == "__main__":
    main()
