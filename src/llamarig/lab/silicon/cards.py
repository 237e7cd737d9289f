"""The cards that the lab can play, and which host of a lab has which."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from llamarig.lab.machine import LabError

_MOST: Final = 8
# UUIDs are derived, so that an inventory can name a card before any lab is up.
_NAMESPACE: Final = uuid.UUID("6c1a3f0e-52a1-4d0b-9f5e-7b6d1c0a9e42")


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of card. Memory in MiB, power in watts, clocks in MHz; device is the PCI device id."""

    name: str
    device: str
    memory: int
    compute: str
    power: tuple[int, int, int]
    link: tuple[int, int]
    clocks: tuple[int, int]


# Device ids: README of NVIDIA/open-gpu-kernel-modules. Power is minimum, default, maximum; link is generation, width.
MODELS: Final = {
    "rtx-4060-ti": Model("NVIDIA GeForce RTX 4060 Ti", "2805", 16380, "8.9", (100, 165, 165), (4, 8), (3105, 9001)),
    "rtx-4090": Model("NVIDIA GeForce RTX 4090", "2684", 24564, "8.9", (150, 450, 600), (4, 16), (3105, 10501)),
    "rtx-5070-ti": Model("NVIDIA GeForce RTX 5070 Ti", "2c05", 16303, "12.0", (250, 300, 350), (5, 16), (3090, 14001)),
    "rtx-5080": Model("NVIDIA GeForce RTX 5080", "2c02", 16303, "12.0", (250, 360, 400), (5, 16), (3090, 15001)),
}


def read_silicon(path: Path) -> dict[str, list[str]]:
    """Read a file that says which host has which cards: ``HOST: {cards: [rtx-4090, rtx-5070-ti]}``.

    Raises:
        LabError: the file is not like that, or names a card that the lab does not know.

    """
    try:
        hosts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        msg = f"{path}: {error}"
        raise LabError(msg, "give a YAML file with lines like 'lab01: {cards: [rtx-4090]}'") from error
    if not isinstance(hosts, dict):
        msg = f"{path}: {type(hosts).__name__} instead of a mapping of hosts"
        raise LabError(msg, "lab01: {cards: [rtx-4090]}")
    return {str(host): _cards(path, str(host), wanted) for host, wanted in hosts.items()}


def _cards(path: Path, host: str, wanted: object) -> list[str]:
    cards = wanted.get("cards") if isinstance(wanted, dict) and set(wanted) == {"cards"} else None
    if not isinstance(cards, list) or not 0 < len(cards) <= _MOST:
        msg = f"{path}: {host}: {wanted!r} does not say one to {_MOST} cards"
        raise LabError(msg, f"{host}: {{cards: [rtx-4090]}}")
    for card in cards:
        if card not in MODELS:
            msg = f"{path}: {host}: the lab does not know the card {card!r}"
            raise LabError(msg, f"known are {', '.join(MODELS)}")
    return cards


def card_uuid(host: str, slot: int) -> str:
    """Return the UUID of the card in this slot of a host, counted from 0."""
    return f"GPU-{uuid.uuid5(_NAMESPACE, f'{host}/{slot}')}"


def card_lines(host: str, cards: list[str]) -> list[str]:
    """Return the lines of /var/lib/lab-silicon/cards for a host."""
    return [_line(card_uuid(host, slot), slot, MODELS[card]) for slot, card in enumerate(cards)]


def _line(card_id: str, slot: int, model: Model) -> str:
    values = {
        "uuid": card_id,
        "pci": f"0000:{slot + 1:02x}:00.0",
        "device": model.device,
        "name": model.name.replace(" ", "_"),
        "memory_mib": model.memory,
        "compute": model.compute,
        "power_min_w": model.power[0],
        "power_max_w": model.power[2],
        "power_default_w": model.power[1],
        "link_generation": model.link[0],
        "link_width": model.link[1],
        "clock_max_mhz": model.clocks[0],
        "memory_clock_max_mhz": model.clocks[1],
    }
    return " ".join(f"{key}={value}" for key, value in values.items())
