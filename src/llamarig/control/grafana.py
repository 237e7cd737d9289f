"""Dashboards of Grafana: what a board shows, and the JSON that Grafana reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Kind = Literal["timeseries", "stat", "table", "bargauge", "state-timeline"]
# Of the data source that the role provisions; a Grafana elsewhere gives its own the same one.
SOURCE: Final = {"type": "prometheus", "uid": "llamarig-prometheus"}
TAG: Final = "llamarig"
# Grafana 9 and later read it, and bring it to their own.
_SCHEMA: Final = 37
_COLUMNS: Final = 24
_HEIGHTS: Final[dict[Kind, int]] = {"timeseries": 8, "stat": 4, "table": 8, "bargauge": 8, "state-timeline": 6}


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of PromQL, and what its series are called; ``{{label}}`` stands for a label's value."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        queries: what of.
        says: in a sentence or two, behind the panel's ``i``.
        kind: of the panel.
        unit: Grafana's name of the unit.
        width: in columns, of 24.
        most: end of the scale, which begins at 0; None where the figures decide.
        stacked: whether series stand on each other.
        steps: colours, and from which value on.

    """

    title: str
    queries: Sequence[Query]
    says: str = ""
    kind: Kind = "timeseries"
    unit: str = "short"
    width: int = 8
    most: float | None = None
    stacked: bool = False
    steps: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading; they flow from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable of a board: the values of a label among the series of a selector."""

    name: str
    title: str
    selector: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard; ``name`` is its file's, and its uid with llamarig's prefix."""

    name: str
    title: str
    says: str
    rows: Sequence[Row]
    choices: Sequence[Choice] = field(default=())


# What a card's series are called, with what named() gives them.
CARD: Final = "{{index}} {{name}}"
# For figures that should be 0.
BAD: Final = (("red", 1.0),)
HEALTH_STEPS: Final = (("orange", 2.0), ("red", 3.0))
HEALTH_SAYS: Final = "Green is well, orange loads or is not known yet, red is anything else."
# Of tokens per second, wherever they are shown.
TOKENS_SAYS: Final = (
    "llama-server counts what it generated when a request has come to its end: a long one is a peak there."
)
CHOSEN_HOST: Final = Choice("host", "Host", "llamarig_exporter_info", "instance")


def named(expr: str) -> str:
    """Give a card's series the name and the number that the card has beside its UUID."""
    return f"{expr} * on (instance, gpu) group_left (name, index) llamarig_gpu_info"


def grown(counter: str, time: str = "1h") -> str:
    """Return by how much a counter has grown, its first sample included, which ``increase()`` does not count."""
    return f"({counter} unless {counter} offset {time} or increase({counter}[{time}]))"


def healths(selector: str, legend: str) -> list[Query]:
    """Return one query for each colour of :data:`HEALTH_STEPS`: services that are well, that load, and all others."""
    loads = "loading|unknown"
    kinds = (("", 'health="ok"'), ("2 * ", f'health=~"{loads}"'), ("3 * ", f'health!~"ok|{loads}"'))
    return [Query(f"{times}(llamarig_service_health{{{selector},{kind}}} == 1)", legend) for times, kind in kinds]


def to_json(board: Board) -> str:
    """Return a board as Grafana reads it; the same text each time."""
    return json.dumps(_board(board), indent=2, ensure_ascii=False) + "\n"


def expressions(board: Board) -> Iterator[str]:
    """Yield every expression of a board, those of its variables as selectors."""
    yield from (choice.selector for choice in board.choices)
    for row in board.rows:
        for panel in row.panels:
            yield from (query.expr for query in panel.queries)


def _board(board: Board) -> dict[str, Any]:
    return {
        "uid": f"{TAG}-{board.name}",
        "title": board.title,
        "description": board.says,
        "tags": [TAG],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "",
        "links": [
            {
                "type": "dashboards",
                "title": TAG,
                "tags": [TAG],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
            }
        ],
        "annotations": {"list": []},
        "templating": {"list": [_choice(choice) for choice in board.choices]},
        "panels": list(_panels(board)),
    }


def _choice(choice: Choice) -> dict[str, Any]:
    query = f"label_values({choice.selector}, {choice.label})"
    return {
        "type": "query",
        "name": choice.name,
        "label": choice.title,
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": choice.name},
        "refresh": 2,
        "sort": 1,
        "multi": False,
        "includeAll": False,
    }


def _panels(board: Board) -> Iterator[dict[str, Any]]:
    """Yield rows and panels, each with a number and a place of its own."""
    number, top = 0, 0
    for row in board.rows:
        number += 1
        place = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
        top += 1
        left = tallest = 0
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            number += 1
            height = _HEIGHTS[panel.kind]
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": height})
            left, tallest = left + panel.width, max(tallest, height)
        top += tallest


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps = [{"color": "green", "value": None}, *({"color": name, "value": at} for name, at in panel.steps)]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
        "color": {"mode": "thresholds" if panel.kind != "timeseries" else "palette-classic"},
        "custom": _looks(panel),
        "min": 0,
    }
    if panel.most is not None:
        defaults["max"] = panel.most
    found = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [_target(panel.kind, index, query) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
    }
    if panel.kind == "table":
        found["transformations"] = [{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True}}}]
    return found


def _target(kind: Kind, index: int, query: Query) -> dict[str, Any]:
    now = kind in {"stat", "table", "bargauge"}
    return {
        "refId": chr(ord("A") + index),
        "datasource": SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": now,
        "range": not now,
        "format": "table" if kind == "table" else "time_series",
    }


def _looks(panel: Panel) -> dict[str, Any]:
    match panel.kind:
        case "timeseries":
            stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
            fill = 30 if panel.stacked else 5
            return {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": fill,
                "showPoints": "never",
                "stacking": stacking,
            }
        case "state-timeline":
            return {"lineWidth": 0, "fillOpacity": 80}
        case _:
            return {}


def _options(kind: Kind) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match kind:
        case "timeseries":
            legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
        case "stat":
            return {"reduceOptions": last, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
        case "bargauge":
            return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "basic"}
        case "state-timeline":
            return {"mergeValues": True, "showValue": "never", "rowHeight": 0.9}
        case "table":
            return {"showHeader": True, "cellHeight": "sm"}
