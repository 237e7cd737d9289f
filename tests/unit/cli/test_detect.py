from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llamarig.errors import ExitCode, LlamarigError
from tests.unit.cli.conftest import Shell
from tests.unit.control.test_detect import ADA, answer, facts
from tests.unit.control.test_host_vars import UNREACHABLE, look


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "mysite"
    path.mkdir()
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was asked of two hosts; the second one cannot be reached."""
    calls: list[dict[str, Any]] = []

    def look_at_hosts(inventory: Path, limit: str | None, *, ask_sudo: bool) -> dict[str, Any]:
        calls.append({"inventory": inventory, "limit": limit, "ask_sudo": ask_sudo})
        hosts = {"gpu01": look(), "gpu02": look(UNREACHABLE, {})}
        return {host: said for host, said in hosts.items() if limit is None or host in limit.split(",")}

    monkeypatch.setattr("llamarig.control.inventory.look_at_hosts", look_at_hosts)
    return calls


def test_a_host_that_cannot_be_reached_does_not_hide_the_others(
    shell: Shell, site: Path, asked: list[dict[str, Any]]
) -> None:
    result = shell("detect", "-i", str(site))
    assert result.exit_code == ExitCode.FAILED
    assert f"wrote {site}/host_vars/gpu01/hardware.yml" in result.stdout
    assert "gpu02 cannot be reached: ssh: connect" in result.stdout
    assert "remedy: ssh to it" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 of 2 hosts with problems: gpu02"
    assert (site / "host_vars/gpu01/hardware.yml").is_file()
    assert not (site / "host_vars/gpu02").exists()
    assert asked == [{"inventory": site, "limit": None, "ask_sudo": False}]


def test_hosts_and_the_question_for_sudo_are_handed_to_ansible(
    shell: Shell, site: Path, asked: list[dict[str, Any]]
) -> None:
    result = shell("detect", "-i", str(site), "gpu01", "gpu03", "-K")
    assert result.exit_code == ExitCode.OK
    assert asked == [{"inventory": site, "limit": "gpu01,gpu03", "ask_sudo": True}]
    assert "rtx-4090" in result.stdout
    assert f"    +      uuid: {ADA}" in result.stdout


@pytest.mark.usefixtures("asked")
def test_check_writes_nothing_and_a_second_run_says_so(shell: Shell, site: Path) -> None:
    result = shell("detect", "-i", str(site), "gpu01", "--check")
    assert f"would write {site}/host_vars/gpu01/hardware.yml" in result.stdout
    assert list(site.iterdir()) == []
    shell("detect", "-i", str(site), "gpu01")
    assert "host_vars say so already" in shell("detect", "-i", str(site), "gpu01").stdout


@pytest.mark.usefixtures("asked")
def test_json_has_every_host_and_what_was_written(shell: Shell, site: Path) -> None:
    data = shell.json("detect", "-i", str(site))["data"]
    assert (data["check"], data["failed"]) == (False, ["gpu02"])
    assert data["hosts"]["gpu01"]["hardware"]["gpus"][0]["uuid"] == ADA
    assert data["hosts"]["gpu01"]["files"] == [
        f"{site}/host_vars/gpu01/hardware.yml",
        f"{site}/host_vars/gpu01/services.yml",
    ]
    assert data["hosts"]["gpu02"]["hardware"] is None
    assert data["hosts"]["gpu02"]["problems"][0]["remedy"]


def test_a_driver_that_does_not_answer_is_said_beside_what_was_written(
    shell: Shell, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = look({"facts": facts()}, answer("Failed to initialize NVML: Driver/library version mismatch", 18))
    monkeypatch.setattr("llamarig.control.inventory.look_at_hosts", lambda *_, **__: {"gpu01": said})
    result = shell("detect", "-i", str(site))
    assert result.exit_code == ExitCode.FAILED
    assert "NVML 18" in result.stdout
    assert "remedy: reboot the host" in result.stdout
    assert (site / "host_vars/gpu01/hardware.yml").is_file()


def test_an_inventory_that_ansible_cannot_read_is_an_error(
    shell: Shell, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> dict[str, Any]:
        raise LlamarigError("mysite cannot be looked at", "ansible-inventory --graph")

    monkeypatch.setattr("llamarig.control.inventory.look_at_hosts", refuse)
    result = shell("detect", "-i", str(site), "--json")
    assert result.exit_code == ExitCode.FAILED
    assert json.loads(result.stdout)["error"]["remedy"] == "ansible-inventory --graph"


def test_a_host_that_runs_services_says_where_to_detect(
    shell: Shell, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llamarig.control.host_vars", None)
    result = shell("detect", "-i", str(site))
    assert result.exit_code == ExitCode.FAILED
    assert "from the control node" in result.stderr
