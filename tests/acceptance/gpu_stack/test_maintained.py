"""The maintenance playbook moves kernel, driver, toolkit and Docker together."""

from __future__ import annotations

from tests.acceptance.box import Box, changes, playbook
from tests.acceptance.gpu_stack.stack import NEW, OLD, TOOLKIT, boots, driver, held


def test_it_brings_the_newest_driver_with_one_reboot_and_holds_it_again(half: Box) -> None:
    assert driver(half) == (OLD, OLD, OLD)
    before = boots(half)
    done = playbook("maintain.yml", "--limit", "half")
    assert done.returncode == 0, done.stdout + done.stderr
    assert driver(half) == (NEW, NEW, NEW)
    assert boots(half) != before
    assert {"linux-modules-nvidia-580-server-open-generic", "nvidia-utils-580-server", *TOOLKIT} <= held(half)


def test_the_second_time_it_changes_nothing(half: Box) -> None:
    before = boots(half)
    done = playbook("maintain.yml", "--limit", "half")
    assert changes(done.stdout) == {"half": 0}
    assert boots(half) == before
