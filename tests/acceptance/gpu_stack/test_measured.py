"""The exporter on a box whose cards, or whose driver, fail under it: it goes on, and says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.acceptance.box import Box
from tests.acceptance.gpu_stack.stack import CARD, NEW, OTHER
from tests.acceptance.gpu_stack.test_faults import FAULTS, play

URL = "http://127.0.0.1:9836/metrics"
_RESTARTS = "systemctl show --property=NRestarts --value llamarig-exporter"


@pytest.fixture(autouse=True)
def whole(fresh: Box) -> Iterator[None]:
    _settle(fresh)
    yield
    _settle(fresh)


def _settle(box: Box) -> None:
    """Both cards are measured; a call that hangs comes back only when its time is over."""
    box.run(f"sudo rm -f {FAULTS}")
    up = {CARD: 1.0, OTHER: 1.0}
    box.wait_until("both cards are measured", lambda: {card: value(box, "gpu_up", gpu=card) for card in up} == up, 90)
    # A session that was begun while a card was lost does not hear of that card's Xids.
    box.wait_until(
        "both are listened to", lambda: {card: value(box, "gpu_xid_watched", gpu=card) for card in up} == up, 90
    )
    box.wait_until("no call hangs", lambda: value(box, "collection_stuck_seconds") == 0)


def value(box: Box, metric: str, **labels: str) -> float | None:
    """Return a metric of the exporter; None where it says nothing."""
    text = box.get(URL)
    for family in text_string_to_metric_families(f"{text}\n"):
        for sample in family.samples:
            if sample.name == f"llamarig_{metric}" and labels.items() <= sample.labels.items():
                return sample.value
    return None


def test_cards_have_the_names_of_the_inventory_and_services_their_memory(fresh: Box) -> None:
    assert value(fresh, "driver_info", driver_version=NEW) == 1
    assert (
        value(fresh, "gpu_info", gpu=CARD, name="rtx4090") == value(fresh, "gpu_info", gpu=OTHER, name="rtx5070ti") == 1
    )
    assert fresh.llamarig("switch", "dense", "--now")["exit"] == 0
    fresh.wait_until(
        "the service holds memory",
        lambda: (value(fresh, "gpu_service_memory_bytes", gpu=CARD, service="dense") or 0) > 0,
    )
    assert value(fresh, "gpu_service_memory_bytes", gpu=OTHER, service="dense") is None


def test_a_card_that_is_lost_is_down_and_the_other_is_measured(fresh: Box) -> None:
    play(fresh, f"lost={CARD}")
    fresh.wait_until("the card is down", lambda: value(fresh, "gpu_up", gpu=CARD) == 0)
    assert value(fresh, "gpu_up", gpu=OTHER) == 1
    assert value(fresh, "gpu_power_watts", gpu=CARD) is None
    assert (value(fresh, "gpu_power_watts", gpu=OTHER) or 0) > 0


def test_an_xid_is_counted(fresh: Box) -> None:
    play(fresh, f"xid=79@{CARD}")
    fresh.wait_until("it is counted", lambda: value(fresh, "gpu_xid_errors_total", gpu=CARD, xid="79") == 1)


def test_a_driver_that_hangs_is_seen_while_scrapes_are_answered(fresh: Box) -> None:
    before = fresh.run(_RESTARTS)
    play(fresh, "hang=20")
    fresh.wait_until("it is seen", lambda: (value(fresh, "collection_stuck_seconds") or 0) > 5)
    assert (value(fresh, "gpu_power_watts", gpu=OTHER) or 0) > 0, "what was measured last"
    fresh.run(f"sudo rm -f {FAULTS}")
    fresh.wait_until("the call came back", lambda: value(fresh, "collection_stuck_seconds") == 0)
    assert fresh.run(_RESTARTS) == before


def test_a_driver_that_fails_is_counted(fresh: Box) -> None:
    play(fresh, "fail=nvmlDeviceGetCount_v2:999")
    fresh.wait_until("it is seen", lambda: (value(fresh, "collection_errors_total", code="999") or 0) > 0)
    assert value(fresh, "gpu_up", gpu=CARD) == 0


def test_a_process_that_is_killed_is_back_at_once(fresh: Box) -> None:
    before = int(fresh.run(_RESTARTS))
    fresh.run("sudo systemctl kill --signal KILL llamarig-exporter")
    fresh.wait_until("there is another one", lambda: int(fresh.run(_RESTARTS)) == before + 1)
    fresh.wait_until("it listens", lambda: fresh.llamarig("doctor")["exit"] in {0, 7} and "llamarig" in fresh.get(URL))
