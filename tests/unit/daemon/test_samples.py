from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from llamarig.daemon import samples as module
from llamarig.daemon.samples import EVERY_SECONDS, KEPT_SECONDS, Samples

SECONDS = 20
START = 1_700_000_000.0


def card(name: str = "rtx4090", **changes: Any) -> dict[str, Any]:
    return {
        "uuid": f"GPU-{name}",
        "name": name,
        "memory_mib": 24564,
        "used_mib": 1000,
        "utilisation": 0.5,
        "power_w": 100.0,
        "power_limit_w": 450.0,
        "temperature_c": 50,
        **changes,
    }


class Box:
    """A clock, and what the cards say."""

    def __init__(self, *cards: dict[str, Any]) -> None:
        self.time = START
        self.said: dict[str, Any] = {"gpus": list(cards), "age_seconds": 0.1, "error": None}
        self.samples = Samples(lambda: self.said, now=lambda: self.time)

    def take(self, seconds: float = EVERY_SECONDS) -> float:
        pause = self.samples.take()
        self.time += seconds
        return pause

    def recent(self, seconds: int = 3600) -> dict[str, Any]:
        return self.samples.recent(seconds)


def test_before_the_first_sample_there_is_nothing() -> None:
    found = Box().recent()
    assert (found["times"], found["gpus"], found["time"]) == ([], [], START)


def test_each_card_has_a_figure_for_each_time() -> None:
    box = Box(card())
    box.take()
    box.said["gpus"] = [card(used_mib=2000, utilisation=None), card("rtx5070ti")]
    box.take()
    found = box.recent()
    assert found["times"] == [START, START + EVERY_SECONDS]
    first, second = found["gpus"]
    assert (first["used_mib"], first["utilisation"], first["power_w"]) == ([1000, 2000], [0.5, None], [100.0, 100.0])
    assert (second["name"], second["used_mib"]) == ("rtx5070ti", [None, 1000])


def test_of_the_last_seconds_is_only_what_is_new() -> None:
    box = Box(card())
    for _ in range(10):
        box.take()
    assert len(box.recent()["times"]) == 10
    assert box.recent(75)["times"] == [START + 240, START + 270]


def test_an_hour_is_kept_and_a_card_that_is_gone_for_an_hour_is_forgotten() -> None:
    box = Box(card(), card("old"))
    box.take()
    box.said["gpus"] = [card()]
    for _ in range(int(KEPT_SECONDS / EVERY_SECONDS) - 1):
        box.take()
    assert [one["name"] for one in box.recent()["gpus"]] == ["rtx4090", "old"]
    for _ in range(50):
        box.take()
    found = box.recent()
    assert len(found["times"]) <= KEPT_SECONDS / EVERY_SECONDS
    assert len(box.samples._kept) == KEPT_SECONDS / EVERY_SECONDS
    assert [one["name"] for one in found["gpus"]] == ["rtx4090"]


@pytest.mark.parametrize("age", [None, EVERY_SECONDS, 500.0])
def test_figures_of_a_driver_that_hangs_are_not_those_of_now(age: float | None) -> None:
    box = Box(card())
    box.take()
    box.said |= {"age_seconds": age, "error": "NVML has not answered for 20 s"}
    assert box.take() == EVERY_SECONDS, "it may come back at any time"
    assert box.recent()["gpus"][0]["used_mib"] == [1000, None]


def test_a_host_without_a_card_is_asked_less_often() -> None:
    assert Box().take() > EVERY_SECONDS
    assert Box(card()).take() == EVERY_SECONDS


def test_a_clock_that_is_set_back_leaves_no_line_to_and_fro() -> None:
    box = Box(card())
    for _ in range(10):
        box.take()
    box.time = START + 65
    box.take()
    assert box.recent()["times"] == [START, START + 30, START + 60, START + 65]


def test_no_more_cards_are_kept_than_may_be() -> None:
    box = Box(*(card(f"card{number}") for number in range(500)))
    box.take()
    assert len(box.recent()["gpus"]) == module._MOST_CARDS


def test_samples_are_taken_by_a_thread_that_outlives_trouble(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.01)
    asked, went_on = [], threading.Event()

    def gpus() -> dict[str, Any]:
        asked.append(1)
        if len(asked) < 4:
            raise RuntimeError("boom")
        went_on.set()
        return {"gpus": [], "age_seconds": 0.0, "error": None}

    samples = Samples(gpus)
    samples.start()
    assert went_on.wait(SECONDS)
    samples.close()
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warned) == 1, "trouble that lasts is said once"
