"""What systemd is told of a process, how often it wants to hear of it, and how it reads what one logs.

https://www.freedesktop.org/software/systemd/man/sd_notify.html
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

# systemd's priorities, which it reads in front of each line (sd-daemon(3)).
_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def notify(words: str, environment: Mapping[str, str] = os.environ) -> None:
    """Tell systemd, where it listens: ``READY=1``, ``STOPPING=1``, ``WATCHDOG=1``, ``STATUS=`` and a sentence."""
    place = environment.get("NOTIFY_SOCKET", "")
    if not place:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(f"\0{place[1:]}" if place.startswith("@") else place)
        sock.send(words.encode())


def watchdog_seconds(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return the seconds within which systemd wants to hear ``WATCHDOG=1``; None where it does not."""
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(os.getpid()))
    return int(text) / 1e6 if text.isdigit() and int(text) and pid == str(os.getpid()) else None


class Marked(logging.Formatter):
    """Sentences as systemd reads them."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record with its priority in front of each line."""
        mark = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        # What others said may be in it: no line of it may pass for one of our own.
        return mark + super().format(record).replace("\n", f"\n{mark}  ")


def log_to_systemd() -> None:
    """Log to standard error: as systemd reads it where it does, otherwise with the time in front."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Marked() if "JOURNAL_STREAM" in os.environ else logging.Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("asyncio", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
