"""Samples, and how they become text: a custom collector of prometheus_client over the metrics that are declared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
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


class SampleCollector(Collector):
    """Gives samples to Prometheus, as they are when it asks; it keeps none."""

    def __init__(self, samples: Callable[[], Iterable[Sample]]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Family]:
        """Yield the families of the samples, in the order in which they come."""
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for sample in self._samples():
            family = families.get(sample.metric)
            if family is None:
                declared = BY_NAME[sample.metric]
                kind = CounterMetricFamily if declared.kind == "counter" else GaugeMetricFamily
                family = families[sample.metric] = kind(declared.name, declared.help, labels=declared.labels)
            if len(sample.labels) != len(BY_NAME[sample.metric].labels):
                raise ValueError(f"{sample.metric} has other labels than {sample.labels}")
            family.add_metric(sample.labels, sample.number)
        yield from families.values()


def exposition(samples: Iterable[Sample]) -> bytes:
    """Return samples in Prometheus' text format.

    Raises:
        KeyError, ValueError: a metric is not declared, or has other labels.

    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SampleCollector(lambda: samples))
    return generate_latest(registry)
