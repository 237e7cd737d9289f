"""remove.yml takes every engine away, and what was made for handing them on."""

from __future__ import annotations

from tests.acceptance.box import Box, changes, playbook


def test_nothing_of_any_engine_is_left(forge: Box, node: Box) -> None:
    done = playbook("remove.yml", "-e", "confirm=remove")
    assert done.returncode == 0, done.stdout
    for box in (forge, node):
        assert box.run("sudo docker image ls --quiet") == ""
        assert box.run("sudo find /var/cache/llamarig /var/log/llamarig -type f 2>/dev/null || true") == ""
    assert changes(playbook("remove.yml", "-e", "confirm=remove").stdout) == {"forge": 0, "node": 0}
