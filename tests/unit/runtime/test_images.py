"""Docker over its command, against one that plays its part; tests/engine has the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamarig.runtime.confinement import Container, engine_words
from llamarig.runtime.images import Docker, DockerError, Image, Life
from tests.support import after
from tests.unit.runtime.test_container_probe import PlayedDocker

TRIAL = Container(name="llamarig-trial-1", image="engine:new", program="llama-bench", words=["-m", "x"], memory_mib=512)


@pytest.fixture
def played(tmp_path: Path) -> PlayedDocker:
    return PlayedDocker(tmp_path)


@pytest.fixture
def docker(played: PlayedDocker) -> Docker:
    return Docker(str(played.path))


def inspected(name: str, **config: Any) -> str:
    return json.dumps([{"Id": f"sha256:{name}", "Size": 1000, "Config": config}])


def test_an_image_is_told_with_its_size_and_labels(played: PlayedDocker, docker: Docker) -> None:
    played.does(image=(0, inspected("a", Labels={"llamarig.ref": "v1"}), "", 0))
    assert docker.image("engine:a") == Image("engine:a", "sha256:a", 1000, {"llamarig.ref": "v1"})
    played.does(image=(0, inspected("a", Labels=None), "", 0))
    assert docker.image("engine:a") == Image("engine:a", "sha256:a", 1000, {})


@pytest.mark.parametrize("said", ["Error: No such image: x", "Error response from daemon: no such image: x"])
def test_an_image_that_is_not_here_is_none(played: PlayedDocker, docker: Docker, said: str) -> None:
    played.does(image=(1, "[]\n", said, 0))
    assert docker.image("x") is None


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", "sudo llamarig"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "sudo docker info"),
    ],
)
def test_a_docker_that_refuses_is_told_with_a_remedy(
    played: PlayedDocker, docker: Docker, said: str, remedy: str
) -> None:
    played.does(image=(1, "", said, 0))
    with pytest.raises(DockerError, match=said[:20]) as refused:
        docker.image("x")
    assert remedy in refused.value.remedy


def test_a_host_without_docker_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DockerError, match="is not there"):
        Docker(str(tmp_path / "none")).image("x")


def test_a_program_runs_confined_as_a_service_is(played: PlayedDocker, docker: Docker) -> None:
    played.does((0, "out", "err", 0))
    done = docker.run(TRIAL, 10)
    assert (done.code, done.out, done.err) == (0, "out", "err")
    (call,) = played.calls
    assert call[:2] == ["run", "--rm"]
    for option, value in (
        ("--name", "llamarig-trial-1"),
        ("--user", "788:788"),
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--network", "none"),
        ("--pull", "never"),
        ("--memory", "512m"),
        ("--entrypoint", "llama-bench"),
    ):
        assert after(call, option) == value
    assert "--read-only" in call
    assert call[-3:] == ["engine:new", "-m", "x"]


def test_a_server_has_one_port_of_the_loopback_and_keeps_a_log() -> None:
    words = engine_words(Container(name="n", image="i", program="p", memory_mib=1, publish="127.0.0.1:"))
    assert after(words, "--publish") == "127.0.0.1::8080"
    assert (after(words, "--network"), after(words, "--log-driver")) == ("bridge", "json-file")
    assert after(engine_words(TRIAL), "--log-driver") == "none"


def test_a_program_that_takes_too_long_is_ended_and_what_it_said_counts(played: PlayedDocker, docker: Docker) -> None:
    played.does((0, "late", "", 5))
    done = docker.run(TRIAL, 0.5)
    assert done.code is None
    assert [call[0] for call in played.calls] == ["run", "rm"]
    assert "llamarig-trial-1" in played.calls[1]


def test_a_container_that_does_not_start_is_dockers_word(played: PlayedDocker, docker: Docker) -> None:
    said = "docker: Error response from daemon: CDI device injection failed: unresolvable nvidia.com/gpu=GPU-1."
    played.does((125, "", f"{said}\nSee 'docker run --help'.", 0))
    with pytest.raises(DockerError, match="CDI device injection failed") as refused:
        docker.run(TRIAL, 10)
    assert "checks compute and cdi" in refused.value.remedy


def test_what_a_program_ends_with_is_its_own_matter(played: PlayedDocker, docker: Docker) -> None:
    played.does((134, "", "GGML_ASSERT", 0))
    assert docker.run(TRIAL, 10).code == 134


def test_containers_are_known_by_the_image_that_they_are_made_of(played: PlayedDocker, docker: Docker) -> None:
    lines = "sha256:a /llama-chat\nsha256:a /other\nsha256:b /third\n"
    played.does(ps=(0, "1\n2\n3\n", "", 0), inspect=(1, lines, "one is gone", 0))
    assert docker.in_use() == {"sha256:a": ["llama-chat", "other"], "sha256:b": ["third"]}
    played.does(ps=(0, "", "", 0))
    assert docker.in_use() == {}


def test_how_a_container_ended_is_told(played: PlayedDocker, docker: Docker) -> None:
    played.does(inspect=(0, json.dumps({"Running": False, "ExitCode": 137, "OOMKilled": True}), "", 0))
    assert docker.life("x") == Life(running=False, code=137, out_of_memory=True)


def test_a_published_port_is_found(played: PlayedDocker, docker: Docker) -> None:
    played.does(port=(0, "127.0.0.1:49153\n", "", 0))
    assert docker.port("x") == 49153
