"""Boxes that are right: nothing to change, and nothing said to be changed."""

from __future__ import annotations

from tests.acceptance.box import changes, playbook


def test_check_mode_finds_nothing_to_change() -> None:
    done = playbook("site.yml", "--check", "--diff")
    assert done.returncode == 0, done.stdout
    assert changes(done.stdout) == {"fresh": 0, "half": 0, "kernel": 0, "used": 0}


def test_maintenance_finds_nothing_to_move() -> None:
    done = playbook("maintain.yml", "--limit", "fresh")
    assert done.returncode == 0, done.stdout
    assert changes(done.stdout) == {"fresh": 0}
