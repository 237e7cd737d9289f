"""Power limits, clock locks and persistence, as the inventory declares them.

NVML says what a power limit is, not what a clock lock is, so what was set is remembered. It holds until the host starts
again or another driver is loaded: the memory names both, and counts for nothing when one of them differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from llamarig.errors import ConfigError, Problem
from llamarig.hardware.declared import Declared, DeclaredCard, paired
from llamarig.hardware.gpus import (
    DRIVER_NOT_LOADED,
    LIBRARY_NOT_FOUND,
    MISMATCH,
    Card,
    Gpus,
    NvmlError,
    Reading,
    Setting,
    SettingKey,
)

_SCHEMA: Final = 1
# Drivers round a limit to what the card can do.
_SAME_WATTS: Final = 1.0
_TO_COME: Final = {DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, MISMATCH}

Value = bool | float | tuple[int, int] | None
Slot = tuple[str, SettingKey]
Kept = dict[Slot, Value]


class Memory(Protocol):
    """Where what was set is remembered."""

    def tuned(self) -> Mapping[str, Any]:
        """Return what :meth:`keep_tuned` was given last, empty where there is nothing."""

    def keep_tuned(self, content: Mapping[str, Any]) -> None:
        """Remember it, on disk before this returns."""


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that is not as declared; ``was`` is None where nothing was set, or nobody can tell."""

    card: str
    setting: Setting
    was: Value

    def __str__(self) -> str:
        match self.setting.value:
            case True:
                return f"{self.card}: persistence on"
            case (lowest, highest):
                return f"{self.card}: clocks locked to {lowest} to {highest} MHz"
            case None:
                return f"{self.card}: clocks no longer locked"
            case watts:
                return f"{self.card}: power limit {watts:g} W, was {self.was:g} W"

    @property
    def slot(self) -> Slot:
        """The card and the setting, whatever its value."""
        return self.setting.uuid, self.setting.key

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        uuid, key = self.slot
        return {"card": self.card, "uuid": uuid, "setting": key, "from": self.was, "to": self.setting.value}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was changed, or would be.

    ``missing`` are declared cards that are not there to be tuned; ``waits`` says why no card can be asked yet.
    """

    changes: list[Change]
    missing: list[str] = field(default_factory=list)
    waits: str = ""

    @property
    def changed(self) -> bool:
        """Whether anything was or would be changed."""
        return bool(self.changes or self.waits)


def this_start(root: Path = Path("/")) -> str:
    """Return what names the present start of the host: the kernel's boot id, and when its first process began.

    The second is what differs between two starts of a container.
    """
    boot = (root / "proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # proc(5): the fields after the name, which may hold spaces; the 22nd of all is the start time.
    fields = (root / "proc/1/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return f"{boot} {fields[19]}"


def kept_now(memory: Memory, start: str, reading: Reading) -> Kept:
    """Return what is remembered as set and still holds."""
    content = memory.tuned()
    if content.get("start") != start or content.get("driver") != reading.driver_version:
        return {}
    return {
        (item["uuid"], item["setting"]): tuple(item["value"]) if isinstance(item["value"], list) else item["value"]
        for item in content.get("set") or ()
    }


def changes_needed(declared: Declared, reading: Reading, kept: Kept) -> list[Change]:
    """Return every setting that is not as declared, in the order of the inventory. Changes nothing."""
    wishes = _wishes(declared, reading)
    names = {card.uuid: wanted.name for wanted, card in paired(declared.cards, reading.cards) if card}
    cards = {card.uuid: card for card in reading.cards}
    slots = [*wishes, *(slot for slot in kept if slot not in wishes and slot[0] in cards)]
    found = []
    for slot in slots:
        uuid, key = slot
        value, was = wishes.get(slot), _now(cards[uuid], slot, kept)
        if key == "power_limit_w" and value is None and slot in kept:
            value = cards[uuid].power_default_w
        if _differs(key, value, was):
            found.append(Change(names.get(uuid, cards[uuid].name), Setting(uuid, key, value), was))
    return found


def _wishes(declared: Declared, reading: Reading) -> Kept:
    """Return the declared value of every setting of the declared cards that are there; None is the card's choice."""
    wishes: Kept = {}
    for wanted, card in paired(declared.cards, reading.cards):
        if card is not None:
            wishes[card.uuid, "persistence"] = True
            wishes[card.uuid, "power_limit_w"] = wanted.power_limit_watts
            wishes[card.uuid, "clock_lock_mhz"] = wanted.lock_clocks_mhz
    return wishes


def _now(card: Card, slot: Slot, kept: Kept) -> Value:
    if slot[1] == "persistence":
        return card.persistence
    return card.power_limit_w if slot[1] == "power_limit_w" else kept.get(slot)


def _differs(key: SettingKey, value: Value, now: Value) -> bool:
    if key == "persistence":
        return now is False
    if key == "clock_lock_mhz":
        return value != now
    return isinstance(value, int | float) and isinstance(now, int | float) and abs(value - now) >= _SAME_WATTS


def refusals(declared: Declared, reading: Reading, host: str) -> list[Problem]:
    """Return every declared value that its card does not take."""
    found = []
    for wanted, card in paired(declared.cards, reading.cards):
        if card is not None:
            found += [*_power_refused(wanted, card, host), *_clocks_refused(wanted, card, host)]
    return found


def _power_refused(wanted: DeclaredCard, card: Card, host: str) -> Iterator[Problem]:
    watts, lowest, highest = wanted.power_limit_watts, card.power_min_w, card.power_max_w
    key = f"host_hardware.gpus[{wanted.name}].power_limit_watts"
    if watts is None:
        return
    if card.power_limit_w is None or lowest is None or highest is None:
        yield Problem(host, key, f"{watts} W, and the power of {card.uuid} cannot be limited", "remove the option")
    elif not lowest <= watts <= highest:
        message = f"{watts} W, and {card.uuid} takes {lowest:g} to {highest:g} W"
        yield Problem(host, key, message, f"choose a value from {lowest:g} to {highest:g}")


def _clocks_refused(wanted: DeclaredCard, card: Card, host: str) -> Iterator[Problem]:
    lock, highest = wanted.lock_clocks_mhz, card.clock_max_mhz
    if lock is not None and highest is not None and not 0 <= lock[0] <= lock[1] <= highest:
        key = f"host_hardware.gpus[{wanted.name}].lock_clocks_mhz"
        message = f"{lock[0]} to {lock[1]} MHz, and {card.uuid} takes clocks up to {highest} MHz"
        yield Problem(host, key, message, f"choose a lowest and a highest clock, neither above {highest}")


@dataclass(frozen=True, slots=True)
class Tuner:
    """Makes the cards what the inventory declares; ``start`` is :func:`this_start`, ``host`` the name in messages."""

    declared: Declared
    gpus: Gpus
    memory: Memory
    start: str
    host: str

    def run(self, *, dry: bool = False) -> Outcome:
        """Change what differs, or with ``dry`` say what would be changed.

        Raises:
            ConfigError: a card does not take a declared value; no card was touched.
            NvmlError: NVML does not answer, or refuses a change; what was changed before is remembered.

        """
        if not self.declared.cards and not self.memory.tuned():
            return Outcome([])
        try:
            reading = self.gpus.read()
        except NvmlError as error:
            if error.code in _TO_COME and (dry or not self.declared.cards):
                return Outcome([], waits=error.message if self.declared.cards else "")
            raise
        if problems := refusals(self.declared, reading, self.host):
            raise ConfigError(problems)
        kept = kept_now(self.memory, self.start, reading)
        changes = changes_needed(self.declared, reading, kept)
        if not dry:
            self._apply(changes, reading, kept)
        missing = [str(wanted) for wanted, card in paired(self.declared.cards, reading.cards) if card is None]
        return Outcome(changes, missing)

    def _apply(self, changes: list[Change], reading: Reading, kept: Kept) -> None:
        """Apply and remember; what a failure kept from being set is not remembered as set."""
        wishes = _wishes(self.declared, reading)
        pending = {change.slot for change in changes}
        now = kept | {slot: value for slot, value in wishes.items() if slot not in pending}
        try:
            for change in changes:
                self._apply_one(change)
                now[change.slot] = wishes.get(change.slot)
        finally:
            self._remember(now, reading)

    def _apply_one(self, change: Change) -> None:
        try:
            self.gpus.apply(change.setting)
        except NvmlError as error:
            raise NvmlError(error.code, f"{self.host}: {change}: {error.meaning}", error.remedy) from error

    def _remember(self, now: Kept, reading: Reading) -> None:
        listed = [
            {"uuid": uuid, "setting": key, "value": list(value) if isinstance(value, tuple) else value}
            for (uuid, key), value in now.items()
            if value is not None and key != "persistence"
        ]
        content = {"schema_version": _SCHEMA, "start": self.start, "driver": reading.driver_version, "set": listed}
        content = content if listed else {}
        if content != self.memory.tuned():
            self.memory.keep_tuned(content)
