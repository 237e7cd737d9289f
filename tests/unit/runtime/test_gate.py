from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from llamarig.runtime.gate import FileGate


def test_a_gate_is_shut_until_it_is_opened(tmp_path: Path) -> None:
    gate = FileGate(tmp_path)
    assert not gate.is_open("chat")
    gate.open("chat")
    assert gate.is_open("chat")
    assert (tmp_path / "run/llamarig/gates/chat/open").exists()
    gate.shut("chat")
    gate.shut("chat")
    assert not gate.is_open("chat")


def test_gates_are_each_services_own(tmp_path: Path) -> None:
    gate = FileGate(tmp_path)
    gate.open("chat")
    assert not gate.is_open("chat-2")


def test_a_version_is_chosen_whole(tmp_path: Path) -> None:
    gate = FileGate(tmp_path)
    gate.choose("chat", "a" * 64)
    gate.choose("chat", "b" * 64)
    place = tmp_path / "run/llamarig/gates/chat"
    assert (place / "version").read_text(encoding="ascii") == "b" * 64 + "\n"
    assert gate.chosen("chat") == "b" * 64
    assert sorted(path.name for path in place.iterdir()) == ["bell", "version"]
    assert gate.chosen("chat-2") is None


@pytest.mark.parametrize("first", ["the container", "the daemon"])
def test_who_waits_hears_the_bell_be_it_there_before_it_rings_or_after(tmp_path: Path, first: str) -> None:
    gate = FileGate(tmp_path)
    gate.choose("chat", "a" * 64)
    bell = tmp_path / "run/llamarig/gates/chat/bell"
    if first == "the daemon":
        gate.open("chat")
    with subprocess.Popen(["/bin/sh", "-c", 'read -r _ <"$0" && echo heard', bell], stdout=subprocess.PIPE) as waiting:
        if first == "the container":
            _until_it_opens(waiting.pid)
            gate.open("chat")
        assert waiting.communicate(timeout=30)[0] == b"heard\n"


def test_a_bell_rings_no_more_once_the_gate_is_shut(tmp_path: Path) -> None:
    gate = FileGate(tmp_path)
    gate.choose("chat", "a" * 64)
    gate.open("chat")
    gate.open("chat")
    gate.shut("chat")
    bell = os.open(tmp_path / "run/llamarig/gates/chat/bell", os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(bell, 10) == b""
    os.close(bell)


def test_a_gate_without_a_bell_is_opened_all_the_same_and_gets_one_with_the_next_version(tmp_path: Path) -> None:
    gate = FileGate(tmp_path)
    gate.open("chat")
    assert gate.is_open("chat")
    place = tmp_path / "run/llamarig/gates/chat/bell"
    place.write_text("no pipe", encoding="ascii")
    gate.choose("chat", "a" * 64)
    assert place.is_fifo()


def _until_it_opens(pid: int) -> None:
    """Wait until a process blocks in the kernel's opening of a pipe."""
    end = time.monotonic() + 30.0
    while time.monotonic() < end:
        if Path(f"/proc/{pid}/wchan").read_text(encoding="ascii") == "wait_for_partner":
            return
        time.sleep(0.005)
    pytest.fail("it never opened the pipe")
