"""What breaks at night: after each fault the host serves again, by itself or by one command."""

from __future__ import annotations

from tests.acceptance.box import Box


def test_a_killed_engine_is_restarted_by_systemd(alpha: Box) -> None:
    alpha.llamarig("switch", "dense")
    alpha.run("sudo docker kill --signal KILL llama-dense")
    alpha.wait_until("dense is back", lambda: alpha.llamarig("status")["data"]["health"] == "ok", 60)
    assert len(set(alpha.answers(8080))) > 1
    assert alpha.llamarig("status")["data"]["unit"]["restarts"] >= 1


def started_at(box: Box) -> str:
    return box.run("sudo docker inspect --format '{{.State.StartedAt}}' llama-dense 2>/dev/null || true")


def serves_anew(box: Box, before: str) -> bool:
    """Whether another container than the one before serves: the one before can go on for a moment."""
    return started_at(box) not in {"", before} and box.llamarig("status")["data"]["health"] == "ok"


def test_a_restart_of_docker_brings_the_service_back(alpha: Box) -> None:
    before = started_at(alpha)
    alpha.run("sudo systemctl restart docker")
    alpha.wait_until("dense is back", lambda: serves_anew(alpha, before), 90)
    assert alpha.run("sudo docker ps --format '{{.Names}}'") == "llama-dense"


def test_a_killed_docker_brings_the_service_back(alpha: Box) -> None:
    before = started_at(alpha)
    alpha.run("sudo pkill -KILL dockerd")
    alpha.wait_until("dense is back", lambda: serves_anew(alpha, before), 120)
    assert alpha.run("sudo docker ps --format '{{.Names}}'") == "llama-dense"


def test_daemon_reload_leaves_the_service_alone(alpha: Box) -> None:
    before = alpha.run("sudo docker inspect --format '{{.State.StartedAt}}' llama-dense")
    alpha.run("sudo systemctl daemon-reload")
    assert alpha.run("sudo docker inspect --format '{{.State.StartedAt}}' llama-dense") == before
    assert len(set(alpha.answers(8080))) > 1


def test_an_engine_that_ignores_term_is_stopped_all_the_same(alpha: Box) -> None:
    alpha.run("sudo pkill -STOP -u llama-engine llama-server")
    alpha.run("sudo timeout 60 systemctl stop llama-dense.service", timeout=90)
    assert alpha.run("sudo docker ps --all --format '{{.Names}}'") in ("", "llama-dense")
    assert alpha.run("pgrep -u llama-engine || true") == ""
    assert alpha.llamarig("switch", "dense")["exit"] == 0


def test_a_service_that_always_fails_is_given_up_and_the_host_stays_reachable(alpha: Box) -> None:
    alpha.run(
        "sudo systemctl reset-failed llama-refused.service; sudo systemctl start --no-block llama-refused.service"
    )
    alpha.wait_until(
        "systemd tries again, later each time",
        lambda: int(alpha.run("systemctl show --value -p NRestarts llama-refused.service")) >= 1,
        60,
    )
    alpha.run("sudo systemctl stop llama-refused.service; sudo systemctl reset-failed llama-refused.service")
    assert alpha.run("systemctl show --value -p StartLimitBurst llama-refused.service") == "6"
    assert alpha.is_healthy()


def test_a_stray_service_is_found_by_the_doctor_and_removed_by_the_next_switch(alpha: Box) -> None:
    alpha.run("sudo systemctl start llama-moe.service")
    alpha.wait_until("moe runs", lambda: alpha.run("sudo docker ps --format '{{.Names}}'").count("llama-") == 2)
    verdict = alpha.llamarig("doctor")
    assert verdict["exit"] == 6
    assert [c["name"] for c in verdict["data"]["checks"] if c["status"] == "fail"] == ["units"]
    assert alpha.llamarig("reconcile")["exit"] == 0
    assert alpha.run("sudo docker ps --format '{{.Names}}'") == "llama-dense"
    assert alpha.is_healthy()
