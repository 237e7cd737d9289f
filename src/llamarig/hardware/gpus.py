"""The words about GPUs: what a card says of itself, the settings it takes, and what goes wrong, with its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, Protocol

from llamarig.errors import LlamarigError

NOT_FOUND: Final = 6
DRIVER_NOT_LOADED: Final = 9
TIMEOUT: Final = 10
LIBRARY_NOT_FOUND: Final = 12
LOST: Final = 15
RESET_REQUIRED: Final = 16
MISMATCH: Final = 18
UNKNOWN: Final = 999
# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h, nvmlClocksEventReason*); the first, that the card idles, holds
# nothing down.
THROTTLES: Final = {
    0x02: "clock-setting",
    0x04: "power-cap",
    0x08: "hardware-slowdown",
    0x10: "sync-boost",
    0x20: "software-thermal",
    0x40: "hardware-thermal",
    0x80: "power-brake",
    0x100: "display-clock",
}
_KERNEL_LOG: Final = "journalctl --dmesg --grep NVRM"
# Codes of nvml.h, what each means to somebody who looks after the host, and what helps.
_EXPLAINED: Final = {
    2: ("the driver does not take this value", "choose another in host_vars"),
    4: ("NVML refuses this user", "ask as root: sudo llamarig"),
    NOT_FOUND: ("NVML knows no such card", "llamarig doctor says which cards there are"),
    8: ("a power cable of the card is not connected", "power the host off and connect every power plug of the card"),
    DRIVER_NOT_LOADED: (
        "the kernel module nvidia is not loaded",
        f"sudo modprobe nvidia; where that fails, {_KERNEL_LOG} says why",
    ),
    TIMEOUT: ("NVML does not answer", f"{_KERNEL_LOG} shows what the driver waits for; then reboot the host"),
    LIBRARY_NOT_FOUND: (
        "libnvidia-ml.so.1 is not there: the driver's user space is not installed",
        "run playbooks/site.yml for this host: it installs the driver",
    ),
    LOST: (
        "the card is lost: it fell off the PCI bus",
        f"{_KERNEL_LOG} shows the Xid; power the host off and on, and if it comes again reseat the card and its cables",
    ),
    RESET_REQUIRED: ("the card must be reset before it works again", "reboot the host"),
    MISMATCH: (
        "the driver's user space and the loaded kernel module have different versions",
        "reboot the host; where they differ still, run playbooks/site.yml for it",
    ),
    UNKNOWN: ("NVML itself does not know what is wrong", f"{_KERNEL_LOG} may say more; then reboot the host"),
}


class NvmlError(LlamarigError):
    """NVML refused or failed; ``code`` is NVML's own number (nvml.h, nvmlReturn_t)."""

    def __init__(self, code: int, meaning: str, remedy: str) -> None:
        super().__init__(f"{meaning} (NVML {code})", remedy)
        self.code = code
        self.meaning = meaning


def explained(code: int, detail: str = "") -> NvmlError:
    """Return the error that a code of NVML stands for, with ``detail`` where something is known about this one."""
    meaning, remedy = _EXPLAINED.get(code, (f"NVML failed with code {code}", f"{_KERNEL_LOG} may say why"))
    return NvmlError(code, f"{meaning}: {detail}" if detail else meaning, remedy)


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process with memory on a card; ``used_mib`` is None where the driver does not say how much."""

    pid: int
    used_mib: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One card as NVML sees it; what a card does not answer is None.

    Memory in MiB, power in watts, clocks in MHz, temperature in degrees Celsius. ``pci_address`` is
    ``domain:bus:device.function`` with a domain of four digits, in lower case, as the kernel writes it.
    ``link_width_max`` and ``link_generation_max`` are what card and slot can do together. ``utilisation`` is the share
    of time in which something ran on the card, 0 to 1; ``throttle`` says what holds its clocks down, in words of
    :data:`THROTTLES`, and is empty where nothing does.
    """

    index: int
    uuid: str
    name: str
    pci_address: str
    memory_mib: int
    memory_used_mib: int
    compute_capability: str | None
    persistence: bool | None
    power_limit_w: float | None
    power_min_w: float | None
    power_max_w: float | None
    power_default_w: float | None
    clock_max_mhz: int | None
    link_generation: int | None
    link_generation_max: int | None
    link_width: int | None
    link_width_max: int | None
    utilisation: float | None
    temperature_c: int | None
    power_w: float | None
    clock_mhz: int | None
    memory_clock_mhz: int | None
    throttle: tuple[str, ...] | None
    processes: tuple[GpuProcess, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFault:
    """A card that NVML counts but cannot read; what it still said of itself, and NVML's code."""

    index: int
    code: int
    uuid: str | None = None
    pci_address: str | None = None

    @property
    def error(self) -> NvmlError:
        """What the code means."""
        return explained(self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All cards at one moment; a card that cannot be read is a fault and hides no other."""

    driver_version: str | None
    cards: tuple[Card, ...]
    faults: tuple[CardFault, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reading:
        """Build a reading from its JSON."""
        return cls(
            driver_version=data["driver_version"],
            cards=tuple(_card_from(item) for item in data["cards"]),
            faults=tuple(CardFault(**item) for item in data.get("faults", ())),
        )


def _card_from(data: Mapping[str, Any]) -> Card:
    listed = data["processes"]
    processes = None if listed is None else tuple(GpuProcess(**item) for item in listed)
    throttle = None if data["throttle"] is None else tuple(data["throttle"])
    return Card(**{**data, "throttle": throttle, "processes": processes})


SettingKey = Literal["persistence", "power_limit_w", "clock_lock_mhz"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of one card: persistence (bool), power limit (watts), or clock lock (lowest and highest MHz).

    A clock lock of None lets the card choose its clocks again.
    """

    uuid: str
    key: SettingKey
    value: bool | float | tuple[int, int] | None


class Gpus(Protocol):
    """The cards of this host."""

    def read(self) -> Reading:
        """Return what the cards say.

        Raises:
            NvmlError: NVML as a whole does not answer.

        """

    def apply(self, setting: Setting) -> None:
        """Change one setting of one card.

        Raises:
            NvmlError: the card or the driver does not take it.

        """


class RecordedGpus:
    """Cards from plain data: a reading as :meth:`Reading.to_dict` gives it, or ``{"error": {"code": 18}}``.

    Settings change the record as they would change the card; ``applied`` holds them in order.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.applied: list[Setting] = []
        self._reading = None if "error" in data else Reading.from_dict(data)

    def read(self) -> Reading:
        """Return the record."""
        if self._reading is None:
            raise explained(self.data["error"]["code"], self.data["error"].get("detail", ""))
        return self._reading

    def apply(self, setting: Setting) -> None:
        """Change the record; a card that is not in it is not found, as with NVML."""
        reading = self.read()
        if setting.uuid not in {card.uuid for card in reading.cards}:
            raise explained(NOT_FOUND, setting.uuid)
        self.applied.append(setting)
        # Like the cards, the record cannot tell a clock lock.
        changed: dict[str, Any] = {} if setting.key == "clock_lock_mhz" else {setting.key: setting.value}
        cards = tuple(replace(card, **changed) if card.uuid == setting.uuid else card for card in reading.cards)
        self._reading = replace(reading, cards=cards)
