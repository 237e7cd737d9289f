"""The probe against a Docker command that plays its part; in the lab the real one does."""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from llamarig.runtime import container_probe
from llamarig.runtime.container_probe import IMAGE, Computed, DockerProbe, ProbeError, run_command

Outcome = tuple[int, str, str, float]
UUIDS = ["GPU-1", "GPU-2"]
ANSWER = {"empty": True, "library": "/usr/lib/libcuda.so.580.95.05", "code": 0, "cards": 2}
REFRESH = "sudo systemctl restart nvidia-cdi-refresh.service"
RUNC = (
    "docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime"
    " create failed: runc create failed: unable to start container process: error during container init: "
)
UNKNOWN = "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-1"
REFUSALS = [
    (
        f'{RUNC}error mounting "/usr/lib/gone" to rootfs at "/x": no such file\n\nRun \'docker run --help\' for more',
        'error mounting "/usr/lib/gone" to rootfs at "/x": no such file',
        REFRESH,
    ),
    (
        f"docker: Error response from daemon: {UNKNOWN}",
        UNKNOWN,
        REFRESH,
    ),
    (
        "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\nSee 'docker run --help'.",
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
        "sudo systemctl start docker.service",
    ),
    ("", "Docker says nothing", "sudo docker info"),
]


_PLAY = """\
import json, pathlib, sys, time
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "import":
    (here / "image.tar").write_bytes(sys.stdin.buffer.read())
outcomes = json.loads((here / "outcomes").read_text()).get(sys.argv[1], [[0, "", "", 0]])
code, out, err, seconds = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
(here / "outcomes").write_text(json.dumps(json.loads((here / "outcomes").read_text()) | {sys.argv[1]: outcomes}))
time.sleep(seconds)
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


class PlayedDocker:
    """A Docker command that does what it was told, verb by verb; the last outcome of a verb is the one that stays."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "docker"
        self.path.write_text(f"#!{sys.executable} -S\n{_PLAY}", encoding="ascii")
        self.path.chmod(0o755)

    def does(self, *runs: Outcome, **other: Outcome) -> None:
        """``runs`` are the outcomes of docker run, ``other`` one of each other verb."""
        outcomes = {"run": runs, **{verb: [outcome] for verb, outcome in other.items()}}
        (self.directory / "outcomes").write_text(json.dumps(outcomes), encoding="utf-8")

    @property
    def calls(self) -> list[list[str]]:
        lines = (self.directory / "calls").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


def says(answer: object) -> Outcome:
    return 0, json.dumps(answer), "", 0


def refuses(text: str, code: int = 125) -> Outcome:
    return code, "", text, 0


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedDocker:
    played = PlayedDocker(tmp_path)
    monkeypatch.setattr(container_probe, "_DOCKER", str(played.path))
    return played


def test_the_answer_of_the_container_is_what_it_computed(docker: PlayedDocker) -> None:
    docker.does(says(ANSWER))
    assert DockerProbe().compute(UUIDS) == Computed(library="/usr/lib/libcuda.so.580.95.05", code=0, cards=2)
    assert len(docker.calls) == 1


def test_why_the_library_could_not_be_loaded_is_told(docker: PlayedDocker) -> None:
    docker.does(says(ANSWER | {"code": None, "cards": None, "error": "wrong ELF class"}))
    assert DockerProbe().compute(UUIDS).error == "wrong ELF class"


def test_the_empty_image_is_made_where_it_is_missing_and_once(docker: PlayedDocker) -> None:
    missing = f"docker: Error response from daemon: No such image: {IMAGE}."
    docker.does(refuses(missing), says(ANSWER))
    assert DockerProbe().compute(UUIDS).code == 0
    assert [call[0] for call in docker.calls] == ["run", "import", "run"]
    assert docker.calls[1] == ["import", "--change", "LABEL llamarig.engine=probe", "-", IMAGE]
    with tarfile.open(fileobj=io.BytesIO((docker.directory / "image.tar").read_bytes())) as tar:
        assert tar.getnames() == []


def test_an_image_that_cannot_be_made_is_told(docker: PlayedDocker) -> None:
    refused = {"import": refuses("Error: no space left on device", 1)}
    docker.does(refuses("No such image"), **refused)
    with pytest.raises(ProbeError, match=f"the empty image {IMAGE} cannot be made: Error: no space left") as caught:
        DockerProbe().compute(UUIDS)
    assert caught.value.remedy == "sudo docker info"


def test_an_image_of_that_name_that_is_not_empty_proves_nothing(docker: PlayedDocker) -> None:
    docker.does(says(ANSWER | {"empty": False}))
    with pytest.raises(ProbeError, match="is not llamarig's empty image") as caught:
        DockerProbe().compute(UUIDS)
    assert caught.value.remedy == f"docker rmi {IMAGE}: the doctor makes it anew"


@pytest.mark.parametrize(("said", "message", "remedy"), REFUSALS)
def test_a_refusal_of_docker_is_told_without_its_ceremony(
    docker: PlayedDocker, said: str, message: str, remedy: str
) -> None:
    docker.does(refuses(said))
    with pytest.raises(ProbeError) as caught:
        DockerProbe().compute(UUIDS)
    assert caught.value.message == f"no container starts with the cards: {message}"
    assert caught.value.remedy == remedy


def test_a_container_that_does_not_answer_is_removed_and_told(docker: PlayedDocker) -> None:
    docker.does((0, "", "", 60))
    with pytest.raises(ProbeError, match="did not answer within 2 s") as caught:
        DockerProbe(2).compute(UUIDS)
    assert "journalctl --dmesg --grep NVRM" in caught.value.remedy
    assert docker.calls[-1] == ["rm", "--force", f"llamarig-probe-{os.getpid()}"]


def test_an_answer_that_is_none_is_told(docker: PlayedDocker) -> None:
    docker.does((0, "a traceback\n", "", 0))
    with pytest.raises(ProbeError, match="the container answered 'a traceback'"):
        DockerProbe().compute(UUIDS)


def test_a_host_without_docker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_probe, "_DOCKER", str(tmp_path / "docker"))
    with pytest.raises(ProbeError, match="is not there") as caught:
        DockerProbe().compute(UUIDS)
    assert caught.value.remedy == "run playbooks/site.yml for this host"


@pytest.mark.parametrize(
    ("machine", "loader"), [("x86_64", "ld-linux-x86-64.so.2"), ("aarch64", "ld-linux-aarch64.so.1")]
)
def test_the_container_gets_the_cards_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, machine: str, loader: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    command = run_command(UUIDS)
    assert command[:2] == ["/usr/bin/docker", "run"]
    assert [command[n + 1] for n, word in enumerate(command) if word == "--device"] == [
        "nvidia.com/gpu=GPU-1",
        "nvidia.com/gpu=GPU-2",
    ]
    for option, value in (
        ("--network", "none"),
        ("--user", "788:788"),
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--pull", "never"),
        ("--volume", "/usr:/host/usr:ro"),
    ):
        assert command[command.index(option) + 1] == value
    libraries = f"usr/lib/{machine}-linux-gnu"
    after = command[command.index(IMAGE) + 1 :]
    assert after[:3] == [f"/host/{libraries}/{loader}", "--library-path", f"/{libraries}:/host/{libraries}"]


def test_the_program_in_the_container_says_what_it_finds() -> None:
    """Here it finds no driver, or that of this machine; either way it answers what the probe reads."""
    command = [sys.executable, "-S", "-c", container_probe._PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout).keys() >= {"empty", "library", "code", "cards"}
