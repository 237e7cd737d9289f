"""What breaks at night: after each fault the host serves again, by itself or by one command."""

from __future__ import annotations

from tests.acceptance.box import Box


def test_a_killed_engine_is_restarted_by_systemd(alpha: Box) -> None:
    alpha.llamarig("switch", "dense")
    before, count = started_at(alpha), restarts(alpha)
    alpha.run("sudo docker kill --signal KILL llama-dense")
    alpha.wait_until("dense is back", lambda: serves_anew(alpha, before) and restarts(alpha) > count, 60)
    assert len(set(alpha.answers(8080))) > 1


def restarts(box: Box) -> int:
    return int(box.llamarig("status")["data"]["active"][0]["restarts"])


def started_at(box: Box) -> str:
    return box.run("sudo docker inspect --format '{{.State.StartedAt}}' llama-dense 2>/dev/null || true")


def serves_anew(box: Box, before: str) -> bool:
    """Whether another container than the one before serves: the one before can go on for a moment."""
    return started_at(box) not in {"", before} and box.serves()


def test_a_restart_of_docker_brings_the_service_back(alpha: Box) -> None:
    before = started_at(alpha)
    alpha.run("sudo systemctl restart docker")
    alpha.wait_until("dense is back", lambda: serves_anew(alpha, before), 90)
    alpha.wait_until("nothing but dense is there", lambda: alpha.only("dense"), 30)


def test_a_killed_docker_brings_the_service_back(alpha: Box) -> None:
    before = started_at(alpha)
    alpha.run("sudo pkill -KILL dockerd")
    alpha.wait_until("dense is back", lambda: serves_anew(alpha, before), 120)
    alpha.wait_until("nothing but dense is there", lambda: alpha.only("dense"), 30)


def test_daemon_reload_leaves_the_service_alone(alpha: Box) -> None:
    before = alpha.run("sudo docker inspect --format '{{.State.StartedAt}}' llama-dense")
    alpha.run("sudo systemctl daemon-reload")
    assert alpha.run("sudo docker inspect --format '{{.State.StartedAt}}' llama-dense") == before
    assert len(set(alpha.answers(8080))) > 1


def test_an_engine_that_ignores_term_is_stopped_all_the_same(alpha: Box) -> None:
    pid = alpha.run("pgrep -u llama-engine llama-server")
    alpha.run(f"sudo kill -STOP {pid}")
    alpha.run("sudo timeout 60 systemctl stop llama-dense.service", timeout=90)
    assert alpha.attempt(f"test -d /proc/{pid}").returncode == 1
    alpha.wait_until("dense is back", alpha.serves, 60)
    alpha.wait_until("nothing but dense is there", lambda: alpha.only("dense"), 30)


def test_a_service_started_by_hand_waits_at_its_gate_and_takes_no_memory(alpha: Box) -> None:
    alpha.run("sudo systemctl start llama-moe.service")
    waits = "sudo test -e /run/llamarig/engines/moe/waiting"
    alpha.wait_until("moe waits", lambda: alpha.attempt(waits).returncode == 0)
    assert len(alpha.run("pgrep -u llama-engine llama-server").split()) == 1
    assert len(set(alpha.answers(8080))) > 1
    # The doctor tells of it.
    verdict = alpha.llamarig("doctor")
    (units,) = [check for check in verdict["data"]["checks"] if check["name"] == "units"]
    assert units["status"] == "ok"
    assert "llama-moe.service waits at its gate" in units["message"]
    assert alpha.llamarig("reconcile")["exit"] in {0, 7}
    assert alpha.is_healthy()


def test_services_go_on_without_the_daemon_and_it_finds_them_again(alpha: Box) -> None:
    before = started_at(alpha)
    alpha.run("sudo systemctl stop llamarigd")
    assert len(set(alpha.answers(8080))) > 1
    status = alpha.llamarig("status")
    assert (status["exit"], status["data"]["daemon"]) == (8, False)
    alpha.run("sudo systemctl start llamarigd")
    alpha.wait_until("the daemon is back", alpha.serves, 30)
    assert started_at(alpha) == before


def test_the_door_is_started_anew_and_opens_where_it_was_open(alpha: Box) -> None:
    alpha.run("sudo pkill -KILL -u llamarig-door haproxy")
    alpha.wait_until("it answers", lambda: alpha.attempt("curl -sf http://127.0.0.1:8080/health").returncode == 0, 30)
    assert len(set(alpha.answers(8080))) > 1
