from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamarig.runtime.cgroups import contained_by
from llamarig.runtime.engines import CDI_DIRECTORIES, HostEngines
from tests.support import below

ID = "0123456789abcdef" * 4


def process(root: Path, pid: int, cgroup: str, stat: str = "S") -> None:
    place = root / f"proc/{pid}"
    place.mkdir(parents=True)
    (place / "cgroup").write_text(f"{cgroup}\n", encoding="ascii")
    (place / "stat").write_text(f"{pid} (llama) server) {stat} 1 1\n", encoding="ascii")


@pytest.mark.parametrize(
    ("cgroup", "service"),
    [
        (f"0::/llama.slice/llama-chat.slice/docker-{ID}.scope", "chat"),
        (f"0::/llama.slice/llama-code.slice/llama-code-2.slice/docker-{ID}.scope", "code-2"),
        (f"12:memory:/llama-chat.slice/{ID}\n1:name=systemd:/llama-chat.slice/{ID}", "chat"),
        (f"0::/docker/1234/llama-chat.slice/{ID}", "chat"),
        ("0::/llama.slice/llama-chat.slice/llama-chat.service", None),
        (f"0::/system.slice/docker-{ID}.scope", None),
    ],
)
def test_a_service_has_the_processes_of_its_container_alone(tmp_path: Path, cgroup: str, service: str | None) -> None:
    process(tmp_path, 41, cgroup)
    assert contained_by(41, tmp_path) == service
    assert contained_by(42, tmp_path) is None


def test_engines_are_found_by_their_cgroup(tmp_path: Path) -> None:
    process(tmp_path, 41, f"0::/llama.slice/llama-chat.slice/docker-{ID}.scope")
    process(tmp_path, 42, "0::/llama.slice/llama-chat.slice/llama-chat.service")
    process(tmp_path, 43, f"0::/llama.slice/llama-code.slice/docker-{ID}.scope")
    (tmp_path / "proc/self").mkdir()
    assert HostEngines(tmp_path).pids("chat") == [41]


@pytest.mark.parametrize(("stat", "alive"), [("S", True), ("R", True), ("D", True), ("Z", False)])
def test_a_zombie_is_gone(tmp_path: Path, stat: str, *, alive: bool) -> None:
    process(tmp_path, 41, "0::/", stat)
    assert HostEngines(tmp_path).alive(41) is alive
    assert not HostEngines(tmp_path).alive(42)


def test_a_container_says_that_it_waits(tmp_path: Path) -> None:
    engines = HostEngines(tmp_path)
    assert not engines.waits("chat")
    engines.forget("chat")
    place = below(tmp_path, "/run/llamarig/engines/chat/waiting")
    place.parent.mkdir(parents=True)
    place.touch()
    assert engines.waits("chat")
    engines.forget("chat")
    assert not engines.waits("chat")


@pytest.mark.parametrize("place", CDI_DIRECTORIES)
def test_a_container_is_stale_where_the_driver_was_changed_since_it_began_to_wait(tmp_path: Path, place: str) -> None:
    engines = HostEngines(tmp_path)
    assert engines.is_stale("chat"), "nobody waits"
    waiting = tmp_path / "run/llamarig/engines/chat/waiting"
    waiting.parent.mkdir(parents=True)
    waiting.touch()
    directory = tmp_path / place.lstrip("/")
    directory.mkdir(parents=True)
    (directory / "gone.yaml").symlink_to("/nowhere")
    said = directory / "nvidia.yaml"
    said.touch()
    os.utime(waiting, (2000, 2000))
    os.utime(said, (1000, 1000))
    assert not engines.is_stale("chat")
    os.utime(said, (3000, 3000))
    assert engines.is_stale("chat")
