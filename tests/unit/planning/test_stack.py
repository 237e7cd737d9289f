"""The driver: in every state that people have, what is decided, and where that ends."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from llamarig.planning.stack import Driver, Packages, decide
from tests.support import HOST
from tests.unit.planning.boxes import (
    ANCIENT,
    BLACKWELL,
    FRESH,
    KERNEL,
    NEW,
    NEWER_KERNEL,
    OLD,
    PIN,
    TOOLKIT,
    Box,
    card,
    decided,
    driver,
    facts,
    gpu,
    holding,
    lacking,
    nvidia_driver,
    refused,
    ubuntu_driver,
    wanted,
)

UBUNTU = ubuntu_driver()
# A driver of which half is there is installed by all its names, so that the halves meet.
WHOLE = [*FRESH, *(name for name in UBUNTU if name not in FRESH and re.match(r"(lib)?nvidia-(?!firmware)", name))]
PROPRIETARY = dict.fromkeys((f"linux-modules-nvidia-580-server-{end}" for end in (KERNEL, "generic")), "1")
COMPUTE = {"libnvidia-compute-580-server": "1"}
REPLACE = wanted(driver={"replace": True})
BY_NVIDIA = wanted(driver={"provider": "nvidia"})
CHECKS_ONLY = wanted(driver={"managed": False})
HWE = "linux-image-generic-hwe-24.04"


@dataclass(frozen=True)
class State:
    """A host, and what its driver needs; words of the reason for a reboot."""

    facts: dict[str, Any]
    wanted: dict[str, Any] = field(default_factory=wanted)
    install: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    load: bool = False
    reboot: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    cdi_refresh: bool = False
    due: bool = True
    newest_kernel: str = KERNEL


STATES = {
    "a fresh box": State(facts(), install=FRESH),
    "a fresh box that nouveau drives": State(facts(driver=driver(nouveau=True)), install=FRESH),
    "a fresh box with Secure Boot": State(facts(secure_boot=True), install=FRESH),
    "a fresh box with a Blackwell card": State(
        facts(cards=[card(), BLACKWELL]), wanted(gpus=[gpu("a"), gpu("b")]), install=FRESH
    ),
    "a fresh box that follows the HWE kernel": State(
        lacking(facts({HWE: "1"}), "linux-image-generic"),
        install=["linux-modules-nvidia-580-server-open-generic-hwe-24.04", *FRESH[1:]],
    ),
    "a fresh box that follows two kernels": State(
        facts({HWE: "1"}),
        install=[FRESH[0], "linux-modules-nvidia-580-server-open-generic-hwe-24.04", *FRESH[1:]],
    ),
    "a fresh box, NVIDIA's archive wanted": State(
        facts(), BY_NVIDIA, install=["nvidia-driver-pinning-580", "linux-headers-generic", "nvidia-driver-580-open"]
    ),
    "a kernel of one's own, NVIDIA's archive wanted": State(
        lacking(facts(kernel="6.14.2-mine"), "linux-image-generic"),
        BY_NVIDIA,
        install=["nvidia-driver-pinning-580", "linux-headers-6.14.2-mine", "nvidia-driver-580-open"],
    ),
    "installed, the module not loaded": State(facts(UBUNTU, driver=driver(NEW, loaded=None)), load=True),
    "installed, nouveau loaded": State(
        facts(UBUNTU, driver=driver(NEW, loaded=None, nouveau=True)), reboot=("nouveau", "next boot")
    ),
    "right": State(facts(UBUNTU, driver=driver(NEW)), cdi_refresh=True),
    "right and held": State(
        holding(facts(UBUNTU, driver=driver(NEW), cdi={"driver": NEW})), cdi_refresh=False, due=False
    ),
    "right and held, the CDI specification of the last driver": State(
        holding(facts(UBUNTU, driver=driver(NEW), cdi={"driver": OLD})), cdi_refresh=True, due=False
    ),
    "right, dpkg interrupted": State(
        holding(facts(UBUNTU, driver=driver(NEW), cdi={"driver": NEW}, interrupted=True)), due=True
    ),
    "right, and the host asks for a reboot of its own": State(
        facts(UBUNTU, driver=driver(NEW), reboot_required=True), pending=("packages were upgraded",), cdi_refresh=True
    ),
    "right, at the minimum itself": State(facts(UBUNTU, driver=driver(OLD)), cdi_refresh=True),
    "right, from NVIDIA's archive": State(facts(nvidia_driver(), driver=driver(NEW)), cdi_refresh=True),
    "right, from Ubuntu, NVIDIA's archive wanted": State(
        facts(UBUNTU, driver=driver(NEW), secure_boot=True), BY_NVIDIA, cdi_refresh=True
    ),
    "right, proprietary modules under a card that can do with them": State(
        facts(ubuntu_driver(modules="server"), driver=driver(NEW, is_open=False)), cdi_refresh=True
    ),
    "right, installed by the .run file": State(facts(driver=driver(NEW, run_file=True)), cdi_refresh=True, due=True),
    "upgraded, the old module loaded": State(
        facts(UBUNTU, driver=driver(NEW, loaded=OLD)), reboot=(f"{OLD} is loaded", f"{NEW} is installed")
    ),
    "upgraded user space, old module on disk": State(
        facts(UBUNTU, driver=driver(OLD, userspace=NEW)), install=WHOLE, reboot=()
    ),
    "upgraded module, old user space": State(facts(UBUNTU, driver=driver(OLD, on_disk=NEW)), install=WHOLE),
    "older than the minimum": State(facts(UBUNTU, driver=driver(ANCIENT)), install=WHOLE),
    "a kernel that came without its module": State(
        facts(UBUNTU, driver=driver(NEW, loaded=None, on_disk=None, kernels={"6.8.0-51-generic": NEW})),
        install=[f"linux-modules-nvidia-580-server-open-{KERNEL}", *WHOLE],
    ),
    "a newer kernel has the module, the running one has none": State(
        facts(UBUNTU, driver=driver(NEW, loaded=None, on_disk=None, kernels={NEWER_KERNEL: NEW})),
        reboot=(KERNEL, NEWER_KERNEL),
    ),
    "driver 570, to be replaced": State(
        facts(ubuntu_driver("570"), driver=driver("570.133.20")),
        REPLACE,
        install=FRESH,
        remove=sorted(ubuntu_driver("570")),
    ),
    "proprietary modules under a Blackwell card, to be replaced": State(
        facts({**PROPRIETARY, **COMPUTE}, driver=driver(NEW, is_open=False), cards=[BLACKWELL]),
        wanted(gpus=[], driver={"replace": True}),
        install=[*FRESH, *COMPUTE],
        remove=sorted(PROPRIETARY),
    ),
    "checks only, right": State(facts(UBUNTU, driver=driver(NEW)), CHECKS_ONLY, cdi_refresh=True, due=False),
    "checks only, right, the CDI specification too": State(
        facts(driver=driver(NEW, run_file=True), cdi={"driver": NEW}), CHECKS_ONLY, due=False
    ),
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_what_the_driver_needs(state: State) -> None:
    stack = decided(state.facts, state.wanted)
    packages = stack.driver.packages
    assert sorted(packages.install) == sorted(state.install)
    assert packages.remove == state.remove
    assert packages.due is state.due
    assert (stack.driver.load, stack.driver.cdi_refresh) == (state.load, state.cdi_refresh)
    assert bool(stack.driver.reboot) is bool(state.reboot)
    assert all(words in stack.driver.reboot for words in state.reboot)
    assert bool(stack.driver.pending) is bool(state.pending)
    assert all(words in stack.driver.pending for words in state.pending)
    assert stack.refresh_index is bool(state.install)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_what_is_decided_leads_to_the_wanted_driver_and_then_to_nothing(state: State) -> None:
    box = Box(state.facts, state.newest_kernel)
    for _ in range(3):
        box.carry_out(decided(box.facts, state.wanted))
    box.boot()
    stack = decided(box.facts, state.wanted)
    packages = replace(stack.driver.packages, hold=[])
    assert replace(stack.driver, packages=packages) == Driver()
    assert [part.due for part in (packages, stack.docker, stack.toolkit)] == [False, False, False]
    assert refused(box.facts, CHECKS_ONLY | {"gpus": []}) == []


@dataclass(frozen=True)
class Refusal:
    """A host that must not be touched: under which key it is said, and what is said."""

    facts: dict[str, Any]
    key: str
    message: tuple[str, ...]
    remedy: tuple[str, ...]
    wanted: dict[str, Any] = field(default_factory=wanted)


PASCAL = card("1b80", "0000:09:00.0")
REFUSALS = {
    "driver 570": Refusal(
        facts(ubuntu_driver("570"), driver=driver("570.133.20")),
        "nvidia_driver",
        ("570", "580", f"{len(ubuntu_driver('570'))} packages"),
        ("nvidia_driver_replace=true", "reboots", "nvidia_driver_managed: false"),
    ),
    "driver 570 and 575": Refusal(
        facts({**ubuntu_driver("570"), "libnvidia-compute-575": "1"}, driver=driver("570.133.20")),
        "nvidia_driver",
        ("570, 575", "580"),
        ("nvidia_driver_replace=true",),
    ),
    "the .run file": Refusal(
        facts(driver=driver("570.133.20", run_file=True)),
        "nvidia_driver",
        (".run file",),
        ("sudo nvidia-uninstall", "nvidia_driver_managed: false"),
        REPLACE,
    ),
    "Secure Boot and modules that nobody signs": Refusal(
        facts(secure_boot=True),
        "nvidia_driver_provider",
        ("nvidia", "Secure Boot"),
        ("nvidia_driver_provider: ubuntu", "firmware"),
        BY_NVIDIA,
    ),
    "an archive that nobody named": Refusal(
        facts(kernel="6.12.48+deb13-amd64"),
        "nvidia_driver_repository",
        ("no archive", "nvidia"),
        ("name the archive with its key", "nvidia_driver_managed: false"),
        wanted("debian_13"),
    ),
    "Ubuntu's driver on Debian": Refusal(
        facts(),
        "nvidia_driver_repository",
        ("ubuntu",),
        ("its key",),
        wanted("debian_13", driver={"provider": "ubuntu"}),
    ),
    "no kernel metapackage": Refusal(
        lacking(facts(kernel="6.14.2-mine"), "linux-image-generic"),
        "nvidia_driver_provider",
        ("ubuntu", "6.14.2-mine"),
        ("apt-get install linux-generic", "nvidia_driver_provider: nvidia"),
    ),
    "a card before Turing": Refusal(
        facts(cards=[card(), PASCAL]),
        "host_hardware.gpus",
        ("1b80", "0000:09:00.0", "too old"),
        ("take the card out", "nvidia_driver_managed: false"),
    ),
    "a declared card that is not on the bus": Refusal(
        facts(cards=[card(address="0000:02:00.0"), BLACKWELL]),
        "host_hardware.gpus",
        ("rtx4090", "0000:01:00.0", "0000:02:00.0, 0000:04:00.0"),
        ("seated", "powered", "llamarig detect"),
    ),
    "a declared card, and none on the bus": Refusal(
        facts(cards=[]), "host_hardware.gpus", ("0000:01:00.0", "no NVIDIA card"), ("seated",)
    ),
    "fewer cards than are declared": Refusal(
        facts(),
        "host_hardware.gpus",
        ("declares 2", "are 1"),
        ("seated", "llamarig detect"),
        wanted(gpus=[gpu("a"), gpu("b")]),
    ),
    "checks only, nothing there": Refusal(
        facts(),
        "nvidia_driver_managed",
        ("is false", "580", OLD, "module loaded none", "module on disk none", "user space none"),
        ("install driver 580", "reboot", "nvidia_driver_managed: true"),
        CHECKS_ONLY,
    ),
    "checks only, half upgraded": Refusal(
        facts(driver=driver(NEW, loaded=OLD)),
        "nvidia_driver_managed",
        (f"module loaded {OLD}", f"module on disk {NEW}", f"user space {NEW}"),
        ("reboot",),
        CHECKS_ONLY,
    ),
    "checks only, another branch": Refusal(
        facts(driver=driver("590.48.01")), "nvidia_driver_managed", ("590.48.01", "580"), ("580",), CHECKS_ONLY
    ),
    "checks only, proprietary modules under a Blackwell card": Refusal(
        facts(driver=driver(NEW, is_open=False), cards=[BLACKWELL]),
        "nvidia_driver_managed",
        ("is false",),
        ("nvidia_driver_managed: true",),
        wanted(gpus=[], driver={"managed": False}),
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_what_is_not_ours_to_change_is_refused_with_a_remedy(refusal: Refusal) -> None:
    (problem,) = refused(refusal.facts, refusal.wanted)
    assert (problem.host, problem.key) == (HOST, refusal.key)
    assert [words for words in refusal.message if words not in problem.message] == []
    assert [words for words in refusal.remedy if words not in problem.remedy] == []


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = facts(ubuntu_driver("570"), driver=driver("570.133.20", run_file=True), secure_boot=True, snap_docker=True)
    keys = [problem.key for problem in refused({**found, "cards": [card(), PASCAL]}, BY_NVIDIA)]
    assert keys == ["host_hardware.gpus", "nvidia_driver", "nvidia_driver", "nvidia_driver_provider", "docker"]


def test_a_host_without_cards_needs_no_driver_and_no_toolkit() -> None:
    found = facts(cards=[], driver=driver("570.133.20", run_file=True))
    stack = decided(lacking(found, *TOOLKIT), wanted(gpus=[]))
    assert (stack.gpu, stack.driver, stack.toolkit) == (False, Driver(), Packages())
    assert [source["path"] for source in stack.archives] == ["/etc/apt/sources.list.d/llamarig-docker.sources"]


def test_cards_that_nobody_declared_are_a_warning() -> None:
    (warning,) = decided(facts(UBUNTU, driver=driver(NEW), cards=[card(), BLACKWELL]), wanted(gpus=[])).warnings
    assert [word for word in (HOST, "RTX 4090", "RTX 5070 Ti", "llamarig detect") if word not in warning] == []


def test_a_card_before_turing_is_no_matter_where_the_driver_is_somebody_elses() -> None:
    assert decided(facts(driver=driver(NEW), cards=[PASCAL]), wanted(gpus=[], driver={"managed": False})).gpu


def test_kernel_and_driver_are_held_together_and_the_toolkit_apart() -> None:
    ours = (*UBUNTU, "linux-generic", "linux-image-generic", "linux-headers-generic")
    others = ("nvidia-container-toolkit", "linux-image-6.8.0-60-generic", "docker-ce", "linux-base", "nvtop")
    patterns = decided(facts(UBUNTU, driver=driver(NEW))).driver.packages.hold
    held = [name for name in (*ours, *others) if any(re.fullmatch(pattern, name) for pattern in patterns)]
    assert held == list(ours)


def test_maintenance_asks_for_all_that_is_held() -> None:
    found = lacking(facts(UBUNTU, driver=driver(NEW)), *TOOLKIT)
    stack, problems = decide(HOST, found, wanted(), maintain=True)
    kernel = {"linux-generic", "linux-image-generic", "linux-headers-generic"}
    assert (set(stack.driver.packages.install), problems) == ({*UBUNTU, *kernel}, [])
    assert stack.docker.install == [
        "containerd.io", "docker-buildx-plugin", "docker-ce=5:29.*", "docker-ce-cli=5:29.*", "docker-compose-plugin"
    ]  # fmt: skip
    assert (stack.toolkit.install, stack.refresh_index) == ([f"{name}={PIN}" for name in TOOLKIT], True)
