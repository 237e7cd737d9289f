"""The driver: what is not llamarig's to change, and how that is said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support import HOST
from tests.unit.planning.boxes import (
    BLACKWELL,
    KERNEL,
    NEW,
    OLD,
    PASCAL,
    card,
    driver,
    facts,
    gpu,
    lacking,
    refused,
    ubuntu_driver,
    wanted,
)

REPLACE = wanted(driver={"replace": True})
BY_NVIDIA = wanted(driver={"provider": "nvidia"})
CHECKS_ONLY = wanted(driver={"managed": False})
PROPRIETARY = dict.fromkeys((f"linux-modules-nvidia-580-server-{end}" for end in (KERNEL, "generic")), "1")
COMPUTE = {"libnvidia-compute-580-server": "1"}


@dataclass(frozen=True)
class Refusal:
    """A host that must not be touched: under which key it is said, and what is said."""

    facts: dict[str, Any]
    key: str
    message: tuple[str, ...]
    remedy: tuple[str, ...]
    wanted: dict[str, Any] = field(default_factory=wanted)


REFUSALS = {
    "driver 570": Refusal(
        facts(ubuntu_driver("570"), driver=driver("570.133.20")),
        "nvidia_driver",
        ("570", "580", f"{len(ubuntu_driver('570'))} packages"),
        ("nvidia_driver_replace=true", "nvidia_driver_reboot=true", "nvidia_driver_managed: false"),
    ),
    "driver 570 and 575": Refusal(
        facts({**ubuntu_driver("570"), "libnvidia-compute-575": "1"}, driver=driver("570.133.20")),
        "nvidia_driver",
        ("570, 575", "580"),
        ("nvidia_driver_replace=true",),
    ),
    "proprietary modules under a Blackwell card": Refusal(
        facts({**PROPRIETARY, **COMPUTE}, driver=driver(NEW, is_open=False), cards=[BLACKWELL]),
        "nvidia_driver",
        ("proprietary", *PROPRIETARY),
        ("nvidia_driver_replace=true", "nvidia_driver_managed: false"),
        wanted(gpus=[]),
    ),
    "proprietary modules built on the host, under a Blackwell card": Refusal(
        facts(
            {"nvidia-dkms-580": "1", "libnvidia-compute-580": "1"}, driver=driver(NEW, is_open=False), cards=[BLACKWELL]
        ),
        "nvidia_driver",
        ("proprietary", "nvidia-dkms-580"),
        ("nvidia_driver_replace=true",),
        wanted(gpus=[], driver={"provider": "nvidia"}),
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
        facts(cards=[PASCAL]),
        "host_hardware.gpus",
        ("1b80", "0000:09:00.0", "too old"),
        ("nvidia_driver_managed: false",),
        wanted(gpus=[]),
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
    assert keys == ["nvidia_driver", "nvidia_driver_provider", "nvidia_driver", "docker"]
