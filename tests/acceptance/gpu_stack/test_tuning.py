"""Power limits and clock locks: set, kept over a reboot, refused outside the card's limits, given back."""

from __future__ import annotations

import json

from tests.acceptance.box import Box, changes, playbook
from tests.acceptance.gpu_stack.stack import CARD, OTHER, checks


def limits(box: Box) -> list[str]:
    return box.run("nvidia-smi --query-gpu=power.limit --format=csv,noheader,nounits").splitlines()


def tuned(**card: object) -> str:
    """Return the declared cards of fresh, the first with other wishes."""
    first = {
        "name": "rtx4090",
        "uuid": CARD,
        "model": "NVIDIA GeForce RTX 4090",
        "memory_mib": 24564,
        "compute_capability": "8.9",
        **card,
    }
    second = {
        "name": "rtx5070ti",
        "uuid": OTHER,
        "model": "NVIDIA GeForce RTX 5070 Ti",
        "memory_mib": 16303,
        "compute_capability": "12.0",
    }
    hardware = {"memory_mib": 2048, "cpu_threads": 2, "reserve_mib": 512, "gpus": [first, second]}
    return json.dumps({"host_hardware": hardware})


def test_the_declared_limit_is_set_on_its_card_alone(fresh: Box) -> None:
    assert limits(fresh) == ["350.00", "300.00"]
    assert checks(fresh)["tuning"]["status"] == "ok"


def test_it_is_set_again_at_every_boot(fresh: Box) -> None:
    fresh.power_cycle(grace_seconds=10)
    fresh.wait_until("the cards are tuned", lambda: limits(fresh) == ["350.00", "300.00"])
    fresh.wait_until("it serves again", fresh.serves, 60)
    assert checks(fresh)["tuning"]["status"] == "ok"


def test_a_limit_that_the_card_cannot_take_is_refused_and_nothing_is_set(fresh: Box) -> None:
    done = playbook(
        "site.yml", "--limit", "fresh", "--tags", "host_base,gpu_tuning", "-e", tuned(power_limit_watts=900)
    )
    assert done.returncode != 0
    assert "900" in done.stdout
    assert "600" in done.stdout, "the card's own limit is named"
    assert limits(fresh) == ["350.00", "300.00"]


def test_an_option_that_is_removed_gives_the_card_its_default_back(fresh: Box) -> None:
    done = playbook("site.yml", "--limit", "fresh", "--tags", "host_base,gpu_tuning", "-e", tuned())
    assert done.returncode == 0, done.stdout
    assert limits(fresh) == ["450.00", "300.00"]


def test_the_next_run_sets_what_is_declared(fresh: Box) -> None:
    done = playbook("site.yml", "--limit", "fresh", "--tags", "host_base,gpu_tuning")
    assert changes(done.stdout) == {"fresh": 2}, done.stdout
    assert limits(fresh) == ["350.00", "300.00"]
