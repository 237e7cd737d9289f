"""What dashboards ask and rules record, computed: on a host at work, on one at rest, and where there is nothing yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from llamarig.config.metrics import BY_NAME
from llamarig.control.docs_metrics import ENGINE
from llamarig.control.grafana import expressions
from llamarig.control.grafana_boards import BOARDS
from llamarig.control.promql import RULES, rules
from llamarig.daemon.metrics import HEALTHS
from tests.contract.promtool import needs, said
from tests.contract.tree import ROOT

# Two cards and two services of each host, and what belongs to none.
LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    "by": ("predicted", "engine", "measured"),
    "clock": ("sm", "memory"),
    "device": ("host", "GPU-1"),
    "gpu": ("GPU-1", "GPU-2"),
    "health": HEALTHS,
    "outcome": ("ok", "failed"),
    "reason": ("power-cap", "hardware-thermal"),
    "service": ("chat", "code", ""),
}
FOREIGN: Final = (
    'up{instance="gpu01",job="llamarig-exporter"}',
    'node_cpu_seconds_total{instance="gpu01",mode="idle",cpu="0"}',
    'node_memory_MemTotal_bytes{instance="gpu01"}',
    'node_memory_MemAvailable_bytes{instance="gpu01"}',
    'ALERTS{instance="gpu01",alertname="LlamarigCardLost",alertstate="firing",severity="critical",gpu="GPU-1"}',
)
ASKED: Final = sorted(
    {
        *(
            expr.replace("$host", "gpu01").replace("$service", "chat").replace("$__rate_interval", "1m")
            for board in BOARDS
            for expr in expressions(board)
        ),
        *(rule.expr for rule in rules(ROOT) if not rule.is_alert),
    }
)


def series(*, at_work: bool) -> list[dict[str, str]]:
    """Every metric that there is, as it is collected: counters that grow, and gauges; all that can be is 0 at rest."""
    selectors: dict[str, tuple[str, tuple[str, ...], str]] = {
        name: ("services", ("service",), kind) for name, (kind, _) in ENGINE.items()
    }
    selectors |= {
        metric.name: ("services" if metric.source == "daemon" else "exporter", metric.labels, metric.kind)
        for metric in BY_NAME.values()
    }
    found = []
    for name, (job, labels, kind) in selectors.items():
        stays = at_work or name.endswith(("_info", "_memory_total_bytes"))
        value = "0+7x80" if kind == "counter" and at_work else "1x80" if stays else "0x80"
        for values in product(*(LABELS.get(label, ("some",)) for label in labels)):
            told = "".join(f',{label}="{value}"' for label, value in zip(labels, values, strict=True))
            found.append({"series": f'{name}{{instance="gpu01",job="llamarig-{job}"{told}}}', "values": value})
    return [*found, *({"series": name, "values": "1+1x80" if at_work else "0x80"} for name in FOREIGN)]


def computed(place: Path, known: list[dict[str, str]], tests: Mapping[str, int]) -> str:
    """What promtool says where expressions should come to these numbers; empty where they do."""
    step = {
        "interval": "15s",
        "input_series": known,
        "promql_expr_test": [
            {"expr": expr, "eval_time": "20m", "exp_samples": [{"labels": "{}", "value": value}]}
            for expr, value in tests.items()
        ],
    }
    files = sorted(str(path) for path in (ROOT / RULES).glob("*.yml"))
    (place / "test.yaml").write_text(
        json.dumps({"rule_files": files, "evaluation_interval": "15s", "tests": [step]}), encoding="utf-8"
    )
    status, text = said("promtool", "test", "rules", place / "test.yaml")
    return text if status else ""


@needs("promtool")
@pytest.mark.parametrize("state", ["at work", "at rest", "nothing yet"])
def test_what_is_computed_is_a_number(state: str, tmp_path: Path) -> None:
    """No expression fails, as where series cannot be told apart; none comes to what is no number, or has no end."""
    known = [] if state == "nothing yet" else series(at_work=state == "at work")
    odd = {f"vector(1) unless on () count(({expr}) != ({expr}) or abs({expr}) == Inf)": 1 for expr in ASKED}
    assert computed(tmp_path, known, odd) == ""


@needs("promtool")
def test_on_a_host_at_work_everything_is_shown(tmp_path: Path) -> None:
    assert computed(tmp_path, series(at_work=True), {f"count({expr}) > bool 0": 1 for expr in ASKED}) == ""


@needs("promtool")
def test_what_is_no_number_would_be_seen(tmp_path: Path) -> None:
    expr = 'llamarig_gpu_power_watts{gpu="GPU-1"} / llamarig_gpu_power_watts{gpu="GPU-1"}'
    test = f"vector(1) unless on () count(({expr}) != ({expr}))"
    assert computed(tmp_path, series(at_work=True), {test: 1}) == ""
    assert computed(tmp_path, series(at_work=False), {test: 1}) != ""
