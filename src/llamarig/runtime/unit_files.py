"""Unit files: systemd knows what it read, and reads again when it is told to."""

from __future__ import annotations

import subprocess
from typing import Final

from llamarig.errors import LlamarigError

_RELOAD: Final = ("/usr/bin/systemctl", "daemon-reload")


def reload_units() -> None:
    """Let systemd read its unit files anew; what runs goes on.

    Raises:
        LlamarigError: it does not.

    """
    done = subprocess.run(_RELOAD, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise LlamarigError(f"systemctl daemon-reload failed: {done.stderr.strip()}", "see: journalctl --boot -p err")
