from __future__ import annotations

import os
import platform

import pytest

from llamarig.errors import ExitCode
from llamarig.hardware.gpus import RecordedGpus, Setting
from tests.unit.cli.conftest import Shell
from tests.unit.hardware.recordings import ADA, begin, declare, hardware, recorded

HOST = "rig01"
LIMIT = {"power_limit_watts": 350}


@pytest.fixture
def gpus(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> RecordedGpus:
    """Two cards; the inventory limits the power of the first."""
    result = RecordedGpus(recorded())
    monkeypatch.setattr("llamarig.cli.tune.NvmlProcess", lambda: result)
    monkeypatch.setattr(platform, "node", lambda: HOST)
    begin(shell.host.root)
    declare(shell.host.root, hardware(LIMIT))
    return result


def test_tune_says_what_it_set_and_a_second_time_that_all_is_so(shell: Shell, gpus: RecordedGpus) -> None:
    result = shell("tune")
    assert (result.exit_code, result.stdout) == (ExitCode.OK, "rtx4090: power limit 350 W, was 450 W\n")
    assert gpus.applied == [Setting(ADA, "power_limit_w", 350)]
    assert shell("tune").stdout == "the cards are as declared\n"
    assert shell.json("tune")["data"] == {"changed": False, "changes": [], "missing": [], "waits": ""}


def test_tune_as_json_is_every_change(shell: Shell, gpus: RecordedGpus) -> None:
    data = shell.json("tune")["data"]
    assert data["changed"] is True
    assert data["changes"] == [
        {"card": "rtx4090", "uuid": ADA, "setting": "power_limit_w", "from": 450.0, "to": 350},
    ]
    assert len(gpus.applied) == 1


def test_tune_check_touches_nothing(shell: Shell, gpus: RecordedGpus) -> None:
    assert shell("tune", "--check").stdout == "would set rtx4090: power limit 350 W, was 450 W\n"
    assert shell.json("tune", "--check")["data"]["changed"] is True
    assert gpus.applied == []


def test_tune_check_before_the_driver_says_that_it_waits(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamarig.cli.tune.NvmlProcess", lambda: RecordedGpus({"error": {"code": 12}}))
    begin(shell.host.root)
    declare(shell.host.root, hardware())
    assert shell("tune", "--check").stdout.startswith("would tune the cards once the driver runs: libnvidia-ml.so.1")
    assert shell.json("tune", "--check")["data"]["changed"] is True
    result = shell("tune")
    assert result.exit_code == ExitCode.FAILED
    assert "remedy: run playbooks/site.yml" in result.stderr
    assert shell.json("tune")["error"]["code"] == "nvml"


def test_a_value_that_a_card_does_not_take_is_a_fault_of_the_inventory(shell: Shell, gpus: RecordedGpus) -> None:
    declare(shell.host.root, hardware({"power_limit_watts": 700}))
    result = shell("tune")
    assert result.exit_code == ExitCode.USAGE
    message = f"{HOST}: host_hardware.gpus[rtx4090].power_limit_watts: 700 W, and {ADA} takes 150 to 600 W"
    assert f"{message}\n    remedy: choose a value from 150 to 600" in result.stderr
    assert shell.json("tune")["error"]["code"] == "config"
    assert gpus.applied == []


def test_a_card_that_is_not_there_fails_after_the_others_were_tuned(shell: Shell, gpus: RecordedGpus) -> None:
    declare(shell.host.root, hardware(LIMIT, {"uuid": "GPU-gone"}))
    result = shell("tune")
    assert result.exit_code == ExitCode.FAILED
    assert f"{HOST}: not there to be tuned: rtx5070ti (GPU-gone); the others are as declared" in result.stderr
    assert "remedy: llamarig doctor" in result.stderr
    assert gpus.applied == [Setting(ADA, "power_limit_w", 350)]
    assert shell.json("tune", "--check")["data"]["missing"] == ["rtx5070ti (GPU-gone)"]


def test_a_host_without_gpus_has_nothing_to_tune(shell: Shell, gpus: RecordedGpus) -> None:
    declare(shell.host.root, hardware(gpus=[], driver=None))
    assert shell("tune").stdout == "no GPU is declared\n"
    assert gpus.applied == []


def test_a_host_that_was_never_told_its_hardware_says_so(shell: Shell, gpus: RecordedGpus) -> None:
    (shell.host.root / "etc/llamarig/hardware.json").unlink()
    result = shell("tune")
    assert result.exit_code == ExitCode.FAILED
    assert "hardware.json is missing" in result.stderr
    assert "remedy: run playbooks/site.yml" in result.stderr
    assert gpus.applied == []


def test_only_root_may_tune(shell: Shell, gpus: RecordedGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = shell("tune")
    assert result.exit_code == ExitCode.NOT_ALLOWED
    assert "remedy: sudo llamarig" in result.stderr
    assert gpus.applied == []
