from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamarig.control.inventory import plan_inventory
from llamarig.errors import ConfigError, ExitCode, LlamarigError
from tests.inventories import box, write_inventory

CHAT = {"name": "chat", "profile": "own", "strategy": "A", "gpus": ["rtx-4090"], "port": 8080}
LONG = {"name": "long", "profile": "glm-flash-q8", "strategy": "auto", "port": 8090}
FILE = {"name": "own.gguf", "url": "https://models.example.com/own.gguf", "bytes": 1 << 20, "sha256": "a" * 64}
OWN = {"own": {"files": [FILE], "server": {"ctx_size": 4096}}}


def inventory(path: Path, **hosts: dict[str, Any]) -> Path:
    return write_inventory(path / "site", hosts, llm_profiles_site=OWN)


def test_every_host_has_its_plan(tmp_path: Path) -> None:
    plans = plan_inventory(inventory(tmp_path, gpu02=box(CHAT, LONG, number=2), gpu01=box(CHAT)))
    assert {host: [spec.service for spec in plan.specs] for host, plan in plans.items()} == {
        "gpu01": ["chat"],
        "gpu02": ["chat", "long"],
    }
    assert plans["gpu01"].specs[0].gpus != plans["gpu02"].specs[0].gpus
    assert plans["gpu02"].specs[1].strategy in {"B", "C", "D"}


def test_the_limit_is_ansibles(tmp_path: Path) -> None:
    site = inventory(tmp_path, gpu01=box(CHAT), gpu02=box(CHAT, number=2), gpu03=box(CHAT, number=3))
    assert list(plan_inventory(site, "gpu0*:!gpu02")) == ["gpu01", "gpu03"]


def test_variables_mean_what_they_mean_in_a_deployment(tmp_path: Path) -> None:
    """Group, host, templates, facts about the inventory itself, and a value that is another variable's."""
    service = {**CHAT, "port": "{{ base_port + 5 }}", "server": {"ctx_size": "{{ contexts[inventory_hostname] }}"}}
    hosts = {"gpu01": box(service, base_port=9000), "gpu02": box(service, base_port=9100, number=2)}
    site = write_inventory(
        tmp_path / "site", hosts, llm_profiles_site=OWN, contexts={"gpu01": 1024, "gpu02": "{{ 2 * 1024 }}"}
    )
    specs = {host: plan.specs[0] for host, plan in plan_inventory(site).items()}
    assert [spec.port for spec in specs.values()] == [9005, 9105]
    assert [spec.origins["ctx_size"]["value"] for spec in specs.values()] == [1024, 2048]


def test_what_is_said_once_for_all_hosts_is_not_mixed_up_with_what_a_host_says(tmp_path: Path) -> None:
    hosts = {
        "gpu01": box(CHAT),
        "gpu02": box(CHAT, number=2, llm_server_defaults={"ctx_size": 2048}),
        "gpu03": box(CHAT, number=3),
    }
    plans = plan_inventory(write_inventory(tmp_path / "site", hosts, llm_profiles_site=OWN))
    contexts = [plan.specs[0].origins["ctx_size"] for plan in plans.values()]
    assert [item["value"] for item in contexts] == [4096, 2048, 4096]
    assert contexts[1]["over"][0] == {"layer": "profile", "value": 4096}


def test_a_plan_that_cannot_be_deployed_yet_is_a_plan_and_says_what_is_missing(tmp_path: Path) -> None:
    plan = plan_inventory(inventory(tmp_path, gpu01=box(LONG)))["gpu01"]
    assert [spec.service for spec in plan.specs] == ["long"]
    (missing,) = plan.incomplete
    assert (missing.service, missing.key) == (
        "long",
        "profile glm-flash-q8, file GLM-4.7-Flash/GLM-4.7-Flash-Q8_0.gguf",
    )
    assert "has no sha256" in missing.message


def test_a_file_that_is_not_on_the_control_node_keeps_a_plan_from_being_deployed_only(tmp_path: Path) -> None:
    away = {"files": [{**FILE, "url": None, "path": str(tmp_path / "gone.gguf")}]}
    site = write_inventory(tmp_path / "site", {"gpu01": box(CHAT)}, llm_profiles_site={"own": away})
    plan = plan_inventory(site)["gpu01"]
    assert [problem.message for problem in plan.incomplete] == [f"there is no file {tmp_path / 'gone.gguf'}"]


def test_every_problem_of_every_host_is_said(tmp_path: Path) -> None:
    wrong = {**CHAT, "profile": "nowhere"}
    site = inventory(tmp_path, gpu01=box(wrong), gpu02=box({**CHAT, "prot": 1}, number=2), gpu03=box(CHAT, number=3))
    with pytest.raises(ConfigError) as caught:
        plan_inventory(site)
    assert [(problem.host, problem.key) for problem in caught.value.problems] == [
        ("gpu01", "profile"),
        ("gpu02", "llm_services[0].prot"),
    ]
    assert caught.value.exit_code == ExitCode.USAGE


def test_what_a_value_refers_to_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_inventory(inventory(tmp_path, gpu01=box({**CHAT, "port": "{{ nowhere_to_be_found }}"})))
    (problem,) = [problem for problem in caught.value.problems if problem.key == "llm_services"]
    assert "nowhere_to_be_found" in problem.message


def test_a_variable_of_a_role_that_is_wrong_is_a_problem_of_the_plan(tmp_path: Path) -> None:
    hosts = {"gpu01": box(CHAT, docker_engine_sorce="x"), "gpu02": box(CHAT, number=2, nvidia_driver_managed="perhaps")}
    with pytest.raises(ConfigError) as caught:
        plan_inventory(write_inventory(tmp_path / "site", hosts, llm_profiles_site=OWN))
    said = [(problem.host, problem.key) for problem in caught.value.problems]
    assert said == [("gpu01", "docker_engine_sorce"), ("gpu02", "role nvidia_driver")]
    assert caught.value.problems[0].remedy == "did you mean docker_engine_source?"


def test_an_inventory_without_the_fleet_layer_is_told_so(tmp_path: Path) -> None:
    site = inventory(tmp_path, gpu01=box(CHAT))
    (site / "group_vars").unlink()
    with pytest.raises(ConfigError, match="the fleet layer is not loaded"):
        plan_inventory(site)


@pytest.mark.parametrize("text", ["---\nother:\n  hosts: {gpu01: {}}\n", "---\ngpu_hosts: {hosts: {}}\n", "no: [yaml"])
def test_an_inventory_that_says_nothing_is_an_error_in_ansibles_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "hosts.yml").write_text(text, encoding="utf-8")
    with pytest.raises(LlamarigError, match=r"cannot be planned: .+") as caught:
        plan_inventory(tmp_path / "hosts.yml")
    assert caught.value.remedy == "ansible-inventory --graph shows what Ansible makes of it"


def test_a_host_that_the_inventory_does_not_know_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LlamarigError, match="nosuch"):
        plan_inventory(inventory(tmp_path, gpu01=box(CHAT)), "nosuch")


def test_a_vault_without_its_password_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    site = inventory(tmp_path, gpu01=box(CHAT))
    (site / "host_vars/vault").mkdir()
    (site / "host_vars/gpu01.yml").rename(site / "host_vars/vault/plain.yml")
    (site / "host_vars/vault").rename(site / "host_vars/gpu01")
    (site / "host_vars/gpu01/vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n3132\n", encoding="utf-8")
    with pytest.raises(LlamarigError) as caught:
        plan_inventory(site)
    assert caught.value.remedy == "set ANSIBLE_VAULT_PASSWORD_FILE"
