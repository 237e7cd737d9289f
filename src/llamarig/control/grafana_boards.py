"""The dashboards of the role ``monitoring``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from llamarig.control.generated import ROOT
from llamarig.control.grafana import to_json
from llamarig.control.grafana_fleet import FLEET
from llamarig.control.grafana_host import HOST
from llamarig.control.grafana_service import SERVICE

PLACE: Final = Path("roles/monitoring/files/dashboards")
BOARDS: Final = (FLEET, HOST, SERVICE)


def files(root: Path = ROOT) -> dict[Path, str]:
    """Return every dashboard's file with its text as it should be."""
    return {root / PLACE / f"{board.name}.json": to_json(board) for board in BOARDS}
