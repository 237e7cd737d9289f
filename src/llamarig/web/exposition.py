"""Samples, and how they become text: a custom collector of prometheus_client over the metrics that are declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from starlette.responses import Response

from llamarig.config.metrics import BY_NAME


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a declared metric: its full name, the values of its labels in order, its number."""

    metric: str
    labels: tuple[str, ...]
    number: float


class Exposition(Response):
    """An answer in Prometheus' text format."""

    media_type = "text/plain; version=0.0.4; charset=utf-8"


class _Families(Collector):
    """Samples as prometheus_client takes them."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Family]:
        """Yield the families of the samples, in the order in which they come."""
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for sample in self._samples:
            declared = BY_NAME[sample.metric]
            if len(sample.labels) != len(declared.labels):
                raise ValueError(f"{sample.metric} has other labels than {sample.labels}")
            family = families.get(sample.metric)
            if family is None:
                kind = CounterMetricFamily if declared.kind == "counter" else GaugeMetricFamily
                family = families[sample.metric] = kind(declared.name, declared.help, labels=declared.labels)
            family.add_metric(sample.labels, sample.number)
        yield from families.values()


def exposition(samples: Iterable[Sample]) -> bytes:
    """Return samples in Prometheus' text format.

    Raises:
        KeyError, ValueError: a metric is not declared, or has other labels.

    """
    return generate_latest(_Families(samples))
