from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.lab.machine import LabError
from llamarig.lab.silicon.cards import MODELS, card_lines, card_uuid, read_silicon


def test_a_cards_uuid_follows_from_host_and_slot() -> None:
    assert card_uuid("lab01", 0) == "GPU-55e3684d-adc9-571f-96fc-d57bb38eda04"
    assert len({card_uuid(host, slot) for host in ("lab01", "lab02") for slot in range(8)}) == 16


def test_lines_say_what_the_contract_says() -> None:
    lines = card_lines("lab01", ["rtx-4090", "rtx-5070-ti"])
    assert lines[0].startswith(
        f"uuid={card_uuid('lab01', 0)} pci=0000:01:00.0 device=2684 name=NVIDIA_GeForce_RTX_4090 memory_mib=24564"
        " compute=8.9 power_min_w=150 power_max_w=600 power_default_w=450 link_generation=4 link_width=16"
    )
    assert " pci=0000:02:00.0 device=2c05 " in lines[1]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_written_as_a_line(name: str) -> None:
    (line,) = card_lines("lab01", [name])
    values = dict(word.split("=") for word in line.split(" "))
    assert int(values["power_min_w"]) <= int(values["power_default_w"]) <= int(values["power_max_w"])


def test_a_file_gives_cards_to_hosts(tmp_path: Path) -> None:
    file = tmp_path / "silicon.yml"
    file.write_text("alpha: {cards: [rtx-4090]}\nbeta: {cards: [rtx-5080, rtx-5080]}\n", encoding="utf-8")
    assert read_silicon(file) == {"alpha": ["rtx-4090"], "beta": ["rtx-5080", "rtx-5080"]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alpha: {cards: [rtx-9090]}", "alpha: the lab does not know the card 'rtx-9090'"),
        ("alpha: {cards: []}", "does not say one to 8 cards"),
        ("alpha: {cards: [" + "rtx-4090, " * 9 + "]}", "does not say one to 8 cards"),
        ("alpha: [rtx-4090]", "does not say one to 8 cards"),
        ("alpha: {card: [rtx-4090]}", "does not say one to 8 cards"),
        ("- alpha", "list instead of a mapping of hosts"),
        ("alpha: {", "silicon.yml"),
    ],
)
def test_a_file_that_is_not_like_that_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "silicon.yml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(LabError, match=r"silicon\.yml") as caught:
        read_silicon(file)
    assert says in caught.value.message
    assert caught.value.remedy


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"none\.yml"):
        read_silicon(tmp_path / "none.yml")
