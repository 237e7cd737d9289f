"""Prometheus on a lab host, as whoever stands before it asks it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tests.acceptance.box import Box


@dataclass(frozen=True)
class Series:
    """One series of what was asked: its labels, and its samples as pairs of time and value."""

    labels: dict[str, str]
    samples: list[tuple[float, float]]

    @property
    def target(self) -> str:
        return f"{self.labels.get('job')} of {self.labels.get('instance')}"


def ask(box: Box, path: str, **query: str) -> Any:
    return json.loads(box.get(f"http://127.0.0.1:9090/api/v1/{path}?{urlencode(query)}"))["data"]


def series(box: Box, query: str) -> list[Series]:
    found = ask(box, "query", query=query)["result"]
    return [
        Series(item["metric"], [(float(at), float(value)) for at, value in item.get("values") or [item["value"]]])
        for item in found
    ]


def up(box: Box) -> dict[str, float]:
    """Return whether each target is up, as Prometheus saw it last."""
    return {item.target: item.samples[-1][1] for item in series(box, 'up{job=~"llamarig-.*"}')}
