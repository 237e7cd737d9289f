"""NVML asked again and again in this process: one session that stays open, and the Xid errors of its cards.

One thread owns all of it, so that a session never ends while another call is under way. A call into a driver that hangs
blocks that thread for good; whoever started it sees since when.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from llamarig.hardware.gpus import MISMATCH, TIMEOUT, UNKNOWN, CardFault, explained
from llamarig.hardware.measured import Measured, MeasuredCard, StaleLibraryError, Versions, Xid
from llamarig.hardware.nvml import ABSENT, binding, module_version
from llamarig.hardware.nvml_card import known_fields, measure, said

# A session with a card that does not answer is begun anew when another does not either, and after this long.
RENEW_SECONDS: Final = 60.0
_XID: Final = 0x8
_LIBRARY: Final = "/libnvidia-ml.so."
_LOG: Final = logging.getLogger(__name__)


class NvmlMeter:
    """The cards, measured through one session.

    Args:
        root: of the host's files.
        throughput: whether to ask for the traffic over PCIe too, which takes 40 ms a card.
        clock: seconds that only grow.

    """

    def __init__(
        self, root: Path = Path("/"), *, throughput: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.root = root
        self.throughput = throughput
        self._clock = clock
        self._module = module_version(root)
        self._open = False
        self._opened = 0.0
        self._faults: frozenset[tuple[int, int]] = frozenset()
        self._worn = False
        self._events: Any = None
        self._watched: dict[int | None, str] = {}

    @property
    def listens(self) -> bool:
        """Whether there are cards whose Xid errors can be waited for."""
        return bool(self._watched)

    def read(self) -> Measured:
        """Return what the cards measure.

        Raises:
            NvmlError: NVML as a whole does not answer.
            StaleLibraryError: it never will in this process.

        """
        module = module_version(self.root)
        if module is not None and module != self._module:
            before = self._module or "not loaded"
            raise StaleLibraryError(f"the kernel module nvidia is {module}, and was {before} when this process began")
        nvml = binding()
        if self._worn:
            self.close()
        try:
            self._begin(nvml)
            versions = _versions(nvml, module or "")
            fields = known_fields(versions.driver)
            count = nvml.nvmlDeviceGetCount()
            found = [measure(nvml, index, fields, throughput=self.throughput) for index in range(count)]
        except nvml.NVMLError as error:
            self.close()
            if error.value in {MISMATCH, UNKNOWN} and library_is_replaced():
                raise StaleLibraryError("the file of libnvidia-ml that this process loaded is gone") from error
            raise explained(error.value) from error
        except Exception:
            # Nobody foresaw it: the next reading does not build on this session.
            self._worn = True
            raise
        heard = set(self._watched.values())
        cards = [replace(card, watched=card.uuid in heard) for card in found if isinstance(card, MeasuredCard)]
        faults = [item for item in found if isinstance(item, CardFault)]
        self._consider(faults, deaf=any(not card.watched for card in cards))
        return Measured(versions=versions, cards=tuple(cards), faults=tuple(faults))

    def wait(self, seconds: float) -> Xid | None:
        """Wait for the next Xid error; None where there was none."""
        nvml = binding()
        try:
            event = nvml.nvmlEventSetWait_v2(self._events, max(1, int(seconds * 1000)))
        except nvml.NVMLError as error:
            if error.value != TIMEOUT:
                _LOG.warning("Xid errors cannot be waited for: %s", explained(error.value).message)
                self._deafen(nvml)
            return None
        uuid = self._watched.get(_address(event.device))
        return Xid(uuid, event.eventData) if uuid and event.eventType == _XID else None

    def close(self) -> None:
        """End the session; the next reading begins another."""
        nvml = binding()
        self._worn = False
        self._deafen(nvml)
        if self._open:
            self._open = False
            with suppress(nvml.NVMLError):
                nvml.nvmlShutdown()

    def _begin(self, nvml: Any) -> None:
        if self._open:
            return
        nvml.nvmlInit()
        self._open = True
        self._opened = self._clock()
        try:
            self._events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError as error:
            _LOG.warning("there are no Xid errors to be had: %s", explained(error.value).message)
            return
        for index in range(nvml.nvmlDeviceGetCount()):
            # A card that is lost, or whose driver has no events, is not listened to; the others are.
            # So is one whose UUID is no text.
            with suppress(nvml.NVMLError, ValueError):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = nvml.nvmlDeviceGetUUID(handle)
                nvml.nvmlDeviceRegisterEvents(handle, _XID, self._events)
                # Kept by handle: a card that fell off the bus sends an event, and does not say any more who it is.
                self._watched[_address(handle)] = uuid

    def _deafen(self, nvml: Any) -> None:
        self._watched = {}
        events, self._events = self._events, None
        if events is not None:
            with suppress(nvml.NVMLError):
                nvml.nvmlEventSetFree(events)

    def _consider(self, faults: list[CardFault], *, deaf: bool) -> None:
        """Have a session end in which a card does not answer: it may in another.

        Not each time, for what happens in between is missed; and not at once, for the reason may come as an event yet.
        """
        now = frozenset((fault.index, fault.code) for fault in faults)
        changed, self._faults = now != self._faults, now
        aged = self._clock() - self._opened >= RENEW_SECONDS
        self._worn = bool(changed and now) or (aged and bool(now or deaf))


def library_is_replaced(maps: Path = Path("/proc/self/maps")) -> bool:
    """Tell whether the file of libnvidia-ml that this process loaded is there no more, as after an upgrade."""
    try:
        lines = maps.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(_LIBRARY in line and line.endswith(" (deleted)") for line in lines)


def _versions(nvml: Any, module: str) -> Versions:
    def ask(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except nvml.NVMLError as error:
            if error.value in ABSENT:
                return None
            raise

    cuda = ask(nvml.nvmlSystemGetCudaDriverVersion_v2)
    return Versions(
        driver=ask(lambda: said(nvml.nvmlSystemGetDriverVersion)) or "",
        nvml=ask(lambda: said(nvml.nvmlSystemGetNVMLVersion)) or "",
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        module=module,
    )


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
