"""Checks of the driver: firmware, kernel module, user space, packages. Left out where no card is declared."""

from __future__ import annotations

import re
from typing import Final

from llamarig.checks.box import Box
from llamarig.checks.result import CheckResult, fail, ok, warn
from llamarig.config.packages import DRIVER_HELD, KERNEL_FLAVOUR

_SITE: Final = "run playbooks/site.yml for this host"
_REBOOT: Final = "sudo systemctl reboot"
_CANONICAL: Final = "Canonical"


def check_secure_boot(box: Box) -> CheckResult | None:
    """The firmware lets the driver's module in."""
    if not box.declared.cards:
        return None
    enabled = box.facts["secure_boot"]
    if enabled is None:
        return warn("secure-boot", "the firmware does not say whether it is enabled", "mokutil --sb-state")
    if not enabled:
        return ok("secure-boot", "not enabled")
    return _signature(box)


def _signature(box: Box) -> CheckResult:
    """Say who signed the module, under an enabled Secure Boot."""
    driver, kernel = box.facts["driver"], box.facts["kernel"]
    signer = driver["signer"]
    if driver["on_disk"] is None:
        return ok("secure-boot", "enabled")
    if driver["loaded"] == driver["on_disk"]:
        return ok("secure-boot", f"enabled; the kernel let in the module nvidia, signed by {signer or 'nobody'}")
    if signer is None:
        return fail(
            "secure-boot",
            f"enabled, and nobody signed the module nvidia of kernel {kernel}: the kernel refuses it",
            f"{_SITE}: Ubuntu's modules are signed; or turn Secure Boot off in the firmware",
        )
    if _CANONICAL not in signer:
        return fail(
            "secure-boot",
            f"enabled, and the module nvidia is signed by {signer}, whose key the firmware may not know",
            "sudo mokutil --import /var/lib/shim-signed/mok/MOK.der, then reboot and enrol the key at the console",
        )
    return ok("secure-boot", f"enabled; the module nvidia is signed by {signer}")


def check_driver(box: Box) -> CheckResult | None:
    """The driver is loaded, is the declared one, and is one version throughout."""
    if not box.declared.cards:
        return None
    return _not_loaded(box) or _torn(box) or _not_declared(box) or _odd(box) or ok("driver", _said(box))


def _not_loaded(box: Box) -> CheckResult | None:
    driver, kernel = box.facts["driver"], box.facts["kernel"]
    if driver["loaded"] is not None:
        return None
    if driver["nouveau"]:
        return fail("driver", "nouveau drives the cards", f"{_SITE}, then {_REBOOT}")
    if driver["on_disk"] is None:
        branch = box.declared.driver_branch
        package = f"linux-modules-nvidia-{branch}-server-open-{kernel}"
        return fail("driver", f"kernel {kernel} has no nvidia module", f"{_SITE}: it installs {package}")
    return fail(
        "driver",
        f"the module {driver['on_disk']} is there and not loaded",
        "sudo modprobe nvidia; where that fails, journalctl --dmesg --grep NVRM says why",
    )


def _torn(box: Box) -> CheckResult | None:
    """Different versions at once: what an upgrade leaves until the reboot."""
    driver = box.facts["driver"]
    loaded, on_disk, userspace = driver["loaded"], driver["on_disk"], driver["userspace"]
    if userspace is None:
        return fail("driver", f"the module {loaded} is loaded, and its user space is not installed", _SITE)
    if userspace == loaded == on_disk:
        return None
    versions = f"user space {userspace}, module loaded {loaded}, on disk {on_disk or 'none'}"
    if userspace != loaded:
        remedy = _REBOOT if on_disk == userspace else f"{_SITE}, then {_REBOOT}"
        return fail("driver", f"{versions}: no new container gets a card (NVML 18)", remedy)
    return warn("driver", f"{versions}: after the next reboot they do not fit", _SITE)


def _not_declared(box: Box) -> CheckResult | None:
    loaded, branch, minimum = box.facts["driver"]["loaded"], box.declared.driver_branch, box.declared.driver_minimum
    if branch is not None and loaded.split(".")[0] != branch:
        return fail("driver", f"{loaded} is loaded, declared is branch {branch}", f"{_SITE}, then {_REBOOT}")
    if minimum is not None and _numbers(loaded) < _numbers(minimum):
        return fail("driver", f"{loaded} is loaded, needed is {minimum} or later", f"{_SITE}, then {_REBOOT}")
    blackwell = [card["name"] for card in box.facts["cards"] if card["architecture"] == "Blackwell"]
    if blackwell and box.facts["driver"]["open"] is False:
        return fail(
            "driver", f"{blackwell[0]} needs the open kernel modules, these are not", f"{_SITE}, then {_REBOOT}"
        )
    return None


def _odd(box: Box) -> CheckResult | None:
    if box.facts["driver"]["run_file"]:
        return warn(
            "driver",
            f"{_said(box)}, by NVIDIA's .run file: no package manager knows it, a new kernel has no module",
            f"sudo nvidia-uninstall, then {_SITE}",
        )
    return None


def _said(box: Box) -> str:
    driver = box.facts["driver"]
    kind = {True: ", open kernel modules", False: ", proprietary kernel modules"}.get(driver["open"], "")
    return f"{driver['loaded']}{kind}"


def check_packages_held(box: Box) -> CheckResult | None:
    """Only playbooks/site.yml moves kernel and driver, and both together."""
    name = "packages-held"
    if not box.declared.cards or not box.declared.driver_managed:
        return None
    flavours = "|".join(
        re.escape(found[1]) for item in box.facts["packages"] if (found := re.fullmatch(KERNEL_FLAVOUR, item))
    )
    patterns = [DRIVER_HELD, *([rf"linux-(image-|headers-)?({flavours})"] if flavours else [])]
    movers = [item for item in box.facts["packages"] if any(re.fullmatch(pattern, item) for pattern in patterns)]
    loose = sorted(set(movers) - set(box.facts["held"]))
    if not loose:
        return ok(name, f"{len(movers)} packages of kernel and driver")
    if len(loose) == len(movers):
        message = "no package of kernel and driver is: an upgrade can take the driver from under a running engine"
    else:
        message = f"{', '.join(loose)} can move while the others are held: the driver would come apart"
    return warn(name, message, f"{_SITE}: it holds them")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
