"""playbooks/monitoring.yml: Prometheus on alpha sees all of alpha and of beta, and from here on looks all the time."""

from __future__ import annotations

import re

import yaml
from tests.acceptance.box import ROOT, Box, changes, playbook
from tests.acceptance.default.prometheus import ask, series, up

TARGETS = {f"llamarig-{job} of {host}" for job in ("exporter", "services", "node") for host in ("alpha", "beta")}

WRITTEN = [
    group
    for path in (ROOT / "roles/monitoring/files/rules").glob("*.yml")
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
]


def test_the_playbook_brings_it_and_a_second_run_changes_nothing() -> None:
    done = playbook("monitoring.yml")
    assert done.returncode == 0, done.stdout
    again = playbook("monitoring.yml")
    assert changes(again.stdout) == {"alpha": 0, "beta": 0}, again.stdout


def test_every_target_is_up(alpha: Box) -> None:
    alpha.wait_until("all targets are up", lambda: up(alpha) == dict.fromkeys(TARGETS, 1.0))


def test_every_rule_works(alpha: Box) -> None:
    groups = ask(alpha, "rules")["groups"]
    assert sum(len(group["rules"]) for group in groups) == sum(len(group["rules"]) for group in WRITTEN)
    alpha.wait_until("every rule was looked at", lambda: _health(alpha) == {"ok"})


def _health(box: Box) -> set[str]:
    return {rule["health"] for group in ask(box, "rules")["groups"] for rule in group["rules"]}


def test_what_the_engine_says_of_itself_comes_with_its_service(alpha: Box) -> None:
    def counted() -> float:
        return sum(item.samples[-1][1] for item in series(alpha, 'llamacpp:tokens_predicted_total{service="dense"}'))

    alpha.wait_until("the engine's own counter is there", lambda: counted() > 0)
    before = counted()
    alpha.answers(8080)
    alpha.wait_until("it counts", lambda: counted() > before)


def test_a_scrape_is_no_request(alpha: Box) -> None:
    idle = 'llamarig_service_idle_seconds{instance="alpha",service="dense"}'
    alpha.answers(8080)
    alpha.wait_until("no scrape counts as a request", lambda: series(alpha, idle)[0].samples[-1][1] > 10)


def test_the_exporter_says_only_what_is_so_on_a_host_without_cards(alpha: Box) -> None:
    text = alpha.get("http://127.0.0.1:9836/metrics")
    assert re.search(r"^llamarig_collection_success 1\.0$", text, re.MULTILINE)
    assert "llamarig_gpu_" not in text


def test_the_network_reaches_what_was_opened_and_nothing_else(alpha: Box, beta: Box) -> None:
    assert "llamarig_exporter_info" in alpha.get("http://beta:9836/metrics")
    # The hub of beta listens on alpha, and was opened; Prometheus and the exporter are on loopback.
    reached = "python3 -c \"import socket; socket.create_connection(('alpha', {port}), timeout=3)\""
    assert beta.attempt(reached.format(port=80)).returncode == 0
    for port in (9090, 9836):
        refused = beta.attempt(reached.format(port=port))
        assert "Connection refused" in refused.stderr or "timed out" in refused.stderr, refused
