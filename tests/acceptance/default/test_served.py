"""After the first converge: the host serves, contained as promised."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.acceptance.box import Box


def test_a_chat_request_is_answered(alpha: Box) -> None:
    assert len(set(alpha.answers(8080))) > 1


def test_the_doctor_is_content(alpha: Box, beta: Box) -> None:
    for box in (alpha, beta):
        verdict = box.llamarig("doctor")
        assert verdict["data"]["healthy"], verdict
        # Lab hosts have no time service.
        assert [check["name"] for check in verdict["data"]["checks"] if check["status"] != "ok"] == ["clock"]


def test_the_container_is_hardened(alpha: Box) -> None:
    info = json.loads(alpha.run("sudo docker inspect llama-dense"))[0]
    host = info["HostConfig"]
    assert info["Config"]["User"] == "788:788"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] in (None, [])
    assert host["Privileged"] is False
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["RestartPolicy"]["Name"] in ("no", "")
    assert host["Memory"] == 1536 * 2**20
    assert host["CgroupParent"] == "llama-dense.slice"
    assert host["NetworkMode"] == "none"
    assert info["NetworkSettings"]["Ports"] in (None, {})
    # It may write where it listens, and nowhere else.
    assert [mount["Destination"] for mount in info["Mounts"] if mount["RW"]] == ["/run/llamarig"]


def test_the_process_itself_has_no_capability_and_cannot_gain_one(alpha: Box) -> None:
    pid = alpha.run("sudo docker inspect --format '{{.State.Pid}}' llama-dense")
    status = dict(line.split(":", 1) for line in alpha.run(f"sudo cat /proc/{pid}/status").splitlines() if ":" in line)
    assert int(status["CapEff"].strip(), 16) == 0
    assert int(status["CapBnd"].strip(), 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Uid"].split() == ["788"] * 4


def test_a_pid_leads_to_its_service_through_its_cgroup(alpha: Box) -> None:
    pid = alpha.run("sudo docker inspect --format '{{.State.Pid}}' llama-dense")
    assert "llama-dense.slice" in alpha.run(f"cat /proc/{pid}/cgroup")


def test_a_loopback_service_listens_on_loopback_only(alpha_host: Any) -> None:
    listening = alpha_host.check_output("ss -H -ltn 'sport = :8080'").split()
    assert "127.0.0.1:8080" in listening
    assert not {"0.0.0.0:8080", "*:8080", "[::]:8080"} & set(listening)


def test_a_service_on_the_network_wants_its_key(alpha: Box, beta: Box) -> None:
    request = (
        "curl -s -o /dev/null -w '%{http_code}' -X POST -d '{\"messages\":[]}' http://beta:8080/v1/chat/completions"
    )
    alpha.run("sudo apt-get install -qq -y curl >/dev/null")
    assert alpha.run(request) == "401"
    assert alpha.run(f"{request} -H 'Authorization: Bearer lab-key-that-is-no-secret'") == "200"
    assert len(set(beta.answers(8080, "lab-key-that-is-no-secret"))) > 1


def test_the_key_is_nowhere_to_be_read(beta: Box) -> None:
    key = "lab-key-that-is-no-secret"
    assert beta.run("stat -c '%U:%G %a' /etc/llamarig/keys 2>/dev/null") == "root:llama-engine 750"
    assert beta.run("sudo stat -c '%U:%G %a' /etc/llamarig/keys/hub.key") == "root:llama-engine 640"
    assert (
        beta.attempt(f"grep -r {key} /etc/llamarig/services.d /etc/llamarig/compose /etc/systemd/system").returncode
        == 1
    )
    assert beta.attempt(f"ps -ef | grep -v grep | grep {key}").returncode == 1
    assert beta.attempt(f"sudo journalctl | grep -v sshd | grep -F {key}").returncode == 1


def test_units_are_sound_and_the_daemon_starts_with_the_host_in_their_place(alpha: Box) -> None:
    units = "/etc/systemd/system/llama{-*,rigd,rig-door,rig-exporter}.service"
    alpha.run(f"sudo systemd-analyze verify --recursive-errors=yes {units}")
    states = alpha.run("systemctl list-unit-files 'llama*.service' --plain --no-legend").splitlines()
    found = {line.split()[0]: line.split()[1] for line in states}
    for unit in ("llamarigd", "llamarig-door", "llamarig-exporter"):
        assert found[f"{unit}.service"] == "enabled", unit
    assert {state for name, state in found.items() if name.startswith("llama-")} == {"static"}


@pytest.mark.parametrize("unit", ["llamarigd.service", "llamarig-door.service", "llamarig-exporter.service"])
def test_what_has_no_business_is_out_of_reach(alpha: Box, unit: str) -> None:
    said = alpha.run(f"systemd-analyze security {unit} | tail -1")
    assert float(said.split("level for")[1].split(":")[1].split()[0]) <= 2.5, said


def test_the_daemon_is_nobody_and_may_only_start_and_stop_engines(alpha: Box) -> None:
    pid = alpha.run("systemctl show --value -p MainPID llamarigd")
    status = dict(line.split(":", 1) for line in alpha.run(f"cat /proc/{pid}/status").splitlines() if ":" in line)
    assert int(status["CapEff"].strip(), 16) == int(status["CapPrm"].strip(), 16) == 0
    assert alpha.run(f"ps -o user= -p {pid}") == "llamarig"
    assert "docker" not in alpha.run("id -nG llamarig").split()
    as_daemon = "sudo setpriv --reuid llamarig --regid llamarig --init-groups"
    for verb, unit in (("restart", "ssh.service"), ("stop", "docker.service"), ("kill", "llama-dense.service")):
        assert alpha.attempt(f"{as_daemon} systemctl --no-ask-password {verb} {unit}").returncode != 0, (verb, unit)
    assert alpha.attempt(f"{as_daemon} systemctl --no-ask-password start llama-dense.service").returncode == 0
    assert alpha.attempt(f"{as_daemon} docker ps").returncode != 0


def test_the_agent_needs_no_pip_and_its_files_belong_to_root(alpha: Box) -> None:
    assert alpha.attempt("command -v pip pip3 gcc").returncode == 1
    assert alpha.run("find -L /opt/llamarig/current/ ! -user root -o -perm /022 ! -type l | head") == ""
    release = alpha.run("readlink /opt/llamarig/current")
    assert release == f"releases/{alpha.llamarig('version')['data']['release']}"


def test_models_are_files_that_only_root_may_change(alpha: Box) -> None:
    assert alpha.run("stat -c '%U %a' /srv/llamarig/models/lab/tiny-dense.gguf") == "root 644"


def test_list_plan_and_logs_speak(alpha: Box) -> None:
    services = alpha.llamarig("list")["data"]["services"]
    assert {item["service"] for item in services} == {"dense", "moe", "damaged", "refused", "odd"}
    assert [item["service"] for item in services if item["active"]] == ["dense"]
    assert alpha.llamarig("plan", "moe")["data"]["specs"][0]["leaves"] == ["dense"]
    assert any("listening" in line for line in alpha.llamarig("logs", "dense", "-n", "500")["data"]["lines"])
    table = alpha.run("llamarig plan moe")
    assert "strategy cpu" in table
    assert "--device none" in table
