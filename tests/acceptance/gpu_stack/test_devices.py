"""A running container keeps its cards (nvidia-container-toolkit #48, #1227): a daemon-reload took them away once."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.acceptance.box import Box, playbook
from tests.acceptance.gpu_stack.stack import OTHER, in_container

WORKS = "0 0 1"


@pytest.fixture
def container(fresh: Box) -> Iterator[str]:
    """A container with one card, given to it as services get theirs."""
    loader = "/host/usr/lib64/ld-linux-x86-64.so.2 --library-path /host/usr/lib/x86_64-linux-gnu"
    fresh.run(
        f"sudo docker run --detach --name keeper --device nvidia.com/gpu={OTHER} -v /usr:/host/usr:ro "
        f"llamarig/probe:1 {loader} /host/usr/bin/sleep infinity"
    )
    yield "keeper"
    fresh.run("sudo docker rm --force keeper")


def test_it_can_compute(fresh: Box, container: str) -> None:
    assert in_container(fresh, container) == WORKS


def test_a_daemon_reload_takes_nothing_away(fresh: Box, container: str) -> None:
    fresh.run("sudo systemctl daemon-reload && sudo systemctl daemon-reexec && sudo systemctl daemon-reload")
    fresh.run(f"sudo docker update --memory 512m --memory-swap 512m {container}")
    assert in_container(fresh, container) == WORKS


def test_without_the_card_it_could_not(fresh: Box) -> None:
    """The probe can say no: a container that was given no card cannot compute."""
    loader = "/host/usr/lib64/ld-linux-x86-64.so.2 --library-path /host/usr/lib/x86_64-linux-gnu"
    mounts = "-v /usr:/host/usr:ro -v /usr/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:ro"
    program = "import ctypes; print(ctypes.CDLL('libcuda.so.1').cuInit(0))"
    said = fresh.run(
        f"sudo docker run --rm --env PYTHONHOME=/host/usr {mounts} llamarig/probe:1 {loader} "
        f"/host/usr/bin/python3 -c {json.dumps(program)}"
    )
    assert said in {"100", "999"}


def test_a_docker_restart_leaves_a_container_its_card_where_containers_live_through_it(
    fresh: Box, container: str
) -> None:
    """With live-restore: the same process goes on, with its card."""
    options = {"live-restore": True, "features": {"cdi": True}, "log-driver": "json-file"}
    tags = ["--limit", "fresh", "--tags", "docker_engine", "-e", json.dumps({"docker_engine_daemon_options": options})]
    assert playbook("site.yml", *tags).returncode == 0
    fresh.run(f"sudo docker restart --time 0 {container}")
    pid = fresh.run(f"sudo docker inspect --format '{{{{.State.Pid}}}}' {container}")
    fresh.run("sudo systemctl restart docker.service")
    assert fresh.run(f"sudo docker inspect --format '{{{{.State.Pid}}}}' {container}") == pid
    assert in_container(fresh, container) == WORKS


def test_an_option_that_is_removed_from_daemon_json_is_gone_and_the_service_has_its_card_again(fresh: Box) -> None:
    done = playbook("site.yml", "--limit", "fresh")
    assert done.returncode == 0, done.stdout
    assert json.loads(fresh.run("sudo cat /etc/docker/daemon.json"))["live-restore"] is False
    assert "true" not in fresh.run("sudo docker info --format '{{.LiveRestoreEnabled}}'")
    assert fresh.is_healthy()


def test_images_and_containers_survive_another_run(fresh: Box) -> None:
    before = fresh.run("sudo docker images --quiet --no-trunc; sudo docker ps --quiet --no-trunc")
    assert playbook("site.yml", "--limit", "fresh").returncode == 0
    assert fresh.run("sudo docker images --quiet --no-trunc; sudo docker ps --quiet --no-trunc") == before
