"""Rules that Prometheus takes, each alert tested in both directions, each with somewhere to read on."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from llamarig.config.metrics import BY_NAME
from llamarig.control.docs_metrics import ENGINE, RUNBOOKS
from llamarig.control.promql import RULES, Rule, measured, names, rules
from llamarig.daemon.sights import Health
from llamarig.hardware.gpus import THROTTLES
from llamarig.planning.devices import MARGIN_MIB
from tests.contract.promtool import needs, said
from tests.contract.test_documents import anchors
from tests.contract.tree import ROOT, load

FILES = sorted((ROOT / RULES).glob("*.yml"))
TESTS = sorted((ROOT / "tests/alerts").glob("*.yaml"))
EVERY = rules(ROOT)
ALERTS = [rule for rule in EVERY if rule.is_alert]
RECORDED = [rule for rule in EVERY if not rule.is_alert]

each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule.name)


def cases(alert: Rule) -> list[bool]:
    """What the tests expect of an alert, case by case: whether it fires."""
    steps = [step for path in TESTS for test in load(path)["tests"] for step in test.get("alert_rule_test", [])]
    return [bool(step["exp_alerts"]) for step in steps if step["alertname"] == alert.name]


def values(label: str) -> set[str]:
    """Every value that rules ask of a label."""
    matchers = re.findall(rf'\b{label}(?:=~|=|!=|!~)"([^"]*)"', " ".join(rule.expr for rule in EVERY))
    return {value for matcher in matchers for value in matcher.split("|")}


@needs("promtool")
def test_promtool_takes_the_rules() -> None:
    status, text = said("promtool", "check", "rules", "--lint-fatal", *FILES)
    assert status == 0, text


@needs("promtool")
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    status, text = said("promtool", "test", "rules", path)
    assert status == 0, text


@needs("promtool")
def test_a_rule_that_is_wrong_fails_its_test(tmp_path: Path) -> None:
    """A threshold that nothing reaches: every case in which the alert should fire says so."""
    for path in FILES:
        text = path.read_text(encoding="utf-8").replace("llamarig_gpu_up == 0", "llamarig_gpu_up == 7")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    text = next(path for path in TESTS if path.stem == "cards").read_text(encoding="utf-8")
    (tmp_path / "cards.yaml").write_text(text.replace(f"../../{RULES}/", ""), encoding="utf-8")
    status, text = said("promtool", "test", "rules", tmp_path / "cards.yaml")
    assert status != 0
    assert "LlamarigCardLost fires" in text


def test_every_rules_file_is_tested() -> None:
    tested = {(path.parent / name).resolve() for path in TESTS for name in load(path)["rule_files"]}
    assert tested == set(FILES)


@each_alert
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alert: Rule) -> None:
    assert set(cases(alert)) == {True, False}


@pytest.mark.parametrize("rule", RECORDED, ids=lambda rule: rule.name)
def test_what_is_recorded_is_tested(rule: Rule) -> None:
    tests: list[dict[str, Any]] = [test for path in TESTS for test in load(path)["tests"]]
    asked = [step["expr"] for test in tests for step in test.get("promql_expr_test", [])]
    assert any(rule.name in names(expr) for expr in asked)


@each_alert
def test_an_alert_says_where_what_how_much_and_where_to_read_on(alert: Rule) -> None:
    assert alert.labels.keys() == {"severity"}
    assert alert.labels["severity"] in {"critical", "warning", "info"}
    assert alert.annotations.keys() == {"summary", "description", "runbook"}
    description = alert.annotations["description"]
    used = measured(alert.expr, EVERY)
    named = {label for name in used & BY_NAME.keys() for label in BY_NAME[name].labels} & {"gpu", "service"}
    assert "$labels.instance" in description
    assert "$value" in description
    # What is counted over cards or services has none to name.
    counted = re.search(r"(max|sum) by \(instance\)", alert.expr)
    assert counted or not named or any(f"$labels.{label}" in description for label in named)
    assert re.fullmatch(r"Llamarig[A-Z]\w+", alert.name)


@each_alert
def test_a_runbook_is_there(alert: Rule) -> None:
    page, _, anchor = alert.annotations["runbook"].partition("#")
    assert (page, anchor) == (RUNBOOKS, alert.name.lower())
    assert anchor in anchors(ROOT / page)


def test_runbooks_are_grouped_and_ordered_as_the_rules_are() -> None:
    text = (ROOT / RUNBOOKS).read_text(encoding="utf-8")
    sections = [re.findall(r"^### (.+)$", part, re.MULTILINE) for part in re.split(r"^## ", text, flags=re.MULTILINE)]
    assert [names for names in sections if names] == [
        alerts for path in FILES if (alerts := re.findall(r"^ +- alert: (\w+)$", path.read_text("utf-8"), re.MULTILINE))
    ]
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)


def test_a_card_is_full_at_half_of_what_a_plan_leaves_free() -> None:
    (alert,) = [alert for alert in ALERTS if alert.name == "LlamarigMemoryHeadroom"]
    assert alert.expr == f"llamarig_gpu_memory_free_bytes < {MARGIN_MIB // 2} * 1024 * 1024"


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule.name)
def test_a_rule_uses_what_is_declared(rule: Rule) -> None:
    assert measured(rule.expr, EVERY) - BY_NAME.keys() - ENGINE.keys() <= {"up"}


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule.name)
def test_a_rule_asks_only_for_labels_that_there_are(rule: Rule) -> None:
    for name, matchers in re.findall(r"([a-zA-Z_:]\w*)\{([^}]*)\}", rule.expr):
        known = {"job", "instance", *(BY_NAME[name].labels if name in BY_NAME else ("service",))}
        assert set(re.findall(r"(\w+)(?:=~|!=|!~|=)", matchers)) <= known


def test_the_words_in_rules_are_those_that_are_exported() -> None:
    assert values("reason") <= set(THROTTLES.values())
    assert values("health") <= {health.value for health in Health}
    assert values("by") == {"predicted", "measured"}


def test_every_xid_is_in_one_list() -> None:
    lists = {
        alert.name: re.findall(r'xid(=~|!~)"([\d|]+)"', alert.expr)
        for alert in ALERTS
        if "xid_last_timestamp" in alert.expr
    }
    named = {name: set(found[0][1].split("|")) for name, found in lists.items() if found[0][0] == "=~"}
    assert all(not first & second for first, second in combinations(named.values(), 2))
    rest = {code for operator, codes in lists["LlamarigXidWarning"] for code in codes.split("|") if operator == "!~"}
    assert rest == set().union(*named.values())
