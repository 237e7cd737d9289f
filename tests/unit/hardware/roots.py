"""A machine's file system in a directory, as far as a test writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Root:
    """A machine's file system, as far as it was written."""

    path: Path

    def write(self, name: str, text: str = "") -> Path:
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        return place

    def link(self, name: str, target: str) -> None:
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def card(self, address: str, *, driver: str | None = None, **files: str) -> None:
        shown = {"vendor": "0x10de", "device": "0x2684", "class": "0x030000", **files}
        for name, content in shown.items():
            self.write(f"sys/bus/pci/devices/{address}/{name}", f"{content}\n")
        if driver:
            self.link(f"sys/bus/pci/devices/{address}/driver", f"../../../../bus/pci/drivers/{driver}")

    def dpkg(self, *packages: tuple[str, str, str]) -> None:
        blocks = [
            f"Package: {name}\nStatus: {status}\nMaintainer: nobody\nVersion: {version}\nDescription: a\n Package: b"
            for name, status, version in packages
        ]
        self.write("var/lib/dpkg/status", "\n\n".join(blocks) + "\n")
