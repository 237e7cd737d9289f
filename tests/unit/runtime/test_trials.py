"""One trial at a time, with real processes and a Docker that plays its part."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamarig.errors import BusyError
from llamarig.runtime import trials
from llamarig.runtime.images import Docker
from llamarig.runtime.trials import LABEL, PLACE, claim_trial, end_trial
from tests.support import ROOT, below
from tests.unit.runtime.test_container_probe import PlayedDocker

# A trial that lives until it is ended, as the command is: TERM is Ctrl-C to it. With "deaf" it does not listen.
_TRIAL = """
import signal, sys, time
from pathlib import Path
from llamarig.runtime.images import Docker
from llamarig.runtime.trials import claim_trial
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in sys.argv else interrupt)
try:
    with claim_trial(Path(sys.argv[1]), Docker(sys.argv[2])):
        print("claimed", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def played(tmp_path: Path) -> PlayedDocker:
    docker = PlayedDocker(tmp_path)
    docker.does(ps=(0, "llamarig-trial-7\n", "", 0))
    return docker


@pytest.fixture
def docker(played: PlayedDocker) -> Docker:
    return Docker(str(played.path))


def begin(root: Path, played: PlayedDocker, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _TRIAL, str(root), str(played.path), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT / "src")})
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    return process


def end(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    process.stdout.close()
    return process.wait(timeout=10)


def test_a_trial_removes_what_an_earlier_one_left_and_its_own_in_the_end(
    tmp_path: Path, played: PlayedDocker, docker: Docker
) -> None:
    with claim_trial(tmp_path, docker):
        assert [call[0] for call in played.calls] == ["ps", "rm"]
        assert played.calls[0][-1] == f"label={LABEL}"
        assert played.calls[1][-1] == "llamarig-trial-7"
        assert below(tmp_path, PLACE).read_text() != ""
    assert [call[0] for call in played.calls] == ["ps", "rm", "ps", "rm"]
    assert below(tmp_path, PLACE).read_text() == ""


def test_where_no_trial_was_there_is_none_to_end(tmp_path: Path, docker: Docker) -> None:
    assert not end_trial(tmp_path, docker)
    with claim_trial(tmp_path, docker):
        pass
    assert not end_trial(tmp_path, docker)


def test_a_newer_trial_ends_the_one_that_is_under_way(tmp_path: Path, played: PlayedDocker, docker: Docker) -> None:
    first = begin(tmp_path, played)
    with claim_trial(tmp_path, docker):
        assert end(first) == 130


def test_a_switch_ends_the_trial_that_is_under_way(tmp_path: Path, played: PlayedDocker, docker: Docker) -> None:
    first = begin(tmp_path, played)
    assert end_trial(tmp_path, docker)
    assert end(first) == 130


def test_what_a_killed_trial_left_is_removed_by_the_next_switch(
    tmp_path: Path, played: PlayedDocker, docker: Docker
) -> None:
    first = begin(tmp_path, played)
    first.kill()
    assert end(first) == -signal.SIGKILL
    before = len(played.calls)
    assert end_trial(tmp_path, docker)
    assert [call[0] for call in played.calls[before:]] == ["ps", "rm"]
    assert not end_trial(tmp_path, docker)


def test_a_trial_that_does_not_end_is_named(tmp_path: Path, played: PlayedDocker, docker: Docker) -> None:
    first = begin(tmp_path, played, "deaf")
    try:
        with pytest.raises(BusyError, match=f"process {first.pid}") as busy, claim_trial(tmp_path, docker, seconds=0.5):
            pass
        assert f"kill -KILL {first.pid}" in busy.value.remedy
    finally:
        first.kill()
        end(first)


def test_a_process_that_only_has_an_old_trials_number_is_left_alone(
    tmp_path: Path, played: PlayedDocker, docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file names a stranger while the trial that holds it is deaf."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    first = begin(tmp_path, played, "deaf")
    monkeypatch.setattr(trials, "END_SECONDS", 0.5)
    try:
        below(tmp_path, PLACE).write_text(f"{stranger.pid}\n")
        with pytest.raises(BusyError):
            end_trial(tmp_path, docker)
        time.sleep(0.2)
        assert stranger.poll() is None
    finally:
        for process in (stranger, first):
            process.kill()
            process.wait()
        assert first.stdout is not None
        first.stdout.close()
