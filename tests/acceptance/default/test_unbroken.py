"""Since Prometheus came the services of this host were switched again and again; it missed nothing of that."""

from __future__ import annotations

from itertools import pairwise

import yaml
from tests.acceptance.box import SCENARIO, Box
from tests.acceptance.default.prometheus import ask, series
from tests.acceptance.default.test_watched import TARGETS

SECONDS = yaml.safe_load((SCENARIO / "inventory/hosts.yml").read_text(encoding="utf-8"))["monitoring"]["vars"][
    "monitoring_scrape_seconds"
]


def test_a_daemon_that_is_restarted_leaves_no_gap(alpha: Box) -> None:
    for command in ("restart llamarigd", "kill --signal KILL llamarigd"):
        before = _daemon_began(alpha)
        alpha.run(f"sudo systemctl {command}")
        alpha.wait_until("Prometheus sees another one", lambda before=before: _daemon_began(alpha) > before)  # type: ignore[misc]  # mypy wants no defaults here
        alpha.wait_until("alpha is well", alpha.is_healthy)


def _daemon_began(box: Box) -> float:
    """Return when the daemon began that Prometheus saw last, in seconds since the epoch."""
    seen = series(box, f'llamarig_daemon_start_time_seconds{{instance="{box.name}"}}')
    return max((item.samples[0][1] for item in seen), default=0.0)


def test_there_was_no_gap_since_it_came(alpha: Box) -> None:
    found = {item.target: item.samples for item in series(alpha, 'up{job=~"llamarig-.*"}[1h]')}
    assert found.keys() == TARGETS
    for target, samples in found.items():
        first = next(number for number, (_, value) in enumerate(samples) if value)
        since = samples[first:]
        assert [at for at, value in since if not value] == [], target
        assert max(after - at for (at, _), (after, _) in pairwise(since)) < 3 * SECONDS, target
        assert since[-1][0] - since[0][0] > 60, target


def test_what_happened_is_in_the_counters(alpha: Box) -> None:
    wanted = {("moe", "ok"), ("dense", "ok"), ("damaged", "failed"), ("refused", "failed")}
    seen = series(alpha, 'max_over_time(llamarig_switches_total{instance="alpha"}[1h])')
    assert wanted <= {(item.labels["service"], item.labels["outcome"]) for item in seen}


def test_no_alert_fires_that_should_not(alpha: Box) -> None:
    """Failed switches there were, and services that did not come up: what says so is no emergency."""
    alerts = ask(alpha, "alerts")["alerts"]
    firing = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    assert firing <= {"LlamarigSwitchFailed"}
