"""The dashboard of one service."""

from __future__ import annotations

from typing import Final

from llamarig.control.grafana import (
    CARD,
    CHOSEN_HOST,
    HEALTH_SAYS,
    HEALTH_STEPS,
    TOKENS_SAYS,
    Board,
    Choice,
    Panel,
    Query,
    Row,
    grown,
    healths,
    named,
)

_SERVICE: Final = Choice("service", "Service", 'llamarig_service_info{instance="$host"}', "service")
_OF: Final = 'instance="$host",service="$service"'
SERVICE: Final = Board(
    name="service",
    title="llamarig: service",
    says="One service: how fast it is, who waits, what it takes of memory and power.",
    choices=(CHOSEN_HOST, _SERVICE),
    rows=(
        Row(
            "Now",
            (
                Panel(
                    title="Health",
                    kind="state-timeline",
                    width=16,
                    steps=HEALTH_STEPS,
                    says=HEALTH_SAYS,
                    queries=healths(_OF, "{{health}}"),
                ),
                Panel(
                    title="Runs with",
                    kind="table",
                    width=8,
                    queries=[
                        Query(f"max by (profile, strategy, engine_commit, port) (llamarig_service_info{{{_OF}}})")
                    ],
                ),
            ),
        ),
        Row(
            "Speed",
            (
                Panel(
                    title="Tokens generated",
                    unit="suffix: /s",
                    says=TOKENS_SAYS,
                    queries=[
                        Query(
                            f"instance_service:llamacpp_tokens_predicted:rate5m{{{_OF}}}", "of all requests together"
                        ),
                        Query(
                            f"instance_service:llamacpp_tokens_predicted:per_busy_second{{{_OF}}}", "while it generates"
                        ),
                    ],
                ),
                Panel(
                    title="Tokens of prompts",
                    unit="suffix: /s",
                    queries=[
                        Query(f"instance_service:llamacpp_tokens_prompt:rate5m{{{_OF}}}", "of all requests together"),
                        Query(f"instance_service:llamacpp_tokens_prompt:per_busy_second{{{_OF}}}", "while it reads"),
                    ],
                ),
                Panel(
                    title="Time to read 1000 tokens of a prompt",
                    unit="s",
                    says=(
                        "llama-server measures no time to first token. This is most of it: a prompt of 1000 tokens that"
                        " is not in the cache, without the wait for a slot."
                    ),
                    queries=[
                        Query(f"1000 / instance_service:llamacpp_tokens_prompt:per_busy_second{{{_OF}}}", "1000 tokens")
                    ],
                ),
                Panel(
                    title="Found in the cache",
                    unit="percentunit",
                    most=1,
                    says="Share of prompts that needed no work.",
                    queries=[
                        Query(
                            f"rate(llamacpp:prompt_tokens_cached_total{{{_OF}}}[5m])"
                            f" / (rate(llamacpp:prompt_tokens_cached_total{{{_OF}}}[5m])"
                            f" + rate(llamacpp:prompt_tokens_total{{{_OF}}}[5m]) > 0)",
                            "of prompts",
                        )
                    ],
                ),
                Panel(
                    title="Drafts taken",
                    unit="percentunit",
                    most=1,
                    says="With a draft model only.",
                    queries=[
                        Query(
                            f"rate(llamacpp:spec_decode_num_accepted_tokens_total{{{_OF}}}[5m])"
                            f" / (rate(llamacpp:spec_decode_num_draft_tokens_total{{{_OF}}}[5m]) > 0)",
                            "of drafted tokens",
                        )
                    ],
                ),
            ),
        ),
        Row(
            "Queue",
            (
                Panel(
                    title="Requests",
                    stacked=True,
                    queries=[
                        Query(f"llamacpp:requests_processing{{{_OF}}}", "in a slot"),
                        Query(f"llamacpp:requests_deferred{{{_OF}}}", "wait for a slot"),
                    ],
                ),
                Panel(
                    title="At the door",
                    says="Requests that the door has passed on and that are not answered yet.",
                    queries=[Query(f"llamarig_service_in_flight_requests{{{_OF}}}", "under way")],
                ),
                Panel(
                    title="Slots",
                    says="How many slots a step of the engine served on average, since the engine was started.",
                    queries=[Query(f"llamacpp:n_busy_slots_per_decode{{{_OF}}}", "busy")],
                ),
            ),
        ),
        Row(
            "Memory and power",
            (
                Panel(
                    title="Memory by part",
                    kind="bargauge",
                    unit="bytes",
                    width=12,
                    says="For each card and the host: predicted by the plan, the engine's estimate, and measured.",
                    queries=[Query(f"llamarig_service_memory_bytes{{{_OF}}}", "{{device}}, {{by}}")],
                ),
                Panel(
                    title="Memory held on cards",
                    unit="bytes",
                    stacked=True,
                    width=12,
                    says="As the driver counts it, with the context.",
                    queries=[Query(named(f"llamarig_gpu_service_memory_bytes{{{_OF}}}"), CARD)],
                ),
                Panel(
                    title="Power",
                    unit="watt",
                    width=12,
                    says="Of the cards that it uses; of a card that is shared, as the memory is.",
                    queries=[Query(f"instance_service:llamarig_gpu_power:watts{{{_OF}}}", "cards")],
                ),
                Panel(
                    title="Energy of a token",
                    unit="joule",
                    width=12,
                    says=(
                        "Energy of the cards over five minutes for each token generated in them, idle time and reading"
                        " of prompts included: high where little is asked."
                    ),
                    queries=[Query(f"instance_service:llamarig_gpu_energy_per_token:joules{{{_OF}}}", "a token")],
                ),
            ),
        ),
        Row(
            "Switches",
            (
                Panel(
                    title="Time in phases",
                    unit="s",
                    stacked=True,
                    says="Of switches to it, within the last hour.",
                    queries=[Query(grown(f"llamarig_switch_phase_seconds_total{{{_OF}}}"), "{{phase}}")],
                ),
                Panel(
                    title="How long it takes",
                    unit="s",
                    queries=[
                        Query(f"llamarig_switch_last_seconds{{{_OF}}}", "the last switch"),
                        Query(f"llamarig_service_load_seconds{{{_OF}}}", "the engine's load"),
                    ],
                ),
                Panel(
                    title="Restarts",
                    says="By systemd, since the unit was started.",
                    queries=[Query(f"llamarig_service_restarts{{{_OF}}}", "restarts")],
                ),
            ),
        ),
    ),
)
