from __future__ import annotations

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llamarig.config.metrics import METRICS
from llamarig.web.exposition import Sample, exposition


def test_every_declared_metric_becomes_text_that_says_what_was_declared() -> None:
    samples = [
        Sample(metric.name, tuple(f'{label} "\\\n' for label in metric.labels), number)
        for number, metric in enumerate(METRICS)
    ]
    families = list(text_string_to_metric_families(exposition(samples).decode()))
    assert len(families) == len(METRICS)
    for number, (family, metric) in enumerate(zip(families, METRICS, strict=True)):
        (sample,) = family.samples
        assert (sample.name, sample.value) == (metric.name, number)
        assert sample.labels == {label: f'{label} "\\\n' for label in metric.labels}
        assert (family.type, family.documentation) == (metric.kind, metric.help)


def test_samples_of_a_metric_stand_together_however_they_come() -> None:
    first, other = "llamarig_gpu_power_watts", "llamarig_gpu_up"
    mixed = [Sample(first, ("a",), 1), Sample(other, ("a",), 1), Sample(first, ("b",), 2)]
    families = list(text_string_to_metric_families(exposition(mixed).decode()))
    assert [(family.name, len(family.samples)) for family in families] == [(first, 2), (other, 1)]


def test_what_is_not_declared_cannot_be_said() -> None:
    with pytest.raises(KeyError, match="llamarig_gpu_mood"):
        exposition([Sample("llamarig_gpu_mood", (), 1)])


@pytest.mark.parametrize("number", [0.1, 1e308, 2**53 - 1, -5, math.pi])
def test_a_number_is_whole(number: float) -> None:
    text = exposition([Sample("llamarig_switching", (), number)]).decode()
    ((family),) = text_string_to_metric_families(text)
    assert family.samples[0].value == number
