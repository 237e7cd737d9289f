"""Draw the pictures of the documents: ``python -m llamarig.control.docs_pictures [--check]``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from llamarig.cli.plan import picture
from llamarig.control.docs_dashboard import SCREENS
from llamarig.control.generated import ROOT, run

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


if __name__ == "__main__":
    run("llamarig.control.docs_pictures", "Draw the pictures of the documents.", pictures)
