from __future__ import annotations

import pynvml  # type: ignore[import-untyped]
import pytest

from llamarig.config.metrics import BY_NAME
from llamarig.hardware import nvml_card
from llamarig.hardware.nvml_card import FIELDS, known_fields


@pytest.mark.parametrize("item", FIELDS, ids=lambda item: item.name)
def test_a_field_has_the_id_that_the_pinned_binding_gives_it(item: nvml_card.Field) -> None:
    assert getattr(pynvml, f"NVML_FI_DEV_{item.name}") == item.id


@pytest.mark.parametrize(
    ("driver", "asked"),
    [
        ("580.95.05", True),
        ("580.82", True),
        ("615.71", True),
        ("580.65.06", False),
        ("575.51.03", False),
        ("", False),
        ("r580", False),
    ],
)
def test_fields_that_were_renumbered_are_asked_of_drivers_that_know_them(driver: str, asked: bool) -> None:
    ids = {item.id for item in known_fields(driver)}
    assert ids & {269, 270, 271} == ({269, 270, 271} if asked else set())
    assert ids >= {74, 76, 82, 186, 193, 194, 195, 196, 197, 198, 230}


def test_whatever_is_asked_is_declared_with_as_many_labels() -> None:
    asked = [(item.metric, item.label) for item in (*nvml_card._QUESTIONS, *nvml_card._THROUGHPUT)]
    asked += [(item.metric, item.label) for item in FIELDS]
    for metric, label in asked:
        assert len(BY_NAME[f"llamarig_gpu_{metric}"].labels) == 1 + bool(label), metric


@pytest.mark.parametrize(
    ("labels", "prefix"),
    [
        (nvml_card._CLOCKS, "NVML_CLOCK_"),
        (nvml_card._DIRECTIONS, "NVML_PCIE_UTIL_"),
        (nvml_card._THRESHOLDS, "NVML_TEMPERATURE_THRESHOLD_"),
    ],
)
def test_kinds_have_the_numbers_of_the_binding(labels: dict[str, int], prefix: str) -> None:
    names = {"transmit": "TX_BYTES", "receive": "RX_BYTES", "memory": "MEM", "gpu": "GPU_MAX"}
    for label, number in labels.items():
        name = names.get(label, label.upper())
        if prefix.endswith("THRESHOLD_") and label == "memory":
            name = "MEM_MAX"
        assert getattr(pynvml, prefix + name) == number
