"""After a reboot the active service is back by itself."""

from __future__ import annotations

from tests.acceptance.box import Box, changes, playbook


def test_the_active_service_is_back_after_a_reboot(alpha: Box) -> None:
    alpha.llamarig("switch", "moe")
    before = alpha.run("cat /proc/sys/kernel/random/boot_id; stat -c %Z /proc/1")
    alpha.power_cycle(grace_seconds=30)
    assert alpha.run("cat /proc/sys/kernel/random/boot_id; stat -c %Z /proc/1") != before
    alpha.wait_until("moe serves", alpha.serves, 90)
    assert alpha.active() == "moe"
    assert len(set(alpha.answers(8080))) > 1
    assert alpha.is_healthy()


def test_nothing_has_to_be_converged_after_a_reboot() -> None:
    done = playbook("site.yml", "--limit", "alpha")
    assert done.returncode == 0, done.stdout
    assert changes(done.stdout) == {"alpha": 0}
