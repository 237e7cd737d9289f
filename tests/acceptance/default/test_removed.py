"""remove.yml: everything of llamarig goes; models, Docker and the operator's other things stay."""

from __future__ import annotations

from tests.acceptance.box import Box, changes, playbook


def test_removal_asks_for_the_word(alpha: Box) -> None:
    done = playbook("remove.yml")
    assert done.returncode != 0
    assert "confirm=remove" in done.stdout
    assert alpha.is_healthy()


def test_removal_in_check_mode_removes_nothing(alpha: Box) -> None:
    done = playbook("remove.yml", "-e", "confirm=remove", "--check", "--limit", "alpha")
    assert done.returncode == 0, done.stdout
    assert changes(done.stdout)["alpha"] > 0
    assert alpha.is_healthy()


def test_nothing_is_left_but_models_and_docker(alpha: Box) -> None:
    done = playbook("remove.yml", "-e", "confirm=remove")
    assert done.returncode == 0, done.stdout
    gone = "/etc/llamarig /opt/llamarig /var/lib/llamarig /usr/local/bin/llamarig /usr/local/lib/llamarig /run/llamarig"
    gone += " /etc/polkit-1/rules.d/50-llamarig.rules /etc/systemd/system/llamarigd.service"
    gone += " /etc/systemd/system/llamarig-door.service /etc/systemd/system/run-llamarig-engines.mount"
    gone += " /etc/systemd/system/llamarig-exporter.service"
    assert alpha.run(f"ls -d {gone} 2>/dev/null || true") == ""
    assert alpha.run("ls /etc/systemd/system | grep '^llama-' || true") == ""
    assert alpha.run("systemctl list-units --all --plain --no-legend 'llama*' | grep -v slice || true") == ""
    assert alpha.run("sudo docker ps --all --quiet; sudo docker image ls --quiet") == ""
    assert alpha.run("ls /srv/llamarig/models/lab") != ""
    assert alpha.run("systemctl is-active docker") == "active"
    assert alpha.run("ss -H -ltn 'sport = :9836 or sport = :9100'") == "", "nothing measures this host any more"


def test_removing_again_changes_nothing() -> None:
    done = playbook("remove.yml", "-e", "confirm=remove")
    assert changes(done.stdout) == {"alpha": 0, "beta": 0}
