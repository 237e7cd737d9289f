from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llamarig.lab import hosts
from llamarig.lab.hosts import Lab


@dataclass
class Docker:
    """A docker that has one network and some hosts with the addresses they were given."""

    subnet: str = "172.30.0.0/29"
    network: str = ""
    addresses: dict[str, str | None] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)

    def run(self, command: Sequence[str], *, check: bool = True) -> str:
        del check
        self.commands.append(list(command))
        if command[1:3] == ["network", "ls"]:
            return f"bridge\n{self.network}"
        if command[1:3] == ["network", "inspect"]:
            return self.subnet
        if command[1] == "ps":
            return "\n".join(self.addresses)
        if command[1] == "inspect":
            return json.dumps([self._host(name) for name in command[2:]])
        return ""

    def _host(self, name: str) -> dict[str, object]:
        address = self.addresses[name]
        given = {"IPAMConfig": {"IPv4Address": address} if address else None}
        return {"Config": {"Hostname": name}, "NetworkSettings": {"Networks": {self.network: given}}}


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Docker:
    docker = Docker()
    monkeypatch.setattr(hosts, "run", docker.run)
    return docker


@pytest.fixture
def lab(tmp_path: Path, docker: Docker) -> Lab:
    lab = Lab(tmp_path, print)
    docker.network = lab.network
    return lab


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        ({}, "172.30.0.2"),
        ({"a": "172.30.0.2"}, "172.30.0.3"),
        ({"a": "172.30.0.3", "b": None}, "172.30.0.2"),
        ({"a": "172.30.0.2", "b": "172.30.0.3", "c": "172.30.0.5"}, "172.30.0.4"),
    ],
)
def test_a_host_is_given_the_first_address_that_no_other_has(
    lab: Lab, docker: Docker, taken: dict[str, str | None], free: str
) -> None:
    docker.addresses = taken
    assert lab._free_address() == free


def test_a_network_that_is_there_is_left_alone(lab: Lab, docker: Docker) -> None:
    lab._make_network()
    assert len(docker.commands) == 1


def test_a_network_is_made_on_a_subnet_that_docker_found_free(lab: Lab, docker: Docker) -> None:
    docker.network = ""
    lab._make_network()
    assert [command[2:] for command in docker.commands if command[2] in {"create", "rm"}] == [
        ["create", "--label", "llamarig.lab", lab.network],
        ["rm", lab.network],
        ["create", "--label", "llamarig.lab", "--subnet", docker.subnet, lab.network],
    ]
