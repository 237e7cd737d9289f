from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from llamarig.config import paths
from llamarig.config.metrics import BY_NAME
from llamarig.exporter import space
from llamarig.exporter.collection import Collected, Collection
from llamarig.exporter.space import Space
from llamarig.hardware.gpus import CardFault, explained
from llamarig.hardware.measured import Measured, StaleLibraryError
from tests.played_exporter import until
from tests.support import below, make_spec
from tests.unit.exporter.world import FIRST, PlayedMeter, card, measured


def collected(root: Path, *answers: Measured | Exception) -> Collected:
    return Collection(PlayedMeter(list(answers)), root).collect()


def said(found: Collected) -> dict[str, dict[tuple[str, ...], float]]:
    result: dict[str, dict[tuple[str, ...], float]] = {}
    for sample in found.samples:
        assert len(sample.labels) == len(BY_NAME[sample.metric].labels), sample
        result.setdefault(sample.metric.removeprefix("llamarig_"), {})[sample.labels] = sample.number
    return result


def declare(root: Path, *cards: dict[str, Any]) -> None:
    path = below(root, paths.HARDWARE_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    usual = {"memory_mib": 1, "compute_capability": "8.9"}
    path.write_text(json.dumps({"schema_version": 1, "gpus": [usual | item for item in cards]}), encoding="utf-8")


def test_a_card_is_said_with_its_values(tmp_path: Path) -> None:
    found = collected(tmp_path, measured(card()))
    assert (found.succeeded, found.codes, found.trouble) == (True, (), "")
    assert said(found) == {
        "driver_mismatch": {(): 0},
        "driver_info": {("580.95.05", "13.580.95.05", "13.0", "580.95.05"): 1},
        "gpu_up": {(FIRST,): 1},
        "gpu_info": {(FIRST, "0", "", "NVIDIA GeForce RTX 4090", "0000:01:00.0", "8.9"): 1},
        "gpu_xid_watched": {(FIRST,): 1},
        "gpu_power_watts": {(FIRST,): 21.5},
        "gpu_throttle": {(FIRST, "power-cap"): 1},
        "gpu_service_processes": {(FIRST, ""): 2},
        "gpu_service_memory_bytes": {(FIRST, ""): 512},
    }


def test_memory_is_its_services_by_the_innermost_slice(tmp_path: Path) -> None:
    for pid, place in ((7, f"/llama.slice/llama-chat.slice/docker-{'a' * 64}.scope"), (8, "/user.slice")):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/cgroup").write_text(f"0::{place}\n", encoding="ascii")
    found = said(collected(tmp_path, measured(card())))
    assert found["gpu_service_memory_bytes"] == {(FIRST, "chat"): 512}
    assert found["gpu_service_processes"] == {(FIRST, "chat"): 1, (FIRST, ""): 1}


def test_a_driver_that_names_no_processes_says_nothing_of_services(tmp_path: Path) -> None:
    assert not [name for name in said(collected(tmp_path, measured(card(holders=None)))) if "service" in name]


def test_a_card_that_was_seen_is_down_when_it_is_gone(tmp_path: Path) -> None:
    collection = Collection(PlayedMeter([measured(card(), card("GPU-2")), measured(card())]), tmp_path)
    assert said(collection.collect())["gpu_up"] == {(FIRST,): 1, ("GPU-2",): 1}
    assert said(collection.collect())["gpu_up"] == {(FIRST,): 1, ("GPU-2",): 0}


def test_a_fault_is_counted_and_the_card_is_down(tmp_path: Path) -> None:
    fault = CardFault(index=1, code=15, uuid="GPU-2")
    found = collected(tmp_path, measured(card(codes=(999,)), faults=(fault,)))
    assert said(found)["gpu_up"] == {(FIRST,): 1, ("GPU-2",): 0}
    assert (found.succeeded, sorted(found.codes)) == (True, [15, 999])


def test_declared_cards_have_their_names_and_are_missed(tmp_path: Path) -> None:
    declare(
        tmp_path, {"name": "left", "model": "NVIDIA GeForce RTX 4090"}, {"name": "right", "model": "x", "uuid": "GPU-9"}
    )
    found = said(collected(tmp_path, measured(card())))
    assert found["gpus_declared"] == {(): 2}
    assert found["gpu_up"] == {(FIRST,): 1, ("GPU-9",): 0}
    assert [labels[2] for labels in found["gpu_info"]] == ["left"]


@pytest.mark.parametrize(("code", "mismatch"), [(9, None), (12, None), (18, 1), (999, None), (4, None)])
def test_nvml_as_a_whole_fails(tmp_path: Path, code: int, mismatch: int | None) -> None:
    declare(tmp_path, {"name": "left", "model": "x", "uuid": "GPU-9"})
    found = collected(tmp_path, explained(code))
    assert (found.succeeded, found.codes) == (False, (code,))
    assert found.trouble
    assert said(found).get("driver_mismatch") == (None if mismatch is None else {(): mismatch})
    assert said(found)["gpu_up"] == {("GPU-9",): 0}


@pytest.mark.parametrize("code", [9, 12])
def test_where_no_card_is_declared_no_driver_is_missed(tmp_path: Path, code: int) -> None:
    assert collected(tmp_path, explained(code)) == Collected((), succeeded=True)


def test_a_library_that_is_stale_is_for_others_to_handle(tmp_path: Path) -> None:
    with pytest.raises(StaleLibraryError):
        collected(tmp_path, StaleLibraryError("x"))


def test_hardware_that_cannot_be_read_hides_nothing_else(tmp_path: Path) -> None:
    declare(tmp_path)
    below(tmp_path, paths.HARDWARE_FILE).write_text("{", encoding="ascii")
    found = said(collected(tmp_path, measured(card())))
    assert "gpus_declared" not in found
    assert found["gpu_up"] == {(FIRST,): 1}


def test_two_cards_with_one_uuid_are_said_once(tmp_path: Path) -> None:
    found = collected(tmp_path, measured(card(), card(index=1, pci_address="0000:02:00.0"), card("GPU-2", index=2)))
    assert len(found.samples) == len({(sample.metric, sample.labels) for sample in found.samples})
    assert [labels[:2] for labels in said(found)["gpu_info"]] == [(FIRST, "0"), ("GPU-2", "2")]


def test_models_that_another_machine_has_and_that_is_away_hide_no_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, asked = threading.Event(), []

    def statvfs(path: Path) -> os.statvfs_result:
        asked.append(path)
        if len(asked) == 1:
            away.wait(60)
        return real(tmp_path)

    real = os.statvfs
    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(space, "PATIENCE_SECONDS", 0.01)
    place = below(tmp_path, f"{paths.SPECS}/chat.json")
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(make_spec("chat").to_dict()), encoding="utf-8")
    collection = Collection(PlayedMeter([measured(card())]), tmp_path)
    for _ in range(5):
        found = said(collection.collect())
        assert found["gpu_power_watts"] == {(FIRST,): 21.5}
        assert "models_free_bytes" not in found
    assert len(asked) == 1, "nobody else waits for it meanwhile"
    monkeypatch.setattr(space, "PATIENCE_SECONDS", 60)
    away.set()
    until(lambda: "models_free_bytes" in said(collection.collect()))
    assert said(collection.collect())["models_size_bytes"] == {(): real(tmp_path).f_blocks * real(tmp_path).f_frsize}


def test_a_path_that_none_can_be_has_no_room() -> None:
    assert Space().of(Path("/\0")) is None
    assert Space().of(Path("/there/is/none")) is None
