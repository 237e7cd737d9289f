"""How the exporter is set up: what role ``exporter`` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamarig.config import paths
from llamarig.config.address import Address, read_address
from llamarig.errors import LlamarigError
from llamarig.runtime.exporter import ADDRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where it listens, under which names it may be asked, how often it collects, and whether traffic over PCIe too."""

    address: Address = ADDRESS
    pcie_throughput: bool = False
    period_seconds: float = 5.0


def read_settings(root: Path = Path("/")) -> Settings:
    """Return the settings; the defaults where there is no file.

    Raises:
        LlamarigError: the file cannot be used.

    """
    path = root / paths.EXPORTER_FILE.lstrip("/")
    try:
        return _settings(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as error:
        raise LlamarigError(f"{path} cannot be read: {error}", "run playbooks/site.yml for this host again") from error


def _settings(data: Any) -> Settings:
    usual = Settings()
    address = read_address(data, usual.address)
    period = data.get("period_seconds", usual.period_seconds)
    if isinstance(period, bool) or not isinstance(period, int | float) or not period > 0:
        raise ValueError(f"period_seconds is {period!r}, which is no time")
    return Settings(address=address, pcie_throughput=data.get("pcie_throughput") is True, period_seconds=float(period))
