"""The dashboard of one host."""

from __future__ import annotations

from typing import Final

from llamarig.control.grafana import (
    BAD,
    CARD,
    CHOSEN_HOST,
    HEALTH_SAYS,
    HEALTH_STEPS,
    TOKENS_SAYS,
    Board,
    Panel,
    Query,
    Row,
    grown,
    healths,
    named,
)

_AT: Final = 'instance="$host"'


def _cards(metric: str, unit: str, title: str, *, says: str = "", most: float | None = None) -> Panel:
    queries = [Query(named(f"{metric}{{{_AT}}}"), CARD)]
    return Panel(title=title, queries=queries, unit=unit, says=says, most=most)


_THROTTLED: Final = named('llamarig_gpu_throttle{instance="$host",reason!="power-cap"}')
HOST: Final = Board(
    name="host",
    title="llamarig: host",
    says="One host: its cards, its memory, its services, and how old all of that is.",
    choices=(CHOSEN_HOST,),
    rows=(
        Row(
            "Cards",
            (
                Panel(
                    title="Memory of cards",
                    unit="bytes",
                    queries=[
                        Query(named(f"llamarig_gpu_memory_used_bytes{{{_AT}}}"), "{{index}} {{name}}, used"),
                        Query(named(f"llamarig_gpu_memory_total_bytes{{{_AT}}}"), "{{index}} {{name}}, all"),
                    ],
                ),
                Panel(
                    title="Memory by service",
                    unit="bytes",
                    stacked=True,
                    says="Without a name: what belongs to no service.",
                    queries=[
                        Query(named(f"llamarig_gpu_service_memory_bytes{{{_AT}}}"), "{{service}} on {{index}} {{name}}")
                    ],
                ),
                _cards("llamarig_gpu_utilization_ratio", "percentunit", "In use", most=1),
                Panel(
                    title="Power",
                    unit="watt",
                    queries=[
                        Query(named(f"llamarig_gpu_power_watts{{{_AT}}}"), CARD),
                        Query(named(f"llamarig_gpu_power_enforced_limit_watts{{{_AT}}}"), "{{index}} {{name}}, limit"),
                    ],
                ),
                _cards("llamarig_gpu_temperature_celsius", "celsius", "Temperature"),
                _cards("llamarig_gpu_fan_speed_ratio", "percentunit", "Fans", says="The speed that a fan is told."),
                Panel(
                    title="Clocks",
                    unit="hertz",
                    queries=[
                        Query(
                            named(f'llamarig_gpu_clock_hertz{{{_AT},clock=~"sm|memory"}}'),
                            "{{clock}} of {{index}} {{name}}",
                        )
                    ],
                ),
                Panel(
                    title="PCIe lanes",
                    says="Under load; an idle link tells nothing.",
                    queries=[Query(named(f"instance_gpu:llamarig_gpu_pcie_width:busy{{{_AT}}}"), CARD)],
                ),
                Panel(
                    title="PCIe traffic",
                    unit="Bps",
                    queries=[
                        Query(
                            named(f"rate(llamarig_gpu_pcie_bytes_total{{{_AT}}}[$__rate_interval])"),
                            "{{direction}}, {{index}} {{name}}",
                        )
                    ],
                ),
                Panel(
                    title="Held down by",
                    kind="state-timeline",
                    width=12,
                    steps=BAD,
                    says="Without the power limit, at which a card that works is most of the time.",
                    queries=[Query(_THROTTLED, "{{reason}}, {{index}} {{name}}")],
                ),
                Panel(
                    title="Xid errors",
                    kind="table",
                    width=12,
                    says="Those that were seen since the exporter was started.",
                    queries=[Query(f"max by (gpu, xid) (llamarig_gpu_xid_errors_total{{{_AT}}})")],
                ),
            ),
        ),
        Row(
            "Services",
            (
                Panel(
                    title="Health",
                    kind="state-timeline",
                    width=24,
                    steps=HEALTH_STEPS,
                    says=HEALTH_SAYS,
                    queries=healths(_AT, "{{service}}: {{health}}"),
                ),
                Panel(
                    title="Tokens generated",
                    unit="suffix: /s",
                    stacked=True,
                    says=TOKENS_SAYS,
                    queries=[Query(f"instance_service:llamacpp_tokens_predicted:rate5m{{{_AT}}}", "{{service}}")],
                ),
                Panel(
                    title="Requests under way",
                    stacked=True,
                    queries=[Query(f"llamarig_service_in_flight_requests{{{_AT}}}", "{{service}}")],
                ),
                Panel(
                    title="How long the last switch took",
                    unit="s",
                    queries=[Query(f"llamarig_switch_last_seconds{{{_AT}}}", "to {{service}}")],
                ),
            ),
        ),
        Row(
            "Machine",
            (
                Panel(
                    title="Processor",
                    unit="percentunit",
                    most=1,
                    says="From the node exporter; empty where there is none.",
                    queries=[
                        Query(
                            f'1 - avg(rate(node_cpu_seconds_total{{{_AT},mode="idle"}}[$__rate_interval]))',
                            "in use",
                        )
                    ],
                ),
                Panel(
                    title="Memory",
                    unit="bytes",
                    says="From the node exporter; empty where there is none.",
                    queries=[
                        Query(f"node_memory_MemTotal_bytes{{{_AT}}}", "all"),
                        Query(f"node_memory_MemAvailable_bytes{{{_AT}}}", "available"),
                    ],
                ),
                Panel(
                    title="Free for models",
                    unit="bytes",
                    queries=[Query(f"llamarig_models_free_bytes{{{_AT}}}", "free")],
                ),
                Panel(
                    title="Age of the cards' figures",
                    unit="s",
                    queries=[
                        Query(f"time() - llamarig_collection_timestamp_seconds{{{_AT}}}", "age"),
                        Query(f"llamarig_collection_stuck_seconds{{{_AT}}}", "a call waits"),
                    ],
                ),
                Panel(
                    title="Failed questions to NVML",
                    queries=[Query(grown(f"llamarig_collection_errors_total{{{_AT}}}"), "code {{code}}")],
                    says="Within the last hour.",
                ),
                Panel(
                    title="Requests to the management API",
                    unit="reqps",
                    queries=[
                        Query(
                            f"sum by (status) (rate(llamarig_api_requests_total{{{_AT}}}[$__rate_interval]))",
                            "{{status}}",
                        )
                    ],
                ),
            ),
        ),
    ),
)
