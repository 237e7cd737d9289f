"""A converged host: check mode is silent, for all hosts and without touching anything."""

from __future__ import annotations

from tests.acceptance.box import Box, changes, playbook


def test_check_mode_finds_nothing_to_change(alpha: Box) -> None:
    before = alpha.run("systemctl show -p ActiveEnterTimestampMonotonic llama-dense.service")
    done = playbook("site.yml", "--check", "--diff")
    assert done.returncode == 0, done.stdout
    assert changes(done.stdout) == {"alpha": 0, "beta": 0}
    assert alpha.run("systemctl show -p ActiveEnterTimestampMonotonic llama-dense.service") == before


def test_check_mode_tells_a_drift_and_leaves_it(alpha: Box) -> None:
    alpha.run("echo '# drift' | sudo tee -a /etc/systemd/system/llama-moe.service >/dev/null")
    done = playbook("site.yml", "--check", "--diff", "--limit", "alpha")
    assert changes(done.stdout) == {"alpha": 1}
    assert "-# drift" in done.stdout
    assert alpha.run("tail -1 /etc/systemd/system/llama-moe.service") == "# drift"


def test_a_drift_is_mended_without_a_restart_of_the_active_service(alpha: Box) -> None:
    before = alpha.run("systemctl show -p ActiveEnterTimestampMonotonic llama-dense.service")
    done = playbook("site.yml", "--limit", "alpha")
    assert done.returncode == 0, done.stdout
    assert alpha.run("tail -1 /etc/systemd/system/llama-moe.service") != "# drift"
    assert alpha.run("systemctl show -p ActiveEnterTimestampMonotonic llama-dense.service") == before
