from __future__ import annotations

import subprocess
from collections.abc import Sequence

import pytest

from llamarig.errors import LlamarigError
from llamarig.runtime.systemd import Systemd, UnitState


class Programs:
    """Stands where subprocess does: remembers what was called, says what it is told to say, or nothing ever."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.stdout = ""
        self.hangs = False
        self.killed = 0
        self.failing: dict[str, str] = {}

    def run(self, command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.calls.append(list(command))
        error = self.failing.get(command[1])
        return subprocess.CompletedProcess(list(command), 1 if error else 0, self.stdout, error or "")

    def open(self, command: Sequence[str], **_: object) -> Programs:
        self.calls.append(list(command))
        return self

    def communicate(self, timeout: float) -> tuple[str, None]:
        if self.hangs:
            raise subprocess.TimeoutExpired("journalctl", timeout)
        return self.stdout, None

    def kill(self) -> None:
        self.killed += 1

    def wait(self, timeout: float) -> int:
        raise subprocess.TimeoutExpired("journalctl", timeout)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    fake = Programs()
    monkeypatch.setattr(subprocess, "run", fake.run)
    monkeypatch.setattr(subprocess, "Popen", fake.open)
    return fake


def test_the_state_of_a_unit_is_read_whatever_the_order_of_its_properties(programs: Programs) -> None:
    programs.stdout = "Result=success\nNRestarts=2\nActiveState=active\nSubState=running\nExecMainStatus=3\n"
    assert Systemd().state("chat") == UnitState("active", "running", "success", 2, 3)
    assert programs.calls[0][-1] == "llama-chat.service"


def test_a_unit_that_systemd_does_not_know_is_not_running(programs: Programs) -> None:
    programs.stdout = "ActiveState=inactive\nSubState=dead\nResult=success\nNRestarts=\nExecMainStatus=\n"
    state = Systemd().state("chat")
    assert (state.is_running, state.is_over, state.is_failed, state.restarts) == (False, True, False, 0)


@pytest.mark.parametrize(
    ("active", "sub", "running", "over", "failed"),
    [
        ("active", "running", True, False, False),
        ("activating", "start", False, False, False),
        ("activating", "auto-restart", False, True, True),
        ("activating", "auto-restart-queued", False, True, True),
        ("deactivating", "stop", False, False, False),
        ("deactivating", "stop-post", False, True, False),
        ("inactive", "dead", False, True, False),
        ("failed", "failed", False, True, True),
    ],
)
def test_running_over_and_failed_follow_systemds_words(
    active: str, sub: str, *, running: bool, over: bool, failed: bool
) -> None:
    state = UnitState(active, sub)
    assert (state.is_running, state.is_over, state.is_failed) == (running, over, failed)


def test_running_units_are_told_by_their_services_names(programs: Programs) -> None:
    programs.stdout = (
        "llama-chat.service    loaded active     running llama.cpp service chat (small)\n"
        "llama-my-code.service loaded activating start   llama.cpp service my-code (small)\n"
        "\n"
    )
    assert Systemd().running() == ["chat", "my-code"]
    assert "--state=active,activating" in programs.calls[0]


def test_starting_and_stopping_wait_for_nothing(programs: Programs) -> None:
    Systemd().start("chat")
    Systemd().stop("chat")
    assert [call[1:] for call in programs.calls] == [
        ["start", "--no-block", "llama-chat.service"],
        ["stop", "--no-block", "llama-chat.service"],
    ]


def test_a_unit_that_cannot_be_started_is_an_error_with_systemds_words(programs: Programs) -> None:
    programs.failing = {"start": "Unit llama-chat.service not found.\n"}
    with pytest.raises(LlamarigError) as caught:
        Systemd().start("chat")
    assert caught.value.message.endswith("failed: Unit llama-chat.service not found.")
    assert caught.value.remedy == "see: journalctl --unit llama-chat.service"


def test_stopping_what_is_not_there_is_no_error(programs: Programs) -> None:
    programs.failing = {"stop": "not loaded"}
    Systemd().stop("chat")
    assert [call[1] for call in programs.calls] == ["stop"]


@pytest.mark.parametrize(
    ("said", "since"),
    [
        ("ActiveState=active\nActiveEnterTimestampMonotonic=12500000\n", 12.5),
        ("ActiveState=activating\nActiveEnterTimestampMonotonic=12500000\n", None),
        ("ActiveState=inactive\nActiveEnterTimestampMonotonic=0\n", None),
    ],
)
def test_docker_is_up_since_it_became_active(programs: Programs, said: str, since: float | None) -> None:
    programs.stdout = said
    assert Systemd().docker_since() == since
    assert programs.calls[0][-1] == "docker.service"


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


def test_a_journal_that_hangs_and_cannot_be_killed_says_nothing_and_holds_up_nobody(programs: Programs) -> None:
    programs.hangs = True
    assert Systemd().log("chat", 2) == []
    assert programs.killed == 1
