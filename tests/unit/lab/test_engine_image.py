from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.lab.engine_image import buildkit_docker
from llamarig.lab.machine import LabError


def docker(directory: Path, version: str, *, buildx: bool) -> str:
    command = directory / "docker"
    directory.mkdir()
    command.write_text(
        f"#!/bin/sh\ncase $1 in version) echo {version} ;; buildx) exit {int(not buildx)} ;; esac\n", "ascii"
    )
    command.chmod(0o755)
    return str(command)


@pytest.mark.parametrize(
    ("version", "buildx", "fits"),
    [("20.10.24", False, True), ("26.1.5", True, True), ("28.2.2", False, False), ("", False, False)],
)
def test_a_docker_that_can_use_buildkit_is_told_from_one_that_cannot(
    version: str, buildx: bool, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = docker(tmp_path / "one", version, buildx=buildx)
    monkeypatch.setenv("PATH", f"{tmp_path / 'none'}:{tmp_path / 'one'}")
    if fits:
        assert buildkit_docker() == command
    else:
        with pytest.raises(LabError, match="no docker here can build with BuildKit"):
            buildkit_docker()


def test_the_next_docker_on_the_path_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker(tmp_path / "new", "28.2.2", buildx=False)
    old = docker(tmp_path / "old", "20.10.24", buildx=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'new'}:{tmp_path / 'old'}")
    assert buildkit_docker() == old
