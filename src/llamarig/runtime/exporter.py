"""llamarig-exporter as a client on its host sees it."""

from __future__ import annotations

import http.client
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from llamarig.config import paths
from llamarig.config.address import EXPORTER_PORT, Address, read_address
from llamarig.runtime.connections import BoundedConnection, read_whole

# Where it listens if nobody says otherwise.
ADDRESS: Final = Address("127.0.0.1", EXPORTER_PORT)
_SECONDS: Final = 5.0
_LARGEST: Final = 1 << 16


class ExporterError(Exception):
    """The exporter does not answer as it should; the message says how."""


def exporter_health(root: Path = Path("/")) -> dict[str, Any] | None:
    """Return what the exporter says of itself; None on a host that has none.

    Raises:
        ExporterError: it does not answer, or not as an exporter does.

    """
    try:
        data = json.loads((root / paths.EXPORTER_FILE.lstrip("/")).read_text(encoding="utf-8"))
        address = read_address(data, ADDRESS)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ExporterError(f"{paths.EXPORTER_FILE} cannot be read: {error}") from error
    connection = BoundedConnection(address.near, address.port, timeout=_SECONDS)
    try:
        connection.request("GET", "/healthz")
        with connection.getresponse() as response:
            body = read_whole(response, _LARGEST)
            said = json.loads(body) if response.status == HTTPStatus.OK else None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ExporterError(f"it does not answer at {address}: {error}") from error
    finally:
        connection.close()
    if not isinstance(said, dict):
        raise ExporterError(f"it answers {response.status} at {address}")
    return said
