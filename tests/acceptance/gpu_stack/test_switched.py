"""Switches of services on a card, while the card, or what is asked about it, fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.acceptance.box import Box
from tests.acceptance.gpu_stack.stack import CARD
from tests.acceptance.gpu_stack.test_faults import FAULTS, play


@pytest.fixture(autouse=True)
def whole(fresh: Box) -> Iterator[None]:
    """Dense serves, before and after, and nothing is the matter."""
    _settle(fresh)
    yield
    _settle(fresh)


def _settle(box: Box) -> None:
    box.run(f"sudo rm -f {FAULTS}")
    if box.active() != "dense" or not box.serves():
        outcome = box.llamarig("switch", "dense", "--now", "--queue")
        assert outcome["exit"] == 0, outcome
    box.wait_until("dense serves", lambda: box.active() == "dense" and box.serves(), 60)


@pytest.mark.parametrize(
    "fault", [f"lost={CARD}", "hang=30", "fail=nvmlInitWithFlags:999", "na=nvmlDeviceGetMemoryInfo"]
)
def test_a_switch_while_the_driver_fails_leaves_the_old_or_the_new_service(fresh: Box, fault: str) -> None:
    play(fresh, fault)
    outcome = fresh.llamarig("switch", "moe", "--now")
    serving = outcome["data"]["active"] if outcome["exit"] == 0 else [outcome["error"]["serving"]]
    assert serving in (["moe"], ["dense"]), outcome
    assert len(set(fresh.answers(8080))) > 1
    assert fresh.run("pgrep -c -u llama-engine llama-server") == "1"
    last = [event for event in fresh.llamarig("history")["data"]["events"] if event["kind"] == "switch"][-1]
    assert (last["service"], last["outcome"]) == ("moe", "ok" if serving == ["moe"] else "failed")


def test_a_model_that_is_silently_on_the_cpu_does_not_become_active(fresh: Box) -> None:
    play(fresh, "cpu_fallback")
    outcome = fresh.llamarig("switch", "moe", "--now")
    assert outcome["exit"] != 0
    assert "the model is on the CPU" in outcome["error"]["message"]
    assert outcome["error"]["serving"] == "dense"
    assert len(set(fresh.answers(8080))) > 1
