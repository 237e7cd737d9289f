"""What can be reached of a host from the next one, what containers can reach, and that SSH is never cut."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from tests.acceptance.box import Box, changes, playbook

HOST_PORT, PUBLISHED_PORT = 9200, 8095
# Engines have no network: the rules are for what else runs on a host.
STRANGER = "stranger"


def reaches(box: Box, host: str, port: int) -> bool:
    return box.attempt(f"timeout 3 bash -c ': </dev/tcp/{host}/{port}'").returncode == 0


def says(box: Box) -> str:
    """What the doctor says of the firewall."""
    checks = box.llamarig("doctor")["data"]["checks"]
    status: str = next(check["status"] for check in checks if check["name"] == "firewall")
    return status


def firewall(*arguments: str) -> subprocess.CompletedProcess[str]:
    return playbook("site.yml", "--limit", "alpha", "--tags", "firewall", *arguments)


@pytest.fixture(autouse=True, scope="module")
def strangers(alpha: Box) -> Iterator[None]:
    """A program and a container on alpha that answer on every address, and that nobody declared."""
    alpha.run(f"sudo systemd-run --quiet --unit=stranger python3 -m http.server {HOST_PORT}")
    look = "sudo docker inspect --format"
    image = alpha.run(f"{look} '{{{{.Config.Image}}}}' llama-dense")
    # A network of its own, as compose makes them: Docker resolves names there.
    alpha.run("sudo docker network create strangers")
    options = f"--network strangers --publish {PUBLISHED_PORT}:8080 --volume /srv/llamarig/models:/models:ro"
    engine = "--model /models/lab/tiny-dense.gguf --host 0.0.0.0 --port 8080"
    alpha.run(f"sudo docker run --detach --restart always --name {STRANGER} {options} {image} {engine}")
    alpha.wait_until("the container answers", lambda: reaches(alpha, "127.0.0.1", PUBLISHED_PORT))
    yield
    alpha.run(f"sudo docker rm --force {STRANGER}; sudo docker network rm strangers; sudo systemctl stop stranger")


@pytest.fixture
def inside(alpha: Box, beta: Box) -> Iterator[str]:
    """The container's own address, with beta knowing the way to it."""
    network = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = alpha.run(f"sudo docker inspect --format '{network}' {STRANGER}")
    beta.run(f"sudo ip route replace {address} via $(getent ahostsv4 alpha | head -1 | cut -d' ' -f1)")
    yield address
    beta.run(f"sudo ip route del {address}")


def test_what_is_declared_can_be_reached(alpha: Box, beta: Box) -> None:
    assert reaches(beta, "alpha", 22)
    assert reaches(beta, "alpha", 80), "firewall_allow of alpha"
    assert reaches(alpha, "beta", 8080), "the service of beta that is published on every address"


def test_what_nobody_declared_cannot_be_reached(alpha: Box, beta: Box) -> None:
    for port in (HOST_PORT, PUBLISHED_PORT):
        assert reaches(alpha, "127.0.0.1", port)
        assert reaches(alpha, "alpha", port), "a host reaches itself"
        assert not reaches(beta, "alpha", port)


def test_a_container_cannot_be_reached_by_its_own_address(alpha: Box, beta: Box, inside: str) -> None:
    assert reaches(alpha, inside, 8080)
    assert not reaches(beta, inside, 8080)


def test_a_port_published_on_loopback_cannot_be_reached_over_the_wire(beta: Box) -> None:
    """Docker rewrites what a neighbour sends to 127.0.0.1 before the kernel can refuse it."""
    there = "$(getent ahostsv4 alpha | head -1 | cut -d' ' -f1)"
    beta.run(
        "sudo sysctl -q -w net.ipv4.conf.eth0.route_localnet=1; "
        f"sudo ip route replace 127.0.0.1/32 via {there} dev eth0 src $(hostname -I | cut -d' ' -f1) table 77; "
        "sudo ip rule add pref 100 lookup local; sudo ip rule add pref 50 to 127.0.0.1 lookup 77; "
        "sudo ip rule del pref 0"
    )
    try:
        assert not reaches(beta, "127.0.0.1", 8080)
    finally:
        beta.run("sudo ip rule add pref 0 lookup local; sudo ip rule del pref 50; sudo ip rule del pref 100")


def test_containers_reach_the_network_and_resolve_names(alpha: Box) -> None:
    # Docker passes on no name without a dot, so beta is called by its full one.
    beta = alpha.run("getent hosts $(getent ahostsv4 beta | head -1 | cut -d' ' -f1)").split()[1]
    assert "." in beta
    outwards = f"sudo docker exec {STRANGER} timeout 3 bash -c ': </dev/tcp/{beta}/8080'"
    assert alpha.attempt(outwards).returncode == 0


def test_to_the_host_a_container_is_a_stranger(alpha: Box) -> None:
    gateway = alpha.run(
        f"sudo docker inspect --format '{{{{range .NetworkSettings.Networks}}}}{{{{.Gateway}}}}{{{{end}}}}' {STRANGER}"
    )
    for port, open_ in ((80, True), (HOST_PORT, False)):
        call = f"sudo docker exec {STRANGER} timeout 3 bash -c ': </dev/tcp/{gateway}/{port}'"
        assert (alpha.attempt(call).returncode == 0) is open_


def test_a_restart_of_docker_leaves_it(alpha: Box, beta: Box, inside: str) -> None:
    alpha.run("sudo systemctl restart docker")
    alpha.wait_until("the service is back", lambda: reaches(alpha, "127.0.0.1", 8080), 90)
    alpha.wait_until("the container is back", lambda: reaches(alpha, "127.0.0.1", PUBLISHED_PORT), 90)
    assert reaches(beta, "alpha", 80)
    assert not reaches(beta, "alpha", PUBLISHED_PORT)
    assert not reaches(beta, inside, 8080)


def test_rules_that_somebody_flushed_are_noticed_and_come_back(alpha: Box, beta: Box) -> None:
    alpha.run("sudo nft delete table inet llamarig")
    assert reaches(beta, "alpha", HOST_PORT), "without the table this file would prove nothing"
    assert says(alpha) == "fail"
    done = firewall()
    assert done.returncode == 0, done.stdout
    assert changes(done.stdout)["alpha"] == 1
    assert not reaches(beta, "alpha", HOST_PORT)
    assert says(alpha) == "ok"


def test_rules_that_cut_ssh_are_undone(alpha: Box) -> None:
    wrong = {"firewall_ssh_ports": [2222], "firewall_confirm_seconds": 16}
    done = firewall("-e", json.dumps(wrong))
    assert done.returncode != 0
    assert "were undone after 16 s; the host answers again" in " ".join(done.stdout.split())
    new = alpha.ssh("sudo nft list table inet llamarig", "ControlPath=none")
    rules = subprocess.run(new, capture_output=True, text=True, check=True, timeout=30).stdout
    assert "elements = { 22 }" in rules
    assert "2222" in alpha.run("sudo cat /etc/llamarig/firewall.planned.nft")
    assert "2222" not in alpha.run("sudo cat /etc/llamarig/firewall.nft")
    assert says(alpha) == "warn"


def test_the_next_run_sets_it_right_and_the_one_after_changes_nothing(alpha: Box) -> None:
    done = firewall()
    assert done.returncode == 0, done.stdout
    assert "2222" not in alpha.run("sudo cat /etc/llamarig/firewall.planned.nft /etc/llamarig/firewall.nft")
    assert changes(firewall().stdout)["alpha"] == 0


def test_turning_it_off_leaves_nothing(alpha: Box, beta: Box) -> None:
    done = firewall("-e", "firewall_enabled=false")
    assert done.returncode == 0, done.stdout
    assert "llamarig" not in alpha.run("sudo nft list tables")
    assert alpha.run("ls /etc/llamarig | grep firewall || true") == ""
    assert alpha.run("systemctl list-unit-files 'llamarig-firewall*' --no-legend || true") == ""
    assert reaches(beta, "alpha", PUBLISHED_PORT)
    assert changes(firewall("-e", "firewall_enabled=false").stdout)["alpha"] == 0


def test_the_first_activation_is_refused_while_it_would_shut_something(alpha: Box) -> None:
    done = firewall()
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert f"{PUBLISHED_PORT}/tcp (docker-proxy), {HOST_PORT}/tcp (python3)" in said
    assert alpha.run("ls /etc/llamarig | grep firewall || true") == ""


def test_it_can_be_told_to_shut_it(alpha: Box, beta: Box) -> None:
    done = firewall("-e", "firewall_close_undeclared=true")
    assert done.returncode == 0, done.stdout
    assert not reaches(beta, "alpha", PUBLISHED_PORT)
    assert says(alpha) == "ok"
