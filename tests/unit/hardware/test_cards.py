from __future__ import annotations

import pytest

from llamarig.hardware import cards


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("2684", "NVIDIA GeForce RTX 4090"),
        ("2B85", "NVIDIA GeForce RTX 5090"),
        ("2c05", "NVIDIA GeForce RTX 5070 Ti"),
        ("26ba", "NVIDIA card 26ba"),
        ("26BA", "NVIDIA card 26ba"),
    ],
)
def test_a_card_is_named_and_an_unknown_one_has_its_id(device: str, name: str) -> None:
    assert cards.name(device) == name


@pytest.mark.parametrize(
    ("device", "architecture"),
    [
        ("1b80", "older"),  # GeForce GTX 1080
        ("1db6", "older"),  # Tesla V100, before Turing too
        ("1e04", "Turing"),  # GeForce RTX 2080 Ti
        ("2182", "Turing"),  # GeForce GTX 1660 Ti
        ("2204", "Ampere"),  # GeForce RTX 3090
        ("25b6", "Ampere"),  # A2
        ("2684", "Ada"),  # GeForce RTX 4090
        ("2882", "Ada"),  # GeForce RTX 4060
        ("2b85", "Blackwell"),  # GeForce RTX 5090
        ("2BB1", "Blackwell"),  # RTX PRO 6000
        ("0000", "older"),
    ],
)
def test_the_generation_is_known_by_the_id(device: str, architecture: str) -> None:
    assert cards.architecture(device) == architecture


def test_every_card_with_a_name_has_a_generation_that_the_open_modules_drive() -> None:
    assert {cards.architecture(device) for device in cards._NAMES} == {"Ada", "Blackwell"}
