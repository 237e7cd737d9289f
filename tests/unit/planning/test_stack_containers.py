"""Docker, the container toolkit, and where packages come from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from llamarig.planning.case import Packages
from llamarig.planning.stack import decide
from tests.support import HOST
from tests.unit.planning.boxes import (
    DOCKER_COM,
    NEW,
    PIN,
    TOOLKIT,
    Box,
    decided,
    driver,
    facts,
    holding,
    lacking,
    refused,
    toolkit,
    ubuntu_driver,
    wanted,
)

DISTRIBUTION = wanted(docker={"source": "distribution"})
DEBIAN = wanted("debian_13", driver={"managed": False})
UNMANAGED = wanted(toolkit={"managed": False})
PINNED = ["docker-ce-cli=5:29.*", "docker-ce=5:29.*"]
TOOLKIT_URI = "https://nvidia.github.io/libnvidia-container/stable/deb/amd64"


def right(packages: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """A host whose driver is right and held, and which has none of Docker but what is said."""
    found = facts(ubuntu_driver(), driver=driver(NEW), cdi={"driver": NEW}, **changes)
    found = lacking(found, *DOCKER_COM)
    return {**holding(found), "packages": {**found["packages"], **(packages or {})}}


@dataclass(frozen=True)
class State:
    """A host, and what one part of its stack needs."""

    facts: dict[str, Any]
    wanted: dict[str, Any] = field(default_factory=wanted)
    install: list[str] = field(default_factory=list)
    due: bool = True
    warning: tuple[str, ...] = ()


STATES = {
    "no Docker, docker.com wanted": State(
        right(), install=["containerd.io", "docker-buildx-plugin", *PINNED, "docker-compose-plugin"]
    ),
    "no Docker, the distribution's wanted": State(right(), DISTRIBUTION, install=["docker-compose-v2", "docker.io"]),
    "no Docker on Debian": State(
        right({"linux-image-amd64": "6.12"}), DEBIAN, install=["docker-cli", "docker-compose", "docker.io"]
    ),
    "Docker, not held": State(right(DOCKER_COM)),
    "Docker, held": State(holding(right(DOCKER_COM)), due=False),
    "Docker, held, dpkg interrupted": State(holding(right(DOCKER_COM, interrupted=True))),
    "Docker, held, beside a runc of the distribution": State(
        holding(right({**DOCKER_COM, "runc": "1.2.5"})), due=False
    ),
    "Compose missing": State(
        lacking(holding(right(DOCKER_COM)), "docker-compose-plugin"), install=["docker-compose-plugin"]
    ),
    "Docker older than the pin": State(
        holding(
            right({**DOCKER_COM, **dict.fromkeys(("docker-ce", "docker-ce-cli"), "5:28.5.2-1~ubuntu.24.04~noble")})
        ),
        install=PINNED,
    ),
    "no pin": State(
        holding(right({**DOCKER_COM, "docker-ce": "5:30.0.0-1~ubuntu.24.04~noble"})),
        wanted(docker={"version": ""}),
        due=False,
    ),
    "Docker of the distribution, docker.com wanted": State(
        holding(right({"docker.io": "28.2.2-0ubuntu1~24.04.1", "docker-compose-v2": "2.37.1"})),
        due=False,
        warning=("docker.io 28.2.2", "docker_engine_source is docker.com", "nothing is removed"),
    ),
    "Docker of the distribution without Compose, docker.com wanted": State(
        holding(right({"docker.io": "26.1.3-0ubuntu1~24.04.1"})),
        install=["docker-compose-v2"],
        warning=("docker.io 26.1.3",),
    ),
    "Docker of docker.com without Compose, the distribution's wanted": State(
        lacking(holding(right(DOCKER_COM)), "docker-compose-plugin"),
        DISTRIBUTION,
        install=["docker-compose-plugin"],
        warning=("docker-ce 29.1.2", "docker_engine_source is distribution"),
    ),
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_what_docker_needs(state: State) -> None:
    stack = decided(state.facts, state.wanted)
    assert sorted(stack.docker.install) == sorted(state.install)
    assert (stack.docker.remove, stack.docker.due) == ([], state.due)
    assert bool(stack.warnings) is bool(state.warning)
    assert all(words in " ".join(stack.warnings) for words in state.warning)


OLDER, NEWER, WHOLE = toolkit("1.18.2-1"), toolkit("1.21.0-1"), [f"{name}={PIN}" for name in TOOLKIT]
TOOLKIT_STATES = {
    "no toolkit": State(lacking(right(DOCKER_COM), *TOOLKIT), install=WHOLE),
    "one of four": State(
        lacking(holding(right(DOCKER_COM)), *(set(TOOLKIT) - {"nvidia-container-toolkit-base"})), install=WHOLE
    ),
    "older than the pin": State(holding(right({**DOCKER_COM, **OLDER})), install=WHOLE),
    "newer than the pin": State(holding(right({**DOCKER_COM, **NEWER})), install=WHOLE),
    "one that strayed": State(holding(right({**DOCKER_COM, "libnvidia-container1": "1.21.0-1"})), install=WHOLE),
    "at the pin": State(holding(right(DOCKER_COM)), due=False),
    "at the pin, not held": State({**right(DOCKER_COM), "held": []}),
    "unmanaged, safe, of another version": State(right({**DOCKER_COM, **NEWER}), UNMANAGED, due=False),
    "unmanaged, the base alone": State(
        lacking(right(DOCKER_COM), *(set(TOOLKIT) - {"nvidia-container-toolkit-base"})), UNMANAGED, due=False
    ),
}


@pytest.mark.parametrize("state", TOOLKIT_STATES.values(), ids=TOOLKIT_STATES)
def test_what_the_toolkit_needs(state: State) -> None:
    part = decided(state.facts, state.wanted).toolkit
    assert (part.install, part.remove, part.due) == (state.install, [], state.due)


@pytest.mark.parametrize("state", [*STATES.values(), *TOOLKIT_STATES.values()], ids=[*STATES, *TOOLKIT_STATES])
def test_once_done_nothing_is_left(state: State) -> None:
    box = Box(state.facts)
    box.carry_out(decided(box.facts, state.wanted))
    stack = decided(box.facts, state.wanted)
    assert [replace(part, hold=[]) for part in (stack.docker, stack.toolkit)] == [Packages(), Packages()]
    assert stack.refresh_index is False


@dataclass(frozen=True)
class Refusal:
    """A host that must not be touched: under which key it is said, and what is said."""

    facts: dict[str, Any]
    key: str
    message: tuple[str, ...]
    remedy: tuple[str, ...]
    wanted: dict[str, Any] = field(default_factory=wanted)


REFUSALS = {
    "Docker as a snap": Refusal(right(DOCKER_COM, snap_docker=True), "docker", ("snap",), ("sudo snap remove docker",)),
    "containerd of the distribution in the way": Refusal(
        right({"containerd": "1.7.27", "runc": "1.2.5"}),
        "docker_engine_source",
        ("docker.com", "containerd, runc"),
        ("apt-get remove containerd runc", "docker_engine_source: distribution"),
    ),
    "podman in the way": Refusal(
        right({"podman-docker": "4.9.3"}), "docker_engine_source", ("podman-docker",), ("apt-get remove podman-docker",)
    ),
    "Docker of the distribution, too old for CDI": Refusal(
        right({"docker.io": "24.0.7-0ubuntu4.1", "docker-compose-v2": "2.24.6"}),
        "docker",
        ("docker.io 24.0.7", "CDI", "26.1"),
        ("apt-get remove docker.io",),
    ),
    "Docker of docker.com, too old for CDI": Refusal(
        right({**DOCKER_COM, "docker-ce": "5:25.0.5-1~ubuntu.24.04~noble"}),
        "docker",
        ("docker-ce 25.0.5", "26.1"),
        ("upgrade it", "apt-get remove docker-ce"),
        DISTRIBUTION,
    ),
    "a pin below the minimum": Refusal(
        right(DOCKER_COM),
        "nvidia_container_toolkit_version",
        ("1.18.2-1", "1.19.1", "CVE-"),
        ("pin 1.19.1-1 or later",),
        wanted(toolkit={"version": "1.18.2-1"}),
    ),
    "unmanaged, and not there": Refusal(
        lacking(right(DOCKER_COM), *TOOLKIT),
        "nvidia_container_toolkit_managed",
        ("is false", "nvidia-container-toolkit-base is not installed"),
        ("1.19.1 or later", "nvidia_container_toolkit_managed: true"),
        UNMANAGED,
    ),
    "unmanaged, with a known hole": Refusal(
        right({**DOCKER_COM, "libnvidia-container-tools": "1.17.7-1"}),
        "nvidia_container_toolkit_managed",
        ("libnvidia-container-tools is 1.17.7-1",),
        ("1.19.1 or later",),
        UNMANAGED,
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_what_is_not_ours_to_change_is_refused_with_a_remedy(refusal: Refusal) -> None:
    (problem,) = refused(refusal.facts, refusal.wanted)
    assert (problem.host, problem.key) == (HOST, refusal.key)
    assert [words for words in refusal.message if words not in problem.message] == []
    assert [words for words in refusal.remedy if words not in problem.remedy] == []


def test_an_old_docker_is_enough_for_a_host_without_cards() -> None:
    found = lacking(right({"docker.io": "24.0.7-0ubuntu4.1", "docker-compose-v2": "2.24.6"}, cards=[]), *TOOLKIT)
    assert decided(found, wanted(gpus=[])).docker.install == []


def paths(found: dict[str, Any], asked: dict[str, Any] | None = None) -> list[str]:
    directory = "/etc/apt/sources.list.d/llamarig-"
    archives = decided(found, asked).archives
    return [archive["path"].removeprefix(directory).removesuffix(".sources") for archive in archives]


@pytest.mark.parametrize(
    ("found", "asked", "names"),
    [
        (right(DOCKER_COM), wanted(), ["docker", "nvidia-container-toolkit"]),
        (facts(), wanted(driver={"provider": "nvidia"}), ["docker", "cuda", "nvidia-container-toolkit"]),
        (right(), DISTRIBUTION, ["nvidia-container-toolkit"]),
        (right({"docker.io": "28.2.2", "docker-compose-v2": "2"}), wanted(), ["nvidia-container-toolkit"]),
        (right(DOCKER_COM), UNMANAGED, ["docker"]),
        (lacking(right(cards=[]), *TOOLKIT), wanted(gpus=[]), ["docker"]),
    ],
    ids=["all", "NVIDIA's driver", "the distribution's Docker", "Docker of others", "unmanaged toolkit", "no card"],
)
def test_a_host_gets_the_archives_that_it_needs(found: dict[str, Any], asked: dict[str, Any], names: list[str]) -> None:
    assert paths(found, asked) == names


@pytest.mark.parametrize("end", ["", "/"])
def test_an_archive_that_the_host_names_itself_is_left_alone(end: str) -> None:
    asked = wanted()
    asked["toolkit"]["repository"] = asked["toolkit"]["repository"] | {"uri": TOOLKIT_URI + end}
    found = right(DOCKER_COM, apt_sources={"/etc/apt/sources.list.d/nvidia.list": [TOOLKIT_URI]})
    assert paths(found, asked) == ["docker"]
    (warning,) = decided(found, asked).warnings
    assert [word for word in (HOST, TOOLKIT_URI, "/etc/apt/sources.list.d/nvidia.list") if word not in warning] == []


def test_a_source_of_ours_is_not_somebody_elses() -> None:
    path = "/etc/apt/sources.list.d/llamarig-nvidia-container-toolkit.sources"
    assert "nvidia-container-toolkit" in paths(right(DOCKER_COM, apt_sources={path: [TOOLKIT_URI]}))


def test_a_key_is_named_by_its_fingerprint_and_fetched_once() -> None:
    mirror = {
        "name": "mirror",
        "uri": "https://mirror.example.com/toolkit/",
        "suite": "/",
        "key_url": "https://mirror.example.com/key",
        "key_fingerprint": "0123456789ABCDEF0123456789ABCDEF0BADCAFE",
    }
    asked = wanted("debian_13", gpus=[], driver={"managed": False}, toolkit={"repository": mirror})
    stack = decided(right({"docker.io": "27"}), asked)
    path = "/etc/apt/keyrings/llamarig-mirror-0badcafe.asc"
    assert stack.keys == [{"path": path, "url": mirror["key_url"], "fingerprint": mirror["key_fingerprint"]}]
    (archive,) = stack.archives
    assert archive["vars"]["archive"] == {**mirror, "components": "", "key_path": path, "path": archive["path"]}
    assert decided(right({"docker.io": "27"}, apt_keys=[path]), asked).keys == []


def test_an_apt_get_by_hand_keeps_to_the_pins() -> None:
    pins = {pin["packages"]: (pin["pin"], pin["priority"]) for pin in decided(right(DOCKER_COM)).pins}
    assert pins == {
        "docker-ce docker-ce-cli": ("version 5:29.*", 990),
        "*nvidia*": ("origin developer.download.nvidia.com", 100),
        " ".join(TOOLKIT): (f"version {PIN}", 990),
    }


@pytest.mark.parametrize(
    "asked",
    [
        wanted(gpus=[], docker={"source": "distribution"}, driver={"managed": False}, toolkit={"managed": False}),
        wanted(gpus=[], docker={"version": ""}, driver={"managed": False}, toolkit={"managed": False}),
    ],
    ids=["nothing is ours", "nothing is pinned"],
)
def test_what_is_not_pinned_has_no_pin(asked: dict[str, Any]) -> None:
    stack, problems = decide(HOST, right(DOCKER_COM), asked)
    assert (stack.pins, problems) == ([], [])
