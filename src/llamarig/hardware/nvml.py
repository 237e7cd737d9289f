"""GPUs through NVML, asked in this process.

The one importer of ``pynvml`` (a module of the distribution nvidia-ml-py), and only when a card is asked. A broken
driver can block a call for good; :mod:`llamarig.hardware.nvml_process` asks in another process and cannot be blocked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from llamarig.hardware.gpus import (
    MISMATCH,
    NOT_FOUND,
    THROTTLES,
    Card,
    CardFault,
    GpuProcess,
    Reading,
    Setting,
    explained,
)

# Not supported, not found, no such function: a card without that sensor, or a driver that does not know the question.
ABSENT: Final = frozenset({3, NOT_FOUND, 13})
MODULE_FILE: Final = "sys/module/nvidia/version"


def binding() -> Any:
    """Return the module through which NVML is asked; most commands ask no card, and do without it."""
    import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415  see above

    return pynvml


def module_version(root: Path = Path("/")) -> str | None:
    """Return the version of the kernel module that is loaded, None where none is."""
    try:
        text = (root / MODULE_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # One that is being unloaded may say nothing.
    return text.strip() or None


class Nvml:
    """The cards. libnvidia-ml is loaded once in a process and never again: a new driver needs a new process."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def read(self) -> Reading:
        """Return what the cards say."""
        with self._session() as nvml:
            found = [_read(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
            return Reading(
                driver_version=_optional(nvml, nvml.nvmlSystemGetDriverVersion),
                cards=tuple(item for item in found if isinstance(item, Card)),
                faults=tuple(item for item in found if isinstance(item, CardFault)),
            )

    def apply(self, setting: Setting) -> None:
        """Change one setting of one card."""
        with self._session() as nvml:
            handle = nvml.nvmlDeviceGetHandleByUUID(setting.uuid)
            match setting.key, setting.value:
                case "persistence", value:
                    nvml.nvmlDeviceSetPersistenceMode(handle, int(bool(value)))
                case "power_limit_w", int() | float() as watts:
                    nvml.nvmlDeviceSetPowerManagementLimit(handle, round(watts * 1000))
                case "clock_lock_mhz", None:
                    nvml.nvmlDeviceResetGpuLockedClocks(handle)
                case "clock_lock_mhz", (lowest, highest):
                    nvml.nvmlDeviceSetGpuLockedClocks(handle, lowest, highest)
                case _:
                    msg = f"no setting of a card: {setting}"
                    raise ValueError(msg)

    @contextmanager
    def _session(self) -> Iterator[Any]:
        pynvml = binding()
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise explained(error.value, self._versions() if error.value == MISMATCH else "") from error
        try:
            yield pynvml
        except pynvml.NVMLError as error:
            raise explained(error.value) from error
        finally:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def _versions(self) -> str:
        """Say which versions do not fit: the loaded library's by its file's name, the module's by its own word."""
        userspace = "?"
        with suppress(OSError):
            maps = (self.root / "proc/self/maps").read_text(encoding="utf-8", errors="replace")
            userspace = next(iter(re.findall(r"/libnvidia-ml\.so\.(\d+(?:\.\d+)+)$", maps, re.MULTILINE)), "?")
        return f"user space {userspace}, module {module_version(self.root) or '?'}"


def _read(nvml: Any, index: int) -> Card | CardFault:
    identity: dict[str, str] = {}
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        identity["uuid"] = nvml.nvmlDeviceGetUUID(handle)
        identity["pci_address"] = pci_address(nvml.nvmlDeviceGetPciInfo_v3(handle).busId)
        return _read_card(nvml, handle, index, identity)
    except nvml.NVMLError as error:
        return CardFault(index=index, code=error.value, **identity)


def _read_card(nvml: Any, handle: Any, index: int, identity: dict[str, str]) -> Card:
    def ask(call: Callable[..., Any], *arguments: Any) -> Any:
        return _optional(nvml, call, handle, *arguments)

    memory = nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2)
    capability = ask(nvml.nvmlDeviceGetCudaComputeCapability)
    persistence = ask(nvml.nvmlDeviceGetPersistenceMode)
    limits = ask(nvml.nvmlDeviceGetPowerManagementLimitConstraints) or (None, None)
    rates = ask(nvml.nvmlDeviceGetUtilizationRates)
    return Card(
        index=index,
        **identity,
        name=nvml.nvmlDeviceGetName(handle),
        memory_mib=memory.total >> 20,
        memory_used_mib=memory.used >> 20,
        compute_capability=".".join(map(str, capability)) if capability else None,
        persistence=None if persistence is None else bool(persistence),
        power_limit_w=_watts(ask(nvml.nvmlDeviceGetPowerManagementLimit)),
        power_min_w=_watts(limits[0]),
        power_max_w=_watts(limits[1]),
        power_default_w=_watts(ask(nvml.nvmlDeviceGetPowerManagementDefaultLimit)),
        clock_max_mhz=ask(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_GRAPHICS),
        link_generation=ask(nvml.nvmlDeviceGetCurrPcieLinkGeneration),
        link_generation_max=ask(nvml.nvmlDeviceGetMaxPcieLinkGeneration),
        link_width=ask(nvml.nvmlDeviceGetCurrPcieLinkWidth),
        link_width_max=ask(nvml.nvmlDeviceGetMaxPcieLinkWidth),
        utilisation=None if rates is None else rates.gpu / 100,
        temperature_c=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        power_w=_watts(ask(nvml.nvmlDeviceGetPowerUsage)),
        clock_mhz=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_GRAPHICS),
        memory_clock_mhz=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
        throttle=_throttle(ask(nvml.nvmlDeviceGetCurrentClocksEventReasons)),
        processes=_processes(ask(nvml.nvmlDeviceGetComputeRunningProcesses_v3)),
    )


def _optional(nvml: Any, call: Callable[..., Any], *arguments: Any) -> Any:
    """Ask what a card may not know; None is its answer then."""
    try:
        return call(*arguments)
    except nvml.NVMLError as error:
        if error.value in ABSENT:
            return None
        raise


def _throttle(reasons: int | None) -> tuple[str, ...] | None:
    if reasons is None:
        return None
    return tuple(word for bit, word in THROTTLES.items() if reasons & bit)


def _processes(listed: list[Any] | None) -> tuple[GpuProcess, ...] | None:
    if listed is None:
        return None
    return tuple(
        GpuProcess(item.pid, None if item.usedGpuMemory is None else item.usedGpuMemory >> 20) for item in listed
    )


def pci_address(bus_id: str | bytes) -> str:
    """Return NVML's ``00000000:01:00.0`` as the kernel writes it, ``0000:01:00.0``."""
    text = bus_id.decode() if isinstance(bus_id, bytes) else bus_id
    domain, _, rest = text.lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
