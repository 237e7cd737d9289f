"""The reference page of metrics, from their declarations, and from the rules and dashboards that use them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from posixpath import relpath
from typing import Final

from llamarig.config.metrics import GPU, MACHINE, SERVICES, Metric
from llamarig.control.docs_table import DocsError, markdown_table
from llamarig.control.grafana import expressions
from llamarig.control.grafana_boards import BOARDS
from llamarig.control.promql import Rule, measured, rules

RUNBOOKS: Final = "docs/alerts.md"
_FROM_HERE: Final = relpath(RUNBOOKS, "docs/reference")
# llama-server's own, each with the label service added, of engines that serve: kind, and what it says.
ENGINE: Final = {
    "llamacpp:prompt_tokens_total": ("counter", "Tokens of prompts that were computed."),
    "llamacpp:prompt_tokens_cached_total": ("counter", "Tokens of prompts that were found in the cache."),
    "llamacpp:prompt_seconds_total": ("counter", "Time spent on prompts."),
    "llamacpp:prompt_tokens_seconds": ("gauge", "Tokens of prompts per second, on average since the start."),
    "llamacpp:tokens_predicted_total": ("counter", "Tokens that were generated."),
    "llamacpp:tokens_predicted_seconds_total": ("counter", "Time spent on generating."),
    "llamacpp:predicted_tokens_seconds": ("gauge", "Tokens generated per second, on average since the start."),
    "llamacpp:n_decode_total": ("counter", "Steps of the engine."),
    "llamacpp:n_tokens_max": ("counter", "Longest context that there was."),
    "llamacpp:n_busy_slots_per_decode": ("gauge", "Slots that a step serves, on average since the start."),
    "llamacpp:requests_processing": ("gauge", "Requests that have a slot."),
    "llamacpp:requests_deferred": ("gauge", "Requests that wait for a slot."),
    "llamacpp:spec_decode_num_drafts_total": ("counter", "Drafts of a draft model."),
    "llamacpp:spec_decode_num_draft_tokens_total": ("counter", "Tokens in those drafts."),
    "llamacpp:spec_decode_num_accepted_tokens_total": ("counter", "Tokens of drafts that were taken."),
}
# What rules and dashboards take from the node exporter, and from Prometheus itself.
FOREIGN: Final = {
    "node_cpu_seconds_total": "node exporter",
    "node_memory_MemTotal_bytes": "node exporter",
    "node_memory_MemAvailable_bytes": "node exporter",
    "up": "Prometheus: whether a scrape had an answer",
    "ALERTS": "Prometheus: the alerts that fire",
}


def metrics(root: Path) -> str:
    """Return every metric with who measures it and who uses it; then what is recorded, and the alerts.

    Raises:
        DocsError: a rule or a dashboard uses what nobody declares.

    """
    known = rules(root)
    used = _used(known)
    _refuse_strangers(used)
    parts = []
    for title, group in (("Cards", GPU), ("Machine and collection", MACHINE), ("Services", SERVICES)):
        parts += [f"## {title}", _declared(group, used)]
    parts += [
        "## Engines",
        (
            "llama-server's own, of services that are active; none of it where an engine does not answer. The engine"
            " gives no histograms, and so no time to first token."
        ),
        markdown_table(
            ("metric", "type", "what it says", "used by"),
            [(f"`{name}`", kind, says, _users(name, used)) for name, (kind, says) in ENGINE.items()],
        ),
        "## Recorded",
        "What Prometheus computes for dashboards and alerts.",
        markdown_table(
            ("name", "expression"), [(f"`{rule.name}`", f"`{rule.expr}`") for rule in known if not rule.is_alert]
        ),
        "## Alerts",
        markdown_table(
            ("alert", "severity", "when", "for"),
            [
                (_link(rule.name), rule.labels["severity"], f"`{rule.expr}`", rule.wait or "at once")
                for rule in known
                if rule.is_alert
            ],
        ),
    ]
    return "\n\n".join(parts)


def _used(known: list[Rule]) -> dict[str, list[str]]:
    """Return who uses each metric, as links to alerts and names of dashboards."""
    found: dict[str, list[str]] = {}
    for rule in known:
        for name in sorted(measured(rule.expr, known)) if rule.is_alert else ():
            found.setdefault(name, []).append(_link(rule.name))
    for board in BOARDS:
        for name in sorted({name for expr in expressions(board) for name in measured(expr, known)}):
            found.setdefault(name, []).append(f"dashboard {board.name}")
    return found


def _refuse_strangers(used: Iterable[str]) -> None:
    own = {metric.name for metric in (*GPU, *MACHINE, *SERVICES)}
    strangers = sorted(set(used) - own - ENGINE.keys() - FOREIGN.keys())
    if strangers:
        msg = f"rules or dashboards use what no declaration knows: {', '.join(strangers)}"
        raise DocsError(msg, "declare it in src/llamarig/config/metrics.py, or correct the expression")


def _declared(group: Iterable[Metric], used: dict[str, list[str]]) -> str:
    rows = [
        (
            f"`{metric.name}`",
            metric.kind,
            metric.unit or "-",
            ", ".join(f"`{label}`" for label in metric.labels) or "-",
            metric.help,
            metric.asked or "-",
            metric.absent,
            _users(metric.name, used),
        )
        for metric in group
    ]
    head = ("metric", "type", "unit", "labels", "what it says", "from", "absent means", "used by")
    return markdown_table(head, rows)


def _users(name: str, used: dict[str, list[str]]) -> str:
    return ", ".join(used.get(name, [])) or "-"


def _link(alert: str) -> str:
    return f"[{alert}]({_FROM_HERE}#{alert.lower()})"
