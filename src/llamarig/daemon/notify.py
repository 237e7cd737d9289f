"""What systemd is told of the daemon, and how often it wants to hear of it.

https://www.freedesktop.org/software/systemd/man/sd_notify.html
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


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
