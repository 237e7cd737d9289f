"""A change of the inventory: a changed service restarts, a bad change goes back, a removed service leaves nothing."""

from __future__ import annotations

import json

from tests.acceptance.box import Box, changes, playbook

DENSE = {"name": "dense", "profile": "tiny-dense", "strategy": "cpu", "port": 8080}
MOE = {"name": "moe", "profile": "tiny-moe", "strategy": "cpu", "port": 8080}


def site(services: list[dict[str, object]]) -> tuple[int, str]:
    variables = json.dumps({"llm_services": services, "llm_default_service": str(services[0]["name"])})
    done = playbook("site.yml", "--limit", "alpha", "-e", variables)
    return done.returncode, done.stdout


def test_a_change_of_the_active_service_restarts_it(alpha: Box) -> None:
    alpha.llamarig("switch", "moe")
    code, output = site([DENSE, {**MOE, "server": {"ctx_size": 512}}])
    assert code == 0, output
    pid = alpha.run("sudo docker inspect --format '{{.State.Pid}}' llama-moe")
    assert "--ctx-size 512" in alpha.run(
        f"sudo tr '\\0' ' ' < /proc/{pid}/cmdline || sudo cat /proc/{pid}/cmdline | tr '\\0' ' '"
    )


def test_a_change_of_another_service_restarts_nothing(alpha: Box) -> None:
    before = alpha.run("systemctl show -p ActiveEnterTimestampMonotonic llama-moe.service")
    code, output = site([{**DENSE, "server": {"ctx_size": 512}}, {**MOE, "server": {"ctx_size": 512}}])
    assert code == 0, output
    assert alpha.run("systemctl show -p ActiveEnterTimestampMonotonic llama-moe.service") == before


def test_a_bad_change_of_the_active_service_goes_back_to_what_served(alpha: Box) -> None:
    bad = {**MOE, "server": {"ctx_size": 512, "override_kv": "bogus"}}
    code, output = site([DENSE, bad])
    assert code != 0
    assert "moe serves again" in output
    assert alpha.active() == "moe"
    assert len(set(alpha.answers(8080))) > 1


def test_removed_services_leave_nothing_and_the_default_serves(alpha: Box) -> None:
    code, output = site([DENSE])
    assert code == 0, output
    assert alpha.active() == "dense"
    assert alpha.run("ls /etc/systemd/system | grep '^llama-'").split() == ["llama-dense.service", "llama-dense.slice"]
    assert alpha.run("ls /etc/llamarig/services.d /etc/llamarig/compose").split() == [
        "/etc/llamarig/compose:",
        "dense",
        "/etc/llamarig/services.d:",
        "dense.json",
    ]
    assert alpha.run("sudo docker ps --all --format '{{.Names}}'") == "llama-dense"
    assert alpha.run("ls /srv/llamarig/models/lab") != ""
    assert alpha.is_healthy()


def test_removing_an_api_key_removes_its_file(beta: Box) -> None:
    service = {"name": "hub", "profile": "tiny-hub", "strategy": "cpu", "port": 8080}
    done = playbook("site.yml", "--limit", "beta", "-e", json.dumps({"llm_services": [service]}))
    assert done.returncode == 0, done.stdout
    assert changes(done.stdout)["beta"] > 0
    assert beta.run("sudo ls /etc/llamarig/keys") == ""
    assert len(set(beta.answers(8080))) > 1
