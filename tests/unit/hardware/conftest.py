from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from llamarig.lab.silicon import binaries
from tests.unit.hardware.recordings import ADA, BLACKWELL, DRIVER

_CARDS = f"""\
uuid={ADA} pci=0000:01:00.0 device=2684 name=NVIDIA_GeForce_RTX_4090 memory_mib=24564 compute=8.9 power_min_w=150 \
power_max_w=600 power_default_w=450 link_generation=4 link_width=16 clock_max_mhz=3105
uuid={BLACKWELL} pci=0000:04:00.0 device=2c05 name=NVIDIA_GeForce_RTX_5070_Ti memory_mib=16303 compute=12.0 \
power_min_w=250 power_max_w=350 power_default_w=300 link_generation=5 link_width=16 clock_max_mhz=3090
"""


@dataclass
class Silicon:
    """Played cards below a root of their own; the library that plays NVML is the lab's."""

    root: Path

    def fault(self, *lines: str) -> None:
        (self.root / "var/lib/lab-silicon/faults").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")

    def module(self, version: str | None) -> None:
        path = self.root / "sys/module/nvidia/version"
        path.write_text(f"{version}\n", encoding="ascii") if version else path.unlink()

    def setting(self, uuid: str, key: str) -> str | None:
        path = self.root / "run/lab-silicon/state" / uuid / key
        return path.read_text(encoding="ascii").strip() if path.exists() else None


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the played libnvidia-ml.so.1."""
    directory = tmp_path_factory.mktemp("nvml")
    target = directory / f"libnvidia-ml.so.{DRIVER}"
    target.write_bytes(binaries.nvml(binaries.Driver(DRIVER, 13000)))
    (directory / "libnvidia-ml.so.1").symlink_to(target.name)
    return directory


@pytest.fixture
def silicon(tmp_path: Path, nvml_library: Path, monkeypatch: pytest.MonkeyPatch) -> Silicon:
    """Two cards and a loaded driver."""
    root = tmp_path / "silicon"
    for directory in ("var/lib/lab-silicon", "sys/module/nvidia", "run/lab-silicon", "dev", "proc"):
        (root / directory).mkdir(parents=True)
    (root / "var/lib/lab-silicon/cards").write_text(_CARDS, encoding="ascii")
    for node in ("nvidia0", "nvidia1", "nvidiactl"):
        (root / "dev" / node).touch()
    result = Silicon(root)
    result.module(DRIVER)
    monkeypatch.setenv("LAB_SILICON_ROOT", str(root))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml_library))
    return result
