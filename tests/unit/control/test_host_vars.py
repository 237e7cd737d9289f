"""Where a host's hardware is declared, and what is written there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llamarig.control.host_vars import record
from tests.unit.control.test_detect import ADA, answer, facts

HOST = "gpu01.example.com"
MACHINE_FAILED = {"failed": True, "msg": "Task failed: Missing sudo password"}
UNREACHABLE = {"unreachable": True, "msg": "Task failed: ssh: connect to host gpu01.example.com port 22: refused"}


def look(machine: dict[str, Any] | None = None, cards: dict[str, Any] | None = None, **other: Any) -> dict[str, Any]:
    said = {"machine": machine or {"facts": facts()}, "cards": answer() if cards is None else cards}
    return {**said, "services_declared": False, **other}


def folder(site: Path) -> Path:
    return site / "host_vars" / HOST


def files(site: Path) -> dict[str, str]:
    return {str(path.relative_to(site)): path.read_text() for path in site.rglob("*") if path.is_file()}


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_new_host_gets_hardware_and_empty_services(tmp_path: Path) -> None:
    outcome = record(tmp_path, HOST, look(), dry=False)
    assert outcome.problems == []
    assert outcome.files == [folder(tmp_path) / "hardware.yml", folder(tmp_path) / "services.yml"]
    hardware = yaml.safe_load((folder(tmp_path) / "hardware.yml").read_text())
    assert hardware["host_hardware"]["gpus"][0]["uuid"] == ADA
    assert yaml.safe_load((folder(tmp_path) / "services.yml").read_text()) == {"llm_services": []}
    assert outcome.text[:2] == ["--- /dev/null", f"+++ {folder(tmp_path)}/hardware.yml"]


def test_the_folder_of_an_inventory_that_is_a_file_is_beside_it(tmp_path: Path) -> None:
    record(put(tmp_path / "hosts.yml", "gpu_hosts: {}\n"), HOST, look(), dry=False)
    assert (folder(tmp_path) / "hardware.yml").is_file()


def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    dry = record(tmp_path, HOST, look(), dry=True)
    assert files(tmp_path) == {}
    assert dry == record(tmp_path, HOST, look(), dry=False)


def test_a_second_run_changes_nothing_and_keeps_comments(tmp_path: Path) -> None:
    record(tmp_path, HOST, look(), dry=False)
    path = folder(tmp_path) / "hardware.yml"
    path.write_text(path.read_text() + "# bought in March\n")
    before = files(tmp_path)
    outcome = record(tmp_path, HOST, look(), dry=False)
    assert (outcome.files, outcome.text, outcome.problems) == ([], [], [])
    assert files(tmp_path) == before


def test_the_driver_that_came_gives_the_cards_and_nothing_else_changes(tmp_path: Path) -> None:
    record(tmp_path, HOST, look(cards={"skipped": True}), dry=False)
    path = folder(tmp_path) / "hardware.yml"
    assert "# PCI 0000:01:00.0" in path.read_text()
    services = put(folder(tmp_path) / "services.yml", "llm_services: [mine]\n")
    outcome = record(tmp_path, HOST, look(), dry=False)
    assert outcome.files == [path]
    assert "# PCI" not in path.read_text()
    assert any(line.startswith("+") and ADA in line for line in outcome.text)
    assert services.read_text() == "llm_services: [mine]\n"


def test_a_card_more_on_the_bus_is_written_before_its_driver(tmp_path: Path) -> None:
    record(tmp_path, HOST, look({"facts": facts({})}, {"skipped": True}), dry=False)
    record(tmp_path, HOST, look(cards={"skipped": True}), dry=False)
    assert "# PCI 0000:01:00.0" in (folder(tmp_path) / "hardware.yml").read_text()


def test_other_variables_in_hardware_yml_stay(tmp_path: Path) -> None:
    path = put(folder(tmp_path) / "hardware.yml", "llm_default_service: chat\nhost_hardware: null\n")
    record(tmp_path, HOST, look(), dry=False)
    assert yaml.safe_load(path.read_text())["llm_default_service"] == "chat"
    assert yaml.safe_load(path.read_text())["host_hardware"]["cpu_threads"] == 16


@pytest.mark.parametrize("name", ["main.yml", "vault.yml"])
def test_where_the_host_has_other_files_no_services_are_written(tmp_path: Path, name: str) -> None:
    put(folder(tmp_path) / name, "$ANSIBLE_VAULT;1.1;AES256\n3138\n")
    assert [path.name for path in record(tmp_path, HOST, look(), dry=False).files] == ["hardware.yml"]


def test_services_that_the_inventory_declares_elsewhere_are_not_overridden(tmp_path: Path) -> None:
    outcome = record(tmp_path, HOST, look(services_declared=True), dry=False)
    assert [path.name for path in outcome.files] == ["hardware.yml"]


def test_services_that_were_taken_away_do_not_come_back(tmp_path: Path) -> None:
    record(tmp_path, HOST, look(), dry=False)
    (folder(tmp_path) / "services.yml").unlink()
    record(tmp_path, HOST, look({"facts": facts(memory_mib=128000)}), dry=False)
    assert list(files(tmp_path)) == [f"host_vars/{HOST}/hardware.yml"]


@pytest.mark.parametrize("suffix", ["", ".yml", ".yaml", ".json"])
def test_a_file_of_the_host_is_not_hidden_by_a_folder(tmp_path: Path, suffix: str) -> None:
    path = put(tmp_path / "host_vars" / f"{HOST}{suffix}", "llm_services: []\n")
    before = files(tmp_path)
    outcome = record(tmp_path, HOST, look(), dry=False)
    assert files(tmp_path) == before
    assert outcome.files == []
    assert f"{path} holds the host's variables" in outcome.problems[0].message
    assert yaml.safe_load("\n".join(outcome.text))["host_hardware"]["gpus"][0]["uuid"] == ADA


def test_a_declaration_in_another_file_is_not_doubled_and_gives_its_names(tmp_path: Path) -> None:
    first = record(tmp_path, HOST, look(), dry=False)
    old = (folder(tmp_path) / "hardware.yml").rename(folder(tmp_path) / "main.yml")
    assert first.detected is not None
    assert record(tmp_path, HOST, look(), dry=False).problems == []
    old.write_text(old.read_text().replace("name: rtx-4090", "name: big").replace("24564", "20000"))
    outcome = record(tmp_path, HOST, look(), dry=False)
    assert "main.yml declares host_hardware already; nothing was written" in outcome.problems[0].message
    assert "    - name: big" in outcome.text
    assert not (folder(tmp_path) / "hardware.yml").exists()


@pytest.mark.parametrize("text", ["host_hardware: [\n", "host_hardware: !vault x\n", "$ANSIBLE_VAULT;1.1;AES256\n31\n"])
def test_a_hardware_yml_that_cannot_be_read_is_left_alone(tmp_path: Path, text: str) -> None:
    path = put(folder(tmp_path) / "hardware.yml", text)
    outcome = record(tmp_path, HOST, look(), dry=False)
    assert path.read_text() == text
    assert f"{path} is no plain YAML" in outcome.problems[0].message
    assert outcome.problems[0].remedy


@pytest.mark.parametrize(
    ("said", "message", "remedy"),
    [
        (look(MACHINE_FAILED, {}), f"{HOST} cannot be read: Missing sudo password", "-K"),
        (look(UNREACHABLE, {}), f"{HOST} cannot be reached: ssh: connect to host", "ssh to it"),
        (look(cards=UNREACHABLE), f"{HOST} cannot be reached", "ssh to it"),
        (look({"failed": True, "module_stderr": "python3: not\nfound"}, {}), "python3: not found", "python3"),
    ],
)
def test_a_host_that_cannot_be_read_is_said(tmp_path: Path, said: dict[str, Any], message: str, remedy: str) -> None:
    outcome = record(tmp_path, HOST, said, dry=False)
    assert outcome.detected is None
    assert message in outcome.problems[0].message
    assert remedy in outcome.problems[0].remedy
    assert files(tmp_path) == {}
