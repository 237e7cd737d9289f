from __future__ import annotations

import subprocess
from collections.abc import Sequence

import pytest

from llamarig.errors import LlamarigError
from llamarig.runtime.systemd import Systemd, UnitState


class Programs:
    """Stands where subprocess.run does: remembers what was called, says what it is told to say."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.stdout = ""
        self.failing: dict[str, str] = {}

    def run(self, command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.calls.append(list(command))
        error = self.failing.get(command[1])
        return subprocess.CompletedProcess(list(command), 1 if error else 0, self.stdout, error or "")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    fake = Programs()
    monkeypatch.setattr(subprocess, "run", fake.run)
    return fake


def test_the_state_of_a_unit_is_read_whatever_the_order_of_its_properties(programs: Programs) -> None:
    programs.stdout = "Result=success\nNRestarts=2\nActiveState=active\nSubState=running\nUnitFileState=enabled\n"
    assert Systemd().state("chat") == UnitState("active", "running", "enabled", "success", 2)
    assert programs.calls[0][-1] == "llama-chat.service"


def test_a_unit_that_systemd_does_not_know_is_not_running(programs: Programs) -> None:
    programs.stdout = "ActiveState=inactive\nSubState=dead\nUnitFileState=\nResult=success\nNRestarts=\n"
    state = Systemd().state("chat")
    assert (state.is_running, state.is_failed, state.restarts) == (False, True, 0)


@pytest.mark.parametrize(
    ("active", "sub", "running", "failed"),
    [
        ("active", "running", True, False),
        ("activating", "start", False, False),
        ("activating", "auto-restart", False, True),
        ("activating", "auto-restart-queued", False, True),
        ("deactivating", "stop", False, False),
        ("inactive", "dead", False, True),
        ("failed", "failed", False, True),
    ],
)
def test_running_and_failed_follow_systemds_words(active: str, sub: str, running: bool, failed: bool) -> None:
    state = UnitState(active, sub, "enabled", "", 0)
    assert (state.is_running, state.is_failed) == (running, failed)


def test_running_units_are_told_by_their_services_names(programs: Programs) -> None:
    programs.stdout = (
        "llama-chat.service    loaded active     running llama.cpp service chat (small)\n"
        "llama-my-code.service loaded activating start   llama.cpp service my-code (small)\n"
        "\n"
    )
    assert Systemd().running() == ["chat", "my-code"]
    assert "--state=active,activating" in programs.calls[0]


def test_starting_forgets_earlier_failures_first_and_does_not_wait_for_the_model(programs: Programs) -> None:
    Systemd().start("chat")
    assert [call[1:] for call in programs.calls] == [
        ["reset-failed", "llama-chat.service"],
        ["start", "--no-block", "llama-chat.service"],
    ]


def test_a_unit_that_cannot_be_started_is_an_error_with_systemds_words(programs: Programs) -> None:
    programs.failing = {"reset-failed": "not loaded", "start": "Unit llama-chat.service not found.\n"}
    with pytest.raises(LlamarigError) as caught:
        Systemd().start("chat")
    assert caught.value.message.endswith("failed: Unit llama-chat.service not found.")
    assert caught.value.remedy == "see: journalctl --unit llama-chat.service"


def test_stopping_and_disabling_what_is_not_there_is_no_error(programs: Programs) -> None:
    programs.failing = dict.fromkeys(("stop", "reset-failed", "disable"), "not loaded")
    Systemd().stop("chat")
    Systemd().disable("chat")
    assert [call[1] for call in programs.calls] == ["stop", "reset-failed", "disable"]


def test_programs_are_called_by_absolute_path(programs: Programs) -> None:
    Systemd().state("chat")
    Systemd().log("chat", 5)
    assert [call[0] for call in programs.calls] == ["/usr/bin/systemctl", "/usr/bin/journalctl"]


def test_the_log_is_the_units_last_lines(programs: Programs) -> None:
    programs.stdout = "one\ntwo\n"
    assert Systemd().log("chat", 2) == ["one", "two"]
    command = programs.calls[0]
    assert command[command.index("--unit") + 1] == "llama-chat.service"
    assert command[command.index("--lines") + 1] == "2"
