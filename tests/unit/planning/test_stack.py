"""The driver: in every state that people have, what is decided, and where that ends."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from llamarig.planning.case import Packages
from llamarig.planning.driver import Driver
from llamarig.planning.stack import decide
from tests.support import HOST
from tests.unit.planning.boxes import (
    ANCIENT,
    BLACKWELL,
    FRESH,
    KERNEL,
    NEW,
    NEWER_KERNEL,
    OLD,
    PASCAL,
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
DESKTOP = {name.replace("-server", ""): "1" for name in UBUNTU if "firmware" not in name}
BUILT = {name: "1" for name in (*UBUNTU, "nvidia-dkms-580-server-open") if re.match(r"(lib)?nvidia-(?!firmware)", name)}
BOTH_KERNELS = {KERNEL: OLD, NEWER_KERNEL: NEW}
# A driver of which half is there is installed by all its names, so that the halves meet.
WHOLE = [*FRESH, *(name for name in UBUNTU if name not in FRESH and re.match(r"(lib)?nvidia-(?!firmware)", name))]
PROPRIETARY = dict.fromkeys((f"linux-modules-nvidia-580-server-{end}" for end in (KERNEL, "generic")), "1")
KERNEL_METAPACKAGES = ["linux-generic", "linux-image-generic", "linux-headers-generic"]
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
    "kernel and driver upgraded behind our back": State(
        facts(ubuntu_driver(kernel=NEWER_KERNEL), driver=driver(OLD, userspace=NEW, kernels=BOTH_KERNELS)),
        reboot=(f"kernel {KERNEL} runs with driver {OLD}", f"{NEWER_KERNEL} starts at the next boot with {NEW}"),
    ),
    "right, and a newer kernel waits without its module": State(
        facts(UBUNTU, driver=driver(NEW), kernels=[KERNEL, NEWER_KERNEL]),
        install=[f"linux-modules-nvidia-580-server-open-{NEWER_KERNEL}"],
        cdi_refresh=True,
    ),
    "right, from NVIDIA's archive, and a newer kernel waits": State(
        facts(nvidia_driver(), driver=driver(NEW), kernels=[KERNEL, NEWER_KERNEL]), cdi_refresh=True
    ),
    "modules built on the host, half upgraded": State(
        facts(BUILT, driver=driver(OLD, userspace=NEW)), install=list(BUILT)
    ),
    "open modules installed, the proprietary one loaded under a Blackwell card": State(
        facts(UBUNTU, driver=driver(NEW, loaded_open=False), cards=[BLACKWELL]),
        wanted(gpus=[]),
        reboot=("the proprietary module is loaded",),
    ),
    "the desktop's driver, half upgraded": State(
        facts(DESKTOP, driver=driver(OLD, userspace=NEW)), install=[name for name in DESKTOP if KERNEL not in name]
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


KERNEL_PARTS = re.compile(r"linux-(image-|headers-)?(generic|lowlatency)[a-z0-9.-]*")


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_what_the_driver_needs(state: State) -> None:
    stack = decided(state.facts, state.wanted)
    packages = stack.driver.packages
    # The kernel's own metapackages come along with the modules: only they bring the whole of a newer kernel.
    apart = [
        [name for name in names if not KERNEL_PARTS.fullmatch(name)] for names in (packages.install, state.install)
    ]
    assert sorted(apart[0]) == sorted(apart[1])
    flavours = {name.rpartition("-open-")[2] for name in packages.install if name.startswith("linux-modules-nvidia-")}
    images = {f"linux-image-{flavour}" for flavour in flavours if not flavour[0].isdigit()}
    assert images <= set(packages.install)
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
    ours = [name for name in UBUNTU if KERNEL not in name] + KERNEL_METAPACKAGES
    others = [*TOOLKIT, "linux-image-6.8.0-60-generic", "docker-ce", "linux-base", "nvtop"]
    patterns = decided(facts(UBUNTU, driver=driver(NEW))).driver.packages.hold
    assert [name for name in (*ours, *others) if any(re.fullmatch(item, name) for item in patterns)] == ours


def test_maintenance_asks_for_what_is_held_and_for_docker_within_its_pin() -> None:
    stack, problems = decide(HOST, facts(UBUNTU, driver=driver(NEW)), wanted(), maintain=True)
    install = set(stack.driver.packages.install)
    assert problems == []
    assert {*FRESH, *COMPUTE, *KERNEL_METAPACKAGES} <= install <= {*UBUNTU, *KERNEL_METAPACKAGES}
    assert stack.docker.install == [
        "containerd.io",
        "docker-buildx-plugin",
        "docker-ce=5:29.*",
        "docker-ce-cli=5:29.*",
        "docker-compose-plugin",
    ]
    # The toolkit is at its pin, whatever the archive has.
    assert (stack.toolkit.install, stack.refresh_index) == ([], True)


def test_maintenance_of_a_host_that_is_not_right_makes_it_right_first() -> None:
    found = facts(UBUNTU, driver=driver(OLD, userspace=NEW))
    (now, _), (later, _) = (decide(HOST, found, wanted(), maintain=maintain) for maintain in (True, False))
    assert now.driver == later.driver
