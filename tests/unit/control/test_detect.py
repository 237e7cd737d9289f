"""From facts and nvidia-smi's CSV to host_hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llamarig.config.records import SLUG_MOST, Hardware
from llamarig.control.detect import QUERY, block, detect, hardware_text, pci_comments, services_text, slug
from llamarig.hardware.gpus import TIMEOUT

ROOT = Path(__file__).resolve().parents[3]
ADA = "GPU-7b48850c-2890-5525-b632-ca39ef1f44cd"
BLACKWELL = "GPU-cc807f5a-038b-5b12-8d4f-14626aef8cde"
THIRD = "GPU-11111111-2890-5525-b632-ca39ef1f44cd"
CSV = f"""\
0, {ADA}, NVIDIA GeForce RTX 4090, 00000000:01:00.0, 24564, 8.9, 4, 16
1, {BLACKWELL}, NVIDIA GeForce RTX 5070 Ti, 00000000:0A:00.0, 16303, 12.0, 5, 16
"""
BUS = {"0000:01:00.0": "NVIDIA GeForce RTX 4090", "0000:0a:00.0": "NVIDIA GeForce RTX 5070 Ti"}


def facts(bus: dict[str, str] = BUS, **other: Any) -> dict[str, Any]:
    link = {"generation": 1, "generation_max": 3, "width": 4, "width_max": 8}
    cards = [{"address": address, "name": name, "link": link} for address, name in bus.items()]
    driver = {"loaded": "580.95.05", "on_disk": "580.95.05", "userspace": "580.95.05", "nouveau": False}
    return {"memory_mib": 64100, "cpu_threads": 16, "cards": cards, "driver": driver, **other}


def answer(stdout: str = CSV, rc: int = 0, stderr: str = "") -> dict[str, Any]:
    return {"rc": rc, "stdout": stdout, "stderr": stderr}


def cards_of(hardware: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {gpu["uuid"]: gpu for gpu in hardware["gpus"]}


def test_a_box_with_two_cards_is_declared_as_the_records_want_it() -> None:
    found = detect(facts(), answer(), {})
    assert (found.by_pci, found.notes, found.problem) == ([], [], None)
    assert found.hardware == {
        "memory_mib": 64000,
        "cpu_threads": 16,
        "reserve_mib": 3328,
        "gpus": [
            {
                "name": "rtx-4090",
                "uuid": ADA,
                "model": "NVIDIA GeForce RTX 4090",
                "memory_mib": 24564,
                "compute_capability": "8.9",
                "pci_address": "0000:01:00.0",
                "pcie_generation": 4,
                "pcie_width": 16,
            },
            {
                "name": "rtx-5070-ti",
                "uuid": BLACKWELL,
                "model": "NVIDIA GeForce RTX 5070 Ti",
                "memory_mib": 16303,
                "compute_capability": "12.0",
                "pci_address": "0000:0a:00.0",
                "pcie_generation": 5,
                "pcie_width": 16,
            },
        ],
    }
    Hardware.model_validate(found.hardware)


def test_the_yaml_reads_back_as_what_was_found() -> None:
    content = {"host_hardware": detect(facts(), answer(), {}).hardware}
    content["host_hardware"]["gpus"][0]["lock_clocks_mhz"] = [210, 2520]
    text = hardware_text(content, [])
    assert yaml.safe_load(text) == content
    assert '      compute_capability: "8.9"\n      pci_address: "0000:01:00.0"\n' in text
    assert "      lock_clocks_mhz: [210, 2520]\n" in text
    assert text.startswith("---\n# ")


def test_cards_come_in_the_order_of_the_bus() -> None:
    found = detect(facts(), answer("".join(reversed(CSV.splitlines(keepends=True)))), {})
    assert [gpu["name"] for gpu in found.hardware["gpus"]] == ["rtx-4090", "rtx-5070-ti"]


def test_two_cards_of_a_model_get_two_names() -> None:
    both = CSV.replace("RTX 5070 Ti", "RTX 4090")
    assert [gpu["name"] for gpu in detect(facts(), answer(both), {}).hardware["gpus"]] == ["rtx-4090", "rtx-4090-2"]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("NVIDIA GeForce RTX 4060 Ti", "rtx-4060-ti"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb"),
        ("Tesla T4", "tesla-t4"),
        ("NVIDIA", "gpu"),
    ],
)
def test_a_card_is_named_after_its_model(model: str, name: str) -> None:
    assert slug(model) == name


def test_long_names_stay_apart_and_valid() -> None:
    model = f"NVIDIA GeForce RTX 5070 Ti {'Extra ' * 10}"
    lines = [f"{n}, GPU-{n}{ADA[5:]}, {model}, 00000000:0{n + 1}:00.0, 16303, 12.0, 5, 16" for n in range(3)]
    hardware = Hardware.model_validate(detect(facts({}), answer("\n".join(lines)), {}).hardware)
    assert max(len(gpu.name) for gpu in hardware.gpus) <= SLUG_MOST


def test_what_a_person_declared_stays_with_its_card() -> None:
    old = detect(facts(), answer(), {}).hardware
    mine = {"name": "big", "power_limit_watts": 350, "lock_clocks_mhz": [210, 2520], "reserve_mib": 512}
    old["gpus"][1] |= mine
    old |= {"reserve_mib": 9000}
    # The cards changed slots.
    swapped = CSV.replace("01:00.0", "03:00.0").replace("0A:00.0", "01:00.0")
    new = detect(facts({}), answer(swapped), old).hardware
    assert new["reserve_mib"] == 9000
    assert [gpu["name"] for gpu in new["gpus"]] == ["big", "rtx-4090"]
    assert new["gpus"][0].items() >= mine.items()
    assert new["gpus"][0]["pci_address"] == "0000:01:00.0"
    assert mine.keys() & new["gpus"][1].keys() == {"name"}


def test_a_name_that_a_person_gave_is_no_other_cards() -> None:
    old = detect(facts(), answer(), {}).hardware
    old["gpus"][1]["name"] = "rtx-4090"
    old["gpus"][0]["uuid"] = THIRD
    assert [gpu["name"] for gpu in detect(facts(), answer(), old).hardware["gpus"]] == ["rtx-4090-2", "rtx-4090"]


def test_a_card_that_is_gone_is_said_and_taken_out() -> None:
    old = detect(facts(), answer(), {}).hardware
    found = detect(facts({"0000:01:00.0": "NVIDIA GeForce RTX 4090"}), answer(CSV.splitlines()[0]), old)
    assert list(cards_of(found.hardware)) == [ADA]
    assert found.notes == [f"rtx-5070-ti ({BLACKWELL}) was declared and is not there"]


def test_a_card_that_the_driver_does_not_list_is_said() -> None:
    found = detect(facts(), answer(CSV.splitlines()[0]), {})
    assert (
        "0000:0a:00.0: NVIDIA GeForce RTX 5070 Ti is on the PCI bus, and the driver does not list it" in found.notes[0]
    )


def test_a_declared_slower_slot_stays_while_the_card_is_in_it() -> None:
    old = detect(facts(), answer(), {}).hardware
    old["gpus"][0] |= {"pcie_width": 4, "pcie_generation": 9}
    card = cards_of(detect(facts(), answer(), old).hardware)[ADA]
    assert (card["pcie_width"], card["pcie_generation"]) == (4, 4)
    moved = cards_of(detect(facts(), answer(CSV.replace("01:00.0", "03:00.0")), old).hardware)[ADA]
    assert moved["pcie_width"] == 16


def test_a_link_that_the_driver_does_not_say_is_read_from_the_bus() -> None:
    silent = CSV.replace("4, 16\n", "[N/A], [N/A]\n")
    card = cards_of(detect(facts(), answer(silent), {}).hardware)[ADA]
    assert (card["pcie_generation"], card["pcie_width"]) == (3, 8)
    nowhere = cards_of(detect(facts({}), answer(silent), {}).hardware)[ADA]
    assert not {"pcie_generation", "pcie_width"} & nowhere.keys()


@pytest.mark.parametrize(
    ("has", "declared", "memory"),
    [
        (64100, None, 64000),
        (64063, None, 63744),  # what a new kernel keeps more for itself must not make a declared host too small
        (64001, 64000, 64000),
        (63999, 64000, 63744),
        (96000, 64000, 95744),
        (300, None, 300),
    ],
)
def test_memory_is_declared_with_some_slack_and_stays_while_it_is_so(
    has: int, declared: int | None, memory: int
) -> None:
    old = {"memory_mib": declared} if declared else {}
    assert detect(facts(memory_mib=has), answer(), old).hardware["memory_mib"] == memory


def test_fewer_threads_stay_and_more_than_there_are_do_not() -> None:
    found = detect(facts(), answer(), {"cpu_threads": 8})
    assert (found.hardware["cpu_threads"], found.notes) == (8, ["cpu_threads stays 8; the host has 16"])
    assert detect(facts(), answer(), {"cpu_threads": 32}).hardware["cpu_threads"] == 16


def test_small_hosts_reserve_a_gibibyte() -> None:
    assert detect(facts(memory_mib=8000), answer(), {}).hardware["reserve_mib"] == 1024


def test_without_a_driver_cards_are_said_by_pci() -> None:
    found = detect(facts(), None, {})
    assert "gpus" not in found.hardware
    assert found.problem is None
    assert found.notes == [
        "2 cards by PCI; their UUIDs are known once the driver is there: run playbooks/site.yml, then detect again"
    ]
    text = hardware_text({"host_hardware": found.hardware}, found.by_pci)
    assert "# PCI 0000:01:00.0: NVIDIA GeForce RTX 4090\n" in text
    assert pci_comments(text) == found.by_pci
    assert yaml.safe_load(text) == {"host_hardware": found.hardware}


def test_without_cards_nothing_is_said_of_them() -> None:
    found = detect(facts({}), None, {})
    assert (found.by_pci, found.notes) == ([], [])
    assert "PCI" not in block({"host_hardware": found.hardware}, [])


def test_declared_cards_stay_where_no_driver_answers() -> None:
    old = detect(facts(), answer(), {}).hardware
    for said in (None, answer("Failed to initialize NVML: Driver/library version mismatch", 18)):
        found = detect(facts(), said, old)
        assert found.hardware == old
        assert found.by_pci == []
        assert found.notes == ["the cards cannot be asked: host_hardware.gpus stays as it is"]


def driver(**versions: str | None) -> dict[str, Any]:
    return facts(driver={**facts()["driver"], **versions})


@pytest.mark.parametrize(
    ("machine", "said", "message", "remedy"),
    [
        (
            driver(loaded="580.82.07"),
            answer("Failed to initialize NVML: Driver/library version mismatch", 18),
            "user space 580.95.05, module loaded 580.82.07, on disk 580.95.05",
            "reboot the host",
        ),
        (
            driver(loaded="580.82.07", on_disk="580.82.07"),
            answer("Failed to initialize NVML: Driver/library version mismatch", 18),
            "on disk 580.82.07",
            "run playbooks/site.yml for this host, then reboot it",
        ),
        (driver(loaded=None), answer("NVIDIA-SMI has failed", 9), "nvidia is not loaded", "modprobe"),
        (facts(driver={**facts()["driver"], "nouveau": True}), answer("", 9), "nouveau drives the cards", "reboot it"),
        (facts(), answer(stderr="failed to run command", rc=127, stdout=""), "nvidia-smi is not there", "nvidia-utils"),
        (facts(), answer("", 124), f"NVML {TIMEOUT}", "reboot the host"),
        (facts(), answer("", 137), f"NVML {TIMEOUT}", "reboot the host"),
        (
            facts(),
            answer(f"{CSV.splitlines()[0]}\nUnable to determine the device handle for GPU1: GPU is lost.", 15),
            "nvidia-smi says 'Unable to determine the device handle for GPU1: GPU is lost.'",
            "power the host off",
        ),
        (facts(), answer("No devices were found"), "lists no card: No devices were found", "playbooks/site.yml"),
        (facts(), answer(CSV.replace("24564", "[N/A]")), "0000:01:00.0 (NVIDIA GeForce RTX 4090)", "reboot"),
        (facts(), answer(CSV.replace(" 8.9", " [GPU is lost]")), "compute_cap '[GPU is lost]'", "reboot"),
    ],
)
def test_a_driver_that_does_not_answer_is_said_with_the_remedy(
    machine: dict[str, Any], said: dict[str, Any], message: str, remedy: str
) -> None:
    found = detect(machine, said, {})
    assert found.problem is not None
    assert message in found.problem.message
    assert remedy in found.problem.remedy
    assert "gpus" not in found.hardware
    assert found.by_pci == ["0000:01:00.0: NVIDIA GeForce RTX 4090", "0000:0a:00.0: NVIDIA GeForce RTX 5070 Ti"]


def test_a_warning_beside_the_cards_is_no_failure() -> None:
    warned = answer(f"{CSV}WARNING: infoROM is corrupted at gpu 0000:01:00.0\n", 14)
    assert list(cards_of(detect(facts(), warned, {}).hardware)) == [ADA, BLACKWELL]


def test_the_playbook_asks_for_what_is_read_here() -> None:
    plays = yaml.safe_load((ROOT / "playbooks/detect.yml").read_text(encoding="utf-8"))
    assert plays[0]["vars"]["detect_query"] == ",".join(QUERY)


def test_the_first_services_are_none_with_an_example_of_this_host() -> None:
    with_driver = services_text(detect(facts(), answer(), {}).hardware, [])
    before = services_text(detect(facts(), None, {}).hardware, detect(facts(), None, {}).by_pci)
    without_cards = services_text(detect(facts({}), None, {}).hardware, [])
    for text, strategy in ((with_driver, "A"), (before, "A"), (without_cards, "cpu")):
        assert yaml.safe_load(text) == {"llm_services": []}
        example = "\n".join(line.removeprefix("# ") for line in text.splitlines()[2:-1])
        service = yaml.safe_load(example)["llm_services"][0]
        assert service["strategy"] == strategy
        assert service.get("gpus") == (["rtx-4090"] if strategy == "A" else None)
