"""The dashboard of all hosts."""

from __future__ import annotations

from typing import Final

from llamarig.control.grafana import BAD, CARD, TOKENS_SAYS, Board, Panel, Query, Row, grown, named

_WARM: Final = (("orange", 80.0), ("red", 90.0))
_FULL: Final = (("orange", 0.9), ("red", 0.97))
_FIRING: Final = (
    'max by (alertname, severity, instance, gpu, service) (ALERTS{alertstate="firing",alertname=~"Llamarig.*"'
)
FLEET: Final = Board(
    name="fleet",
    title="llamarig: fleet",
    says="All hosts: what serves, how fast, and what is wrong.",
    rows=(
        Row(
            "Now",
            (
                Panel(title="Hosts", kind="stat", width=4, queries=[Query('sum(up{job="llamarig-exporter"})')]),
                Panel(
                    title="Hosts that do not answer",
                    kind="stat",
                    width=4,
                    steps=BAD,
                    queries=[Query('sum(up{job="llamarig-exporter"} == bool 0)')],
                ),
                Panel(title="Cards that answer", kind="stat", width=4, queries=[Query("sum(llamarig_gpu_up)")]),
                Panel(
                    title="Services that are well",
                    kind="stat",
                    width=4,
                    queries=[Query('sum(llamarig_service_health{health="ok"})')],
                ),
                Panel(
                    title="Tokens generated now",
                    kind="stat",
                    width=4,
                    unit="suffix: /s",
                    queries=[Query("sum(instance_service:llamacpp_tokens_predicted:rate5m)")],
                ),
                Panel(
                    title="Power of all cards",
                    kind="stat",
                    width=4,
                    unit="watt",
                    queries=[Query("sum(llamarig_gpu_power_watts)")],
                ),
                Panel(title="Alerts", kind="table", width=14, queries=[Query(_FIRING + "})")]),
                Panel(
                    title="Active services",
                    kind="table",
                    width=10,
                    queries=[Query("max by (instance, service, health) (llamarig_service_health == 1)")],
                ),
            ),
        ),
        Row(
            "Work",
            (
                Panel(
                    title="Tokens generated",
                    unit="suffix: /s",
                    stacked=True,
                    says=TOKENS_SAYS,
                    queries=[Query("instance_service:llamacpp_tokens_predicted:rate5m", "{{instance}} {{service}}")],
                ),
                Panel(
                    title="Tokens of prompts",
                    unit="suffix: /s",
                    stacked=True,
                    queries=[Query("instance_service:llamacpp_tokens_prompt:rate5m", "{{instance}} {{service}}")],
                ),
                Panel(
                    title="Requests under way",
                    stacked=True,
                    queries=[Query("llamarig_service_in_flight_requests", "{{instance}} {{service}}")],
                ),
                Panel(
                    title="Switches",
                    says="Within the last hour.",
                    queries=[
                        Query(
                            f"round(sum by (instance, outcome) ({grown('llamarig_switches_total')}))",
                            "{{instance}} {{outcome}}",
                        )
                    ],
                ),
            ),
        ),
        Row(
            "Cards",
            (
                Panel(
                    title="Memory in use",
                    kind="bargauge",
                    width=12,
                    unit="percentunit",
                    most=1,
                    steps=_FULL,
                    queries=[
                        Query(
                            named("(1 - instance_gpu:llamarig_gpu_memory_free:ratio)"),
                            "{{instance}} " + CARD,
                        )
                    ],
                ),
                Panel(
                    title="Temperature",
                    kind="bargauge",
                    width=12,
                    unit="celsius",
                    most=100,
                    steps=_WARM,
                    queries=[Query(named("llamarig_gpu_temperature_celsius"), "{{instance}} " + CARD)],
                ),
                Panel(
                    title="Power",
                    unit="watt",
                    stacked=True,
                    width=12,
                    queries=[Query("sum by (instance) (llamarig_gpu_power_watts)", "{{instance}}")],
                ),
                Panel(
                    title="Cards in use",
                    unit="percentunit",
                    most=1,
                    width=12,
                    queries=[Query("avg by (instance) (llamarig_gpu_utilization_ratio)", "{{instance}}")],
                ),
            ),
        ),
    ),
)
