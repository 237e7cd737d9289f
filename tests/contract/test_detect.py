"""The playbook behind llamarig detect says something of every host, whatever it finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.control.inventory import look_at_hosts
from llamarig.errors import LlamarigError

HOSTS = """\
gpu_hosts:
  hosts:
    here: {ansible_connection: local, ansible_become: false, llm_services: []}
    gone: {ansible_host: 127.0.0.1, ansible_port: 1}
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    path.write_text(HOSTS, encoding="utf-8")
    return path


def test_a_host_that_cannot_be_reached_is_told_beside_the_others(inventory: Path) -> None:
    looks = look_at_hosts(inventory)
    assert list(looks) == ["gone", "here"]
    assert looks["gone"]["machine"]["unreachable"] is True
    assert looks["gone"]["machine"]["msg"]
    assert looks["here"]["machine"].get("unreachable", False) is False
    assert "facts" in looks["here"]["machine"] or looks["here"]["machine"]["msg"]
    assert [looks[host]["services_declared"] for host in looks] == [False, True]


def test_a_host_that_the_inventory_does_not_know_is_an_error(inventory: Path) -> None:
    with pytest.raises(LlamarigError, match="nosuch"):
        look_at_hosts(inventory, "here,nosuch")


def test_a_vault_without_its_password_is_an_error_with_the_remedy(inventory: Path) -> None:
    folder = inventory.parent / "host_vars/here"
    folder.mkdir(parents=True)
    (folder / "vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n3132\n", encoding="utf-8")
    with pytest.raises(LlamarigError) as caught:
        look_at_hosts(inventory)
    assert caught.value.remedy == "set ANSIBLE_VAULT_PASSWORD_FILE"
