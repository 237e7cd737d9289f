"""Checks of the machine itself, below any service and any card."""

from __future__ import annotations

from llamarig.checks.box import Box
from llamarig.checks.result import CheckResult, fail, ok, warn


def check_memory(box: Box) -> CheckResult | None:
    """The host has the memory that its services were planned with."""
    declared, found = box.declared.memory_mib, box.facts["memory_mib"]
    if declared is None or found is None:
        return None
    if found < declared:
        return fail(
            "memory",
            f"{found} MiB, declared are {declared} MiB",
            "reseat the memory modules, or correct host_hardware.memory_mib in host_vars and run playbooks/site.yml",
        )
    return ok("memory", f"{found} MiB, declared are {declared} MiB")


def check_clock(box: Box) -> CheckResult | None:
    """A time service keeps the clock right."""
    synchronized = box.facts["clock_synchronized"]
    if synchronized is None:
        return None
    if not synchronized:
        return warn(
            "clock",
            "no time service keeps it right: logs and metrics will lie",
            "sudo timedatectl set-ntp true; where there is no time service, install systemd-timesyncd",
        )
    return ok("clock", "synchronized")


def check_reboot(box: Box) -> CheckResult:
    """No package waits for a reboot."""
    if not box.facts["reboot_required"]:
        return ok("reboot", "none is due")
    try:
        names = (box.root / "run/reboot-required.pkgs").read_text(encoding="utf-8").split()
    except OSError:
        names = []
    packages = ", ".join(dict.fromkeys(names)) or "a package that does not say its name"
    return warn("reboot", f"due since the upgrade of {packages}", "sudo systemctl reboot, when nobody needs the host")
