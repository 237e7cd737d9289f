"""States and names of real boxes that the decisions once got wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llamarig.planning.stack import decide
from tests.support import HOST
from tests.unit.planning.boxes import (
    BLACKWELL,
    DOCKER_COM,
    KERNEL,
    NEW,
    NEWER_KERNEL,
    OLD,
    PASCAL,
    TOOLKIT,
    card,
    decided,
    driver,
    facts,
    gpu,
    lacking,
    nvidia_driver,
    refused,
    ubuntu_driver,
    wanted,
)

# Noble's package of signatures for this kernel has a number of three digits that is no branch.
ABI = "6.8.0-136-generic"
SIGNED = {**ubuntu_driver(kernel=ABI), f"linux-signatures-nvidia-{ABI}": "1"}


def test_the_number_of_a_kernel_is_no_branch() -> None:
    found = facts(SIGNED, kernel=ABI, driver=driver(NEW, loaded=None, kernels={ABI: NEW}))
    assert refused(found) == []
    replacing = decide(HOST, found, wanted(driver={"replace": True}))[0]
    assert replacing.driver.packages.remove == []


def test_a_newer_branch_has_no_number_in_its_names() -> None:
    names = ["nvidia-open", "nvidia-driver-open", "nvidia-dkms-open", "libnvidia-compute"]
    found = facts(dict.fromkeys(names, "590.48.01-1ubuntu1"), driver=driver("590.48.01"))
    (problem,) = refused(found)
    assert "driver 590 is installed (4 packages)" in problem.message
    replacing, problems = decide(HOST, found, wanted(driver={"replace": True}))
    assert problems == []
    assert replacing.driver.packages.remove == sorted(names)


def test_proprietary_modules_that_only_need_a_reboot_get_one() -> None:
    stack = decided(facts(ubuntu_driver(modules="server"), driver=driver(NEW, loaded=OLD, is_open=False)))
    assert (stack.driver.packages.remove, bool(stack.driver.reboot)) == ([], True)


def test_open_modules_instead_of_proprietary_ones_come_without_what_demands_those() -> None:
    found = facts(ubuntu_driver(modules="server"), driver=driver(NEW, is_open=False), cards=[BLACKWELL])
    stack, problems = decide(HOST, found, wanted(gpus=[], driver={"replace": True}))
    assert problems == []
    assert "nvidia-headless-no-dkms-580-server" in stack.driver.packages.remove
    assert "nvidia-headless-no-dkms-580-server" not in stack.driver.packages.install
    assert "nvidia-headless-no-dkms-580-server-open" in stack.driver.packages.install


def test_a_fresh_box_whose_newest_kernel_has_the_module_is_rebooted_into_it() -> None:
    state = driver(NEW, loaded=None, on_disk=None, kernels={NEWER_KERNEL: NEW})
    stack = decided(facts(ubuntu_driver(kernel=NEWER_KERNEL), cards=[BLACKWELL], driver=state), wanted(gpus=[]))
    assert (stack.driver.packages.install, bool(stack.driver.reboot)) == ([], True)


def test_maintenance_may_give_up_modules_of_kernels_that_no_archive_builds_anew() -> None:
    newer = f"linux-modules-nvidia-580-server-open-{NEWER_KERNEL}"
    found = facts({**ubuntu_driver(), newer: "1"}, driver=driver(NEW), kernels=[KERNEL, NEWER_KERNEL])
    packages = decide(HOST, found, wanted(), maintain=True)[0].driver.packages
    assert {newer, f"linux-modules-nvidia-580-server-open-{KERNEL}"} == set(packages.spare)
    assert len(packages.install) == len(set(packages.install))


def test_a_signed_module_that_only_needs_a_reboot_is_no_matter_for_secure_boot() -> None:
    found = facts(nvidia_driver(), driver=driver(NEW, loaded=OLD, signer="rig"), secure_boot=True)
    stack, problems = decide(HOST, found, wanted(driver={"provider": "nvidia"}))
    assert problems == []
    assert stack.driver.reboot


def test_what_is_wrong_with_right_versions_is_said() -> None:
    found = facts(driver=driver(NEW, is_open=False), cards=[BLACKWELL])
    (problem,) = refused(found, wanted(gpus=[], driver={"managed": False}))
    assert "proprietary" in problem.message


def test_only_packages_of_the_driver_are_held_with_it() -> None:
    hold = decided(facts(ubuntu_driver(), driver=driver(NEW))).driver.packages.hold
    strangers = [*TOOLKIT, "nvidia-docker2", "nvidia-cuda-toolkit", "nvidia-cudnn"]
    assert [name for name in strangers if any(re.fullmatch(pattern, name) for pattern in hold)] == []


@pytest.mark.parametrize("minimum", ["580.82.07-0ubuntu1", "", "580.x"])
def test_a_minimum_is_read_as_far_as_it_is_a_version(minimum: str) -> None:
    found = facts(ubuntu_driver(), driver=driver(NEW))
    assert decide(HOST, found, wanted(driver={"minimum": minimum}, toolkit={"minimum": "1.19.1-1"}))[1] == []


def test_a_beta_is_a_version_too() -> None:
    assert refused(facts(ubuntu_driver(), driver=driver("580.95.05-beta"))) == []


@pytest.mark.parametrize(
    ("packages", "docker"),
    [
        ({"docker.io": "24.0.7-0ubuntu4.1", "docker-compose-v2": "2"}, {"source": "distribution"}),
        ({**DOCKER_COM, "docker-ce": "5:25.0.5-1", "docker-ce-cli": "5:25.0.5-1"}, {"version": ""}),
    ],
)
def test_a_docker_that_cannot_give_cards_is_refused_whoever_it_is_from(
    packages: dict[str, str], docker: dict[str, Any]
) -> None:
    found = lacking(facts(ubuntu_driver(), driver=driver(NEW)), *DOCKER_COM)
    found["packages"] |= packages
    (problem,) = decide(HOST, found, wanted(docker=docker))[1]
    assert "26.1" in problem.message


def test_missing_cards_are_noticed_where_only_one_has_an_address() -> None:
    declared = [gpu("a", "0000:01:00.0"), gpu("b"), gpu("c")]
    (problem,) = refused(facts(ubuntu_driver(), driver=driver(NEW)), wanted(gpus=declared))
    assert "declares 3 cards, on the PCI bus are 1" in problem.message


def test_a_driver_is_not_changed_under_the_one_that_runs_unless_a_reboot_is_allowed() -> None:
    found = facts(ubuntu_driver(), driver=driver(OLD, userspace=NEW))
    (problem,) = refused(found, wanted(driver={"reboot": False}))
    assert problem.key == "nvidia_driver_reboot"
    assert "nvidia_driver_reboot=true" in problem.remedy
    assert refused(facts(), wanted(driver={"reboot": False})) == [], "nothing runs on a fresh box"


def test_docker_is_not_taken_back_below_what_it_is() -> None:
    newer = dict.fromkeys(("docker-ce", "docker-ce-cli"), "5:30.0.1-1~ubuntu.24.04~noble")
    (problem,) = refused(facts({**ubuntu_driver(), **newer}, driver=driver(NEW)))
    assert problem.key == "docker_engine_version"
    assert "5:30.0.1" in problem.message


def test_a_daemon_json_that_somebody_wrote_is_not_replaced_in_silence() -> None:
    theirs = {"data-root": "/data/docker", "runtimes": {"nvidia": {}}, "log-driver": "local"}
    found = facts(ubuntu_driver(), driver=driver(NEW), docker_options=theirs)
    (problem,) = refused(found, wanted(docker={"options": {"log-driver": "json-file"}}))
    assert "data-root, runtimes" in problem.message
    assert refused(found, wanted(docker={"options": theirs})) == []


def test_an_old_card_for_the_display_is_no_reason_to_refuse() -> None:
    stack = decided(facts(ubuntu_driver(), driver=driver(NEW), cards=[card(), PASCAL]))
    assert any("too old" in warning for warning in stack.warnings)


def test_a_virtual_machine_follows_the_generic_kernel() -> None:
    found = lacking(facts({"linux-virtual": "1", "linux-image-virtual": "1"}), "linux-image-generic", "linux-generic")
    install = decided(found).driver.packages.install
    assert "linux-modules-nvidia-580-server-open-generic" in install
    assert "linux-virtual" in install


def test_a_driver_of_another_archive_is_not_moved_by_maintenance() -> None:
    stack, problems = decide(HOST, facts(nvidia_driver(), driver=driver(NEW)), wanted(), maintain=True)
    assert (problems, stack.driver.packages.install) == ([], [])
    assert any("nvidia_driver_provider" in warning for warning in stack.warnings)


def test_what_is_left_to_its_owner_is_upgraded_by_its_owner() -> None:
    unmanaged = decided(facts(ubuntu_driver(), driver=driver(NEW)), wanted(driver={"managed": False}))
    without = decided(lacking(facts(cards=[]), *TOOLKIT), wanted(gpus=[]))
    for stack in (unmanaged, without):
        assert not [pattern for pattern in stack.never_upgraded if pattern.startswith("linux-")]


def test_modules_of_one_kernel_are_not_held_and_may_go_with_it() -> None:
    packages = decided(facts(ubuntu_driver(), driver=driver(NEW))).driver.packages
    by_kernel = f"linux-modules-nvidia-580-server-open-{KERNEL}"
    assert not [pattern for pattern in packages.hold if re.fullmatch(pattern, by_kernel)]
