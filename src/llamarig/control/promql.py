"""Rules as Prometheus reads them, and the metrics that an expression names; whether it is right, promtool says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

RULES: Final = Path("roles/monitoring/files/rules")
# What else stands in an expression where a metric could: labels, in their matchers and lists, and durations.
_OTHERS: Final = (
    re.compile(r'"(?:[^"\\]|\\.)*"'),
    re.compile(r"\{[^}]*\}"),
    re.compile(r"\[[^\]]*\]"),
    re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"),
    re.compile(r"\boffset\s+\w+"),
)
_WORDS: Final = frozenset({"and", "or", "unless", "bool"})
# A name that an opening bracket follows is a function; operators stand before brackets too.
_NAME: Final = re.compile(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?!\w)(?!\s*\()")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: an alert, or what is recorded under a name of its own.

    Attributes:
        name: the alert's, or of what is recorded.
        expr: in PromQL.
        labels, annotations: an alert's; empty where it is none.
        wait: for how long it must be so before the alert fires, as Prometheus writes it; empty for at once.

    """

    name: str
    expr: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    wait: str = ""

    @property
    def is_alert(self) -> bool:
        """Whether it is an alert."""
        return bool(self.annotations)


def rules(root: Path) -> list[Rule]:
    """Return every rule of the role ``monitoring``, in the order of its files."""
    return [_rule(item) for path in sorted((root / RULES).glob("*.yml")) for item in _items(path)]


def names(expr: str) -> set[str]:
    """Return the metrics that an expression names, those of recording rules among them."""
    for pattern in _OTHERS:
        expr = pattern.sub(" ", expr)
    return {word for word in _NAME.findall(expr) if word not in _WORDS}


def measured(expr: str, known: Sequence[Rule]) -> set[str]:
    """Return the metrics that an expression comes from in the end: of a recorded one, those that it is made of."""
    made = {rule.name: rule.expr for rule in known if not rule.is_alert}
    found: set[str] = set()
    todo = names(expr)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        todo |= names(made.get(name, ""))
    return found - made.keys()


def _items(path: Path) -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
        yield from group["rules"]


def _rule(item: Mapping[str, Any]) -> Rule:
    name = item.get("alert") or item["record"]
    return Rule(name, item["expr"], item.get("labels", {}), item.get("annotations", {}), item.get("for", ""))
