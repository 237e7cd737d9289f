from __future__ import annotations

import pytest

from llamarig.control.promql import Rule, measured, names


def recorded(name: str, expr: str) -> Rule:
    return Rule(name, expr, {}, {})


@pytest.mark.parametrize(
    ("expr", "found"),
    [
        ("up", {"up"}),
        ('up{job="a",path=~"b{1}"} == 0', {"up"}),
        ("sum by (instance, gpu) (rate(a_total[5m])) / on (instance) group_left (name) b_info", {"a_total", "b_info"}),
        ("a and on (x) b unless c offset 30m or d", {"a", "b", "c", "d"}),
        ("level:metric:rate5m > bool 1e3", {"level:metric:rate5m"}),
        ('llamacpp:tokens_total{service="a or b"} + 64 * 1024', {"llamacpp:tokens_total"}),
        ("time() - a_seconds > 5", {"a_seconds"}),
        ("max_over_time((a and b > 0.5)[30m:15s])", {"a", "b"}),
        ("-0.5 * inf_total", {"inf_total"}),
    ],
)
def test_the_metrics_of_an_expression(expr: str, found: set[str]) -> None:
    assert names(expr) == found


def test_what_is_recorded_comes_from_what_was_measured() -> None:
    known = [
        recorded("x:a:sum", "sum(a)"),
        recorded("x:b:ratio", "x:a:sum / b"),
        Rule("Alert", "c", {}, {"summary": ""}),
    ]
    assert measured("x:b:ratio > 1 and d", known) == {"a", "b", "d"}
