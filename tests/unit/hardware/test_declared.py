from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamarig.config import paths
from llamarig.errors import LlamarigError
from llamarig.hardware.declared import Declared, paired, read_declared
from tests.support import below
from tests.unit.hardware.recordings import ADA, BLACKWELL, declare, hardware, reading

TWIN = {"name": "NVIDIA GeForce RTX 4090"}


def test_a_host_that_was_never_told_declares_nothing(tmp_path: Path) -> None:
    assert read_declared(tmp_path) is None


def test_a_host_without_cards_declares_its_memory(tmp_path: Path) -> None:
    data = {"schema_version": 1, "memory_mib": 4096, "gpus": [], "driver": None}
    assert declare(tmp_path, data) == Declared(memory_mib=4096)


def test_declared_cards_are_read_with_what_is_left_out_absent(tmp_path: Path) -> None:
    declared = declare(tmp_path, hardware({"lock_clocks_mhz": [210, 2520]}))
    assert (declared.driver_branch, declared.driver_minimum, declared.driver_managed) == ("580", "580.82.07", True)
    ada, blackwell = declared.cards
    assert (ada.lock_clocks_mhz, blackwell.lock_clocks_mhz) == ((210, 2520), None)
    assert (str(ada), ada.power_limit_watts) == (f"rtx4090 ({ADA})", None)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", json.dumps({"schema_version": 2}), json.dumps({"schema_version": 1, "gpus": [{"name": "a"}]})],
)
def test_what_cannot_be_read_says_so_with_a_remedy(tmp_path: Path, text: str) -> None:
    declare(tmp_path, {"schema_version": 1})
    below(tmp_path, paths.HARDWARE_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(LlamarigError, match=r"hardware\.json cannot be read") as caught:
        read_declared(tmp_path)
    assert caught.value.remedy == "run playbooks/site.yml for this host again"


def pairs(root: Path, ada: dict[str, Any], blackwell: dict[str, Any], *found: dict[str, Any]) -> list[str | None]:
    """UUIDs of the found cards that the declared ones are; ``found`` changes what is found."""
    declared = declare(root, hardware(ada, blackwell)).cards
    return [card.uuid if card else None for _, card in paired(declared, reading(*found).cards)]


def test_a_card_with_a_uuid_is_that_card_wherever_it_is(tmp_path: Path) -> None:
    swapped = ({"pci_address": "0000:04:00.0"}, {"pci_address": "0000:01:00.0"})
    assert pairs(tmp_path, {}, {}, *swapped) == [ADA, BLACKWELL]


def test_a_card_with_another_uuid_is_not_there_whatever_its_model(tmp_path: Path) -> None:
    assert pairs(tmp_path, {"uuid": "GPU-other"}, {}) == [None, BLACKWELL]


def test_a_card_without_a_uuid_is_the_one_at_its_address(tmp_path: Path) -> None:
    anonymous = {"uuid": None, "pci_address": "0000:04:00.0"}
    assert pairs(tmp_path, anonymous, {"uuid": ADA}) == [BLACKWELL, ADA]


def test_a_card_without_uuid_and_address_is_the_one_of_its_model_that_is_left(tmp_path: Path) -> None:
    anonymous = {"uuid": None, "pci_address": None, "model": "NVIDIA GeForce RTX 4090"}
    assert pairs(tmp_path, anonymous, anonymous, {}, TWIN) == [ADA, BLACKWELL]
    assert pairs(tmp_path, anonymous, {"uuid": ADA}, {}, TWIN) == [BLACKWELL, ADA]
    assert pairs(tmp_path, anonymous, anonymous) == [ADA, None]
