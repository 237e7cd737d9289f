from __future__ import annotations

import pytest

from llamarig.checks.result import Status
from tests.unit.checks.conftest import Break, Examined

SITE = "run playbooks/site.yml for this host"
REBOOT = "sudo systemctl reboot"
LOG = "journalctl --dmesg --grep NVRM"


CASES: list[tuple[str, Status, Break, str, str]] = [
    (
        "memory",
        Status.FAIL,
        lambda r: r.facts.update(memory_mib=32107),
        "32107 MiB, declared are 64000 MiB",
        "reseat the memory modules, or correct host_hardware.memory_mib in host_vars and run playbooks/site.yml",
    ),
    (
        "secure-boot",
        Status.FAIL,
        lambda r: r.driver(signer=None, loaded=None),
        "enabled, and nobody signed the module nvidia of kernel 6.8.0-85-generic: the kernel refuses it",
        f"{SITE}: Ubuntu's modules are signed; or turn Secure Boot off in the firmware",
    ),
    (
        "secure-boot",
        Status.FAIL,
        lambda r: r.driver(signer="rig01 Secure Boot Module Signature key", loaded=None),
        (
            "enabled, and the module nvidia is signed by rig01 Secure Boot Module Signature key, whose key the firmware"
            " may not know"
        ),
        "sudo mokutil --import /var/lib/shim-signed/mok/MOK.der, then reboot and enrol the key at the console",
    ),
    (
        "driver",
        Status.FAIL,
        lambda r: r.driver(loaded=None, nouveau=True),
        "nouveau drives the cards",
        f"{SITE}, then {REBOOT}",
    ),
    (
        "driver",
        Status.FAIL,
        lambda r: r.driver(loaded=None, on_disk=None),
        "kernel 6.8.0-85-generic has no nvidia module",
        f"{SITE}: it installs linux-modules-nvidia-580-server-open-6.8.0-85-generic",
    ),
    (
        "driver",
        Status.FAIL,
        lambda r: r.driver(loaded=None),
        "the module 580.95.05 is there and not loaded",
        f"sudo modprobe nvidia; where that fails, {LOG} says why",
    ),
    (
        "driver",
        Status.FAIL,
        lambda r: r.driver(userspace=None),
        "the module 580.95.05 is loaded, and its user space is not installed",
        SITE,
    ),
    (
        "driver",
        Status.FAIL,
        lambda r: r.driver(loaded="580.82.07"),
        "user space 580.95.05, module loaded 580.82.07, on disk 580.95.05: no new container gets a card (NVML 18)",
        REBOOT,
    ),
    (
        "driver",
        Status.FAIL,
        lambda r: r.driver(loaded="580.82.07", on_disk=None),
        "user space 580.95.05, module loaded 580.82.07, on disk none: no new container gets a card (NVML 18)",
        f"{SITE}, then {REBOOT}",
    ),
    (
        "driver",
        Status.FAIL,
        lambda r: r.driver(loaded="570.172.08", on_disk="570.172.08", userspace="570.172.08"),
        "570.172.08 is loaded, declared is branch 580",
        f"{SITE}, then {REBOOT}",
    ),
    (
        "driver",
        Status.FAIL,
        lambda r: r.driver(loaded="580.65.06", on_disk="580.65.06", userspace="580.65.06"),
        "580.65.06 is loaded, needed is 580.82.07 or later",
        f"{SITE}, then {REBOOT}",
    ),
    (
        "driver",
        Status.FAIL,
        lambda r: r.driver(open=False),
        "NVIDIA GeForce RTX 5070 Ti needs the open kernel modules, these are not",
        f"{SITE}, then {REBOOT}",
    ),
    (
        "clock",
        Status.WARN,
        lambda r: r.facts.update(clock_synchronized=False),
        "no time service keeps it right: logs and metrics will lie",
        "sudo timedatectl set-ntp true; where there is no time service, install systemd-timesyncd",
    ),
    (
        "reboot",
        Status.WARN,
        lambda r: r.facts.update(reboot_required=True),
        "due since the upgrade of a package that does not say its name",
        "sudo systemctl reboot, when nobody needs the host",
    ),
    (
        "secure-boot",
        Status.WARN,
        lambda r: r.facts.update(secure_boot=None),
        "the firmware does not say whether it is enabled",
        "mokutil --sb-state",
    ),
    (
        "driver",
        Status.WARN,
        lambda r: r.driver(on_disk="580.82.07"),
        "user space 580.95.05, module loaded 580.95.05, on disk 580.82.07: after the next reboot they do not fit",
        SITE,
    ),
    (
        "driver",
        Status.WARN,
        lambda r: r.driver(run_file=True),
        (
            "580.95.05, open kernel modules, by NVIDIA's .run file: no package manager knows it, a new kernel has no"
            " module"
        ),
        f"sudo nvidia-uninstall, then {SITE}",
    ),
    (
        "packages-held",
        Status.WARN,
        lambda r: r.facts.update(held=[]),
        "no package of kernel and driver is: an upgrade can take the driver from under a running engine",
        f"{SITE}: it holds them",
    ),
    (
        "packages-held",
        Status.WARN,
        lambda r: r.facts.update(held=["nvidia-utils-580-server"]),
        "linux-generic, linux-image-generic can move while the others are held: the driver would come apart",
        f"{SITE}: it holds them",
    ),
    ("memory", Status.OK, lambda r: r.facts.update(memory_mib=64000), "64000 MiB, declared are 64000 MiB", ""),
    ("secure-boot", Status.OK, lambda r: r.facts.update(secure_boot=False), "not enabled", ""),
    ("secure-boot", Status.OK, lambda r: r.driver(on_disk=None, signer=None), "enabled", ""),
    (
        "secure-boot",
        Status.OK,
        lambda r: r.driver(signer=None),
        "enabled; the kernel let in the module nvidia, signed by nobody",
        "",
    ),
    (
        "secure-boot",
        Status.OK,
        lambda r: r.driver(loaded=None),
        "enabled; the module nvidia is signed by Canonical Ltd. Kernel Module Signing",
        "",
    ),
    (
        "secure-boot",
        Status.FAIL,
        lambda r: r.driver(signer=None, loaded="580.82.07"),
        "enabled, and nobody signed the module nvidia of kernel 6.8.0-85-generic: the kernel refuses it",
        f"{SITE}: Ubuntu's modules are signed; or turn Secure Boot off in the firmware",
    ),
]


@pytest.mark.parametrize(("name", "status", "change", "message", "remedy"), CASES)
def test_a_check_says_what_it_finds_and_the_remedy(
    rig: Examined, name: str, status: Status, change: Break, message: str, remedy: str
) -> None:
    change(rig)
    assert rig.says(name) == (status, message, remedy)


def test_a_clock_that_nobody_can_judge_is_left_out(rig: Examined) -> None:
    rig.facts["clock_synchronized"] = None
    assert rig.says("clock") is None


def test_a_reboot_names_the_packages_that_want_it_once(rig: Examined) -> None:
    rig.facts["reboot_required"] = True
    rig.write("run/reboot-required.pkgs", "linux-image-6.8.0-90-generic\nlibc6\nlibc6\n")
    message = "due since the upgrade of linux-image-6.8.0-90-generic, libc6"
    assert rig.says("reboot") == (Status.WARN, message, "sudo systemctl reboot, when nobody needs the host")


def test_a_driver_that_others_manage_need_not_be_held(rig: Examined) -> None:
    rig.declare(driver={"branch": "580", "minimum": "580.82.07", "managed": False})
    rig.facts["held"] = []
    assert rig.says("packages-held") is None
