"""Whatever a host is, a decision is made, and it never asks for what it also takes away."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llamarig.planning.driver import Driver
from llamarig.planning.stack import decide
from tests.support import HOST
from tests.unit.planning.boxes import (
    ANCIENT,
    BLACKWELL,
    DOCKER_COM,
    KERNEL,
    NEW,
    NEWER_KERNEL,
    OLD,
    PASCAL,
    PIN,
    TOOLKIT,
    card,
    driver,
    facts,
    gpu,
    nvidia_driver,
    ubuntu_driver,
    wanted,
)

DRIVERS = sorted(
    {
        *ubuntu_driver(),
        *ubuntu_driver(modules="server"),
        *ubuntu_driver("570"),
        *ubuntu_driver("535", modules="server", kernel=NEWER_KERNEL),
        *nvidia_driver(),
        "nvidia-driver-570",
        "nvidia-dkms-570-open",
        "libnvidia-gl-580",
        "xserver-xorg-video-nvidia-570",
    }
)
OTHERS = sorted(
    {
        *DOCKER_COM,
        *TOOLKIT,
        *("docker.io", "docker-cli", "docker-compose-v2", "podman-docker", "containerd", "runc"),
        *("linux-generic", "linux-image-generic", "linux-image-lowlatency", "linux-image-6.8.0-570-generic"),
        *("nvidia-cuda-toolkit", "nvidia-docker2", "nvidia-container-runtime", "nvidia-gds-13-0", "cuda-toolkit-13-0"),
        *("libnvidia-egl-wayland1", "nvtop", "linux-modules-extra-6.8.0-570-generic"),
    }
)
versions = st.sampled_from([None, "570.133.20", ANCIENT, OLD, NEW, "590.48.01"])
kernels = st.sampled_from([KERNEL, NEWER_KERNEL, "6.14.2-mine", "6.12.57+deb13-amd64", "7.0.0-rc1"])
package_versions = st.sampled_from(["1", PIN, "1.17.7-1", "5:29.1.2-1~ubuntu.24.04~noble", "24.0.7-0ubuntu4.1", "x"])
states = st.builds(
    driver,
    loaded=versions,
    on_disk=versions,
    userspace=versions,
    open=st.sampled_from([None, True, False]),
    on_disk_by_kernel=st.dictionaries(kernels, versions.filter(bool), max_size=3),
    nouveau=st.booleans(),
    run_file=st.booleans(),
)
hosts = st.builds(
    facts,
    packages=st.none(),
    kernel=kernels,
    cards=st.lists(st.sampled_from([card(), BLACKWELL, PASCAL]), max_size=3),
    driver=states,
    cdi=st.none() | st.fixed_dictionaries({"driver": versions}),
    secure_boot=st.sampled_from([None, True, False]),
    reboot_required=st.booleans(),
    apt_sources=st.dictionaries(st.just("/etc/apt/x.list"), st.just(["https://download.docker.com/linux/ubuntu"])),
    snap_docker=st.booleans(),
    interrupted=st.booleans(),
).flatmap(
    lambda host: st.builds(
        lambda packages, held: {**host, "packages": packages, "held": sorted(held)},
        st.dictionaries(st.sampled_from([*DRIVERS, *OTHERS]), package_versions, max_size=25),
        st.sets(st.sampled_from([*DRIVERS, *OTHERS]), max_size=25),
    )
)
sites = st.builds(
    wanted,
    st.sampled_from(["ubuntu_24_04", "debian_13"]),
    gpus=st.lists(st.sampled_from([gpu("a", "0000:01:00.0"), gpu("b", "0000:04:00.0"), gpu("c")]), max_size=2),
    driver=st.fixed_dictionaries(
        {
            "managed": st.booleans(),
            "replace": st.booleans(),
            "provider": st.sampled_from(["", "ubuntu", "nvidia"]),
            "branch": st.sampled_from(["580", 580, "570"]),
        }
    ),
    docker=st.fixed_dictionaries(
        {"source": st.sampled_from(["", "docker.com", "distribution"]), "version": st.sampled_from(["", "5:29.*"])}
    ),
    toolkit=st.fixed_dictionaries({"managed": st.booleans(), "version": st.sampled_from([PIN, "1.18.2-1"])}),
)


def names(items: list[str]) -> list[str]:
    return [item.partition("=")[0] for item in items]


@settings(max_examples=400)
@given(host=hosts, site=sites, maintain=st.booleans())
def test_a_decision_is_made_and_does_not_contradict_itself(
    host: dict[str, Any], site: dict[str, Any], maintain: bool
) -> None:
    before = copy.deepcopy((host, site))
    stack, problems = decide(HOST, host, site, maintain=maintain)
    assert (host, site) == before
    assert decide(HOST, host, site, maintain=maintain) == (stack, problems)
    assert all(problem.host == HOST and problem.key and problem.message and problem.remedy for problem in problems)
    for part in (stack.driver.packages, stack.docker, stack.toolkit):
        assert len(set(names(part.install))) == len(part.install)
        assert not set(names(part.install)) & set(part.remove)
        assert set(part.remove) <= set(host["packages"])
        assert part.due or not (part.install or part.remove)
    assert set(stack.driver.packages.remove) <= set(DRIVERS)
    assert stack.docker.remove == stack.toolkit.remove == []
    assert not (stack.driver.load and stack.driver.reboot)
    if stack.driver.packages.install or not stack.gpu:
        assert (stack.driver.load, stack.driver.reboot) == (False, "")
    if not site["driver"]["managed"]:
        assert (stack.driver.packages, stack.driver.load, stack.driver.reboot) == (Driver().packages, False, "")


@settings(max_examples=200)
@given(host=hosts, site=sites)
def test_nothing_is_removed_that_nobody_allowed(host: dict[str, Any], site: dict[str, Any]) -> None:
    stack, problems = decide(HOST, host, site)
    branch = str(site["driver"]["branch"])
    other = [name for name in stack.driver.packages.remove if f"-{branch}-" not in f"{name}-"]
    assert problems or not other or site["driver"]["replace"]
