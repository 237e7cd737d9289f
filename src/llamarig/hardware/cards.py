"""NVIDIA cards by their PCI ids, known before any driver exists.

Names are from the table in the README of NVIDIA's open-gpu-kernel-modules, which lists what the open modules support.
This file runs on hosts before anything is installed there: standard library only.
"""

from __future__ import annotations

_NAMES = {
    "2684": "NVIDIA GeForce RTX 4090",
    "2685": "NVIDIA GeForce RTX 4090 D",
    "2b85": "NVIDIA GeForce RTX 5090",
    "2c02": "NVIDIA GeForce RTX 5080",
    "2c05": "NVIDIA GeForce RTX 5070 Ti",
    "2788": "NVIDIA GeForce RTX 4060 Ti",
    "2803": "NVIDIA GeForce RTX 4060 Ti",
    "2805": "NVIDIA GeForce RTX 4060 Ti",
    "2808": "NVIDIA GeForce RTX 4060",
    "2882": "NVIDIA GeForce RTX 4060",
    "2bb1": "NVIDIA RTX PRO 6000 Blackwell",
    "2bb4": "NVIDIA RTX PRO 6000 Blackwell",
    "2bb5": "NVIDIA RTX PRO 6000 Blackwell",
}
# First id of each generation, newest first. Chips of one generation have ids side by side.
_GENERATIONS = (
    (0x2900, "Blackwell"),
    (0x2600, "Ada"),
    (0x2400, "Ampere"),
    (0x2300, "Hopper"),
    (0x2200, "Ampere"),
    (0x2100, "Turing"),
    (0x2000, "Ampere"),
    (0x1E00, "Turing"),
)


def name(device_id: str) -> str:
    """Return a card's name, or its PCI id where the name is not known here."""
    return _NAMES.get(device_id.lower(), f"NVIDIA card {device_id.lower()}")


def architecture(device_id: str) -> str:
    """Return the generation of a card; ``older`` is before Turing, which the open kernel modules do not drive."""
    number = int(device_id, 16)
    return next((generation for first, generation in _GENERATIONS if number >= first), "older")
