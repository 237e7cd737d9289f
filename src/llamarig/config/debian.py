"""What a minimal Debian is made with, by mmdebstrap, on hosts and in the lab alike."""

from __future__ import annotations

from typing import Final

KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
MINIMAL_ROOT: Final = (
    "mmdebstrap",
    "--variant=minbase",
    # The suite's Release file can be past its date on a mirror that stands still.
    '--aptopt=Acquire::Check-Valid-Until "false"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
)
