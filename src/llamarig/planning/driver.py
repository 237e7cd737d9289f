"""What a host's NVIDIA driver needs: nothing, packages, the module loaded, a reboot; or why it cannot be helped.

Three versions must agree: of the module that is loaded, of the module on disk for the kernel, and of the user space.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llamarig.config.packages import DRIVER_HELD, DRIVER_PACKAGES, KERNEL_FLAVOUR
from llamarig.planning.case import Case, Packages, held, installed, numbers


@dataclass(frozen=True, slots=True)
class Driver:
    """What the driver needs; ``load`` and ``reboot`` follow the packages.

    ``reboot`` says why the driver needs one, ``pending`` why the host asks for one that the driver does not need.
    ``nouveau`` drives the cards now, so the initial ramdisk must learn to leave it out.
    """

    packages: Packages = field(default_factory=Packages)
    load: bool = False
    reboot: str = ""
    pending: str = ""
    nouveau: bool = False
    cdi_refresh: bool = False


def decide_driver(case: Case, wanted: Mapping[str, Any]) -> Driver:
    """Decide what the driver needs on a host with cards; ``wanted`` has the inputs of the role nvidia_driver."""
    state = case.facts["driver"]
    right = _is_right(case, wanted)
    refresh = bool(right and ((case.facts["cdi"] or {}).get("driver") != state["loaded"]))
    if not wanted["managed"]:
        if not right:
            remedy = f"install driver {wanted['branch']} by your own means and reboot, or nvidia_driver_managed: true"
            case.refuse("nvidia_driver_managed", f"is false, and {_fault(state, wanted)}", remedy)
        return Driver(cdi_refresh=refresh)
    pending = "packages were upgraded that need it" if case.facts["reboot_required"] else ""
    hold = [DRIVER_HELD, *_kernel_metapackages(case)]
    if right:
        install = [*_modules_of_newest_kernel(case, wanted), *_maintained(case, wanted, hold)]
        packages = held(case, install=install, spare=_modules_by_kernel(case), hold=hold)
        return Driver(packages, pending=pending, cdi_refresh=refresh)
    nouveau = bool(state["nouveau"])
    if _next_boot_is_right(case, wanted):
        load = state["on_disk"] == state["userspace"] and state["loaded"] is None and not nouveau
        reboot = "" if load else _reboot_reason(case)
        return Driver(held(case, hold=hold), load=load, reboot=reboot, pending=pending, nouveau=nouveau)
    foreign = _foreign(case, wanted)
    names = [name for name in _packages(case, wanted) if name not in foreign]
    packages = held(case, install=names, remove=foreign, spare=_modules_by_kernel(case), hold=hold)
    if state["loaded"] is not None and not wanted["reboot"]:
        case.refuse(
            "nvidia_driver_reboot",
            f"is false, and the driver cannot be changed under the module {state['loaded']} that is loaded",
            "-e nvidia_driver_reboot=true, when what serves on the host may be interrupted",
        )
    return Driver(packages, pending=pending, nouveau=nouveau)


def _maintained(case: Case, wanted: Mapping[str, Any], hold: list[str]) -> list[str]:
    """Return what maintenance brings to the newest: what is held, unless it is from another archive than the wanted."""
    if not case.maintain:
        return []
    library = next(iter(installed(case, [r"libnvidia-compute-\d+(-server)?"])), "")
    # Ubuntu's own versions say for which release they were made: 580.95.05-0ubuntu0.24.04.1; NVIDIA's end in ubuntu1.
    provider = "ubuntu" if "ubuntu0." in case.packages.get(library, "ubuntu0.") else "nvidia"
    if provider != wanted["provider"]:
        case.warnings.append(
            f"{case.host} has its driver from {provider} and not from {wanted['provider']} (nvidia_driver_provider): "
            "it is not moved"
        )
        return []
    return installed(case, hold)


def _is_right(case: Case, wanted: Mapping[str, Any]) -> bool:
    """Tell whether the driver works as wanted, whoever installed it: such a host is left alone."""
    state = case.facts["driver"]
    loaded = state["loaded"]
    same = loaded is not None and state["userspace"] == loaded and state["on_disk"] == loaded
    return bool(same and _accepts(loaded, wanted) and (state["loaded_open"] or not _needs_open(case)))


def _needs_open(case: Case) -> bool:
    """Tell whether a card works with the open kernel modules alone, as Blackwell does."""
    return any(card["architecture"] == "Blackwell" for card in case.facts["cards"])


def _accepts(version: str, wanted: Mapping[str, Any]) -> bool:
    is_branch = version.split(".", maxsplit=1)[0] == str(wanted["branch"])
    return is_branch and numbers(version) >= numbers(str(wanted["minimum"]))


def _fault(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    said = {"loaded": "module loaded", "on_disk": "module on disk", "userspace": "user space"}
    parts = ", ".join(f"{words} {state[key] or 'none'}" for key, words in said.items())
    closed = "" if state["loaded"] is None or state["loaded_open"] else ", proprietary"
    return f"the driver is not {wanted['branch']} at {wanted['minimum']} or later throughout ({parts}{closed})"


def _next_boot_is_right(case: Case, wanted: Mapping[str, Any]) -> bool:
    """Tell whether the packages are as wanted, so that loading the module, or a reboot, is all that is missing."""
    state = case.facts["driver"]
    starts = _kernel_of_next_boot(case)
    same_kernel = starts == case.facts["kernel"]
    on_disk = state["on_disk"] if same_kernel else state["on_disk_by_kernel"][starts]
    is_open = state["open"] if same_kernel else not _proprietary(case, wanted)
    agree = on_disk is not None and on_disk == state["userspace"] and _accepts(on_disk, wanted)
    return bool(agree and (is_open or not _needs_open(case)))


def _kernel_of_next_boot(case: Case) -> str:
    """Return the newest kernel that has a driver, if newer than the running one: boot loaders start the newest."""
    running: str = case.facts["kernel"]
    newest: str = max(case.facts["driver"]["on_disk_by_kernel"], key=_release, default=running)
    return newest if _release(newest) > _release(running) else running


def _reboot_reason(case: Case) -> str:
    state, running, starts = case.facts["driver"], case.facts["kernel"], _kernel_of_next_boot(case)
    if state["nouveau"]:
        return "nouveau drives the cards until the next boot"
    if starts != running:
        has = f"driver {state['on_disk']}" if state["on_disk"] else "no driver"
        return f"kernel {running} runs with {has}, and {starts} starts at the next boot with {state['userspace']}"
    if state["loaded"] != state["on_disk"]:
        return f"the module {state['loaded']} is loaded, {state['on_disk']} is installed"
    return "the proprietary module is loaded, the open one is installed"


def _foreign(case: Case, wanted: Mapping[str, Any]) -> list[str]:
    """Return packages that must go before the wanted driver can come; refuse what is not ours to remove."""
    state = case.facts["driver"]
    branch = str(wanted["branch"])
    key = "nvidia_driver"
    if state["run_file"]:
        case.refuse(
            key,
            "the driver was installed by NVIDIA's .run file, which no package manager knows",
            "sudo nvidia-uninstall, reboot, run again; or keep it: nvidia_driver_managed: false",
        )
    if case.facts["secure_boot"] and wanted["provider"] == "nvidia":
        case.refuse(
            "nvidia_driver_provider",
            "is nvidia, whose modules are built on the host and signed by nobody, and Secure Boot is on",
            "nvidia_driver_provider: ubuntu (signed by Canonical), or turn Secure Boot off in the firmware",
        )
    of_branch = {name: _branch(name, case.packages[name]) for name in installed(case, [DRIVER_PACKAGES])}
    foreign = [name for name, found in of_branch.items() if found not in {None, branch}]
    if foreign and not wanted["replace"]:
        others = ", ".join(sorted({str(of_branch[name]) for name in foreign}))
        case.refuse(
            key,
            f"driver {others} is installed ({len(foreign)} packages), wanted is {branch}",
            "-e nvidia_driver_replace=true -e nvidia_driver_reboot=true puts the wanted one in its place; "
            "or keep it: nvidia_driver_managed: false",
        )
    closed = _proprietary(case, wanted)
    if closed and not wanted["replace"]:
        case.refuse(
            key,
            f"the proprietary modules are installed ({', '.join(closed)}), and the driver is not right",
            "-e nvidia_driver_replace=true -e nvidia_driver_reboot=true takes the open ones instead; "
            "or keep them: nvidia_driver_managed: false",
        )
    return sorted({*foreign, *closed})


def _branch(name: str, version: str) -> str | None:
    """Return the branch of a driver's package, from its name, else from its version; from 590 on names have none."""
    stem = r"(?:xserver-xorg-video-)?(?:lib)?nvidia(?:-[a-z][a-z0-9]*)*|linux-(?:modules|objects)-nvidia"
    found = re.match(rf"(?:{stem})-(\d{{3}})(?:-|$)", name) or re.match(r"(?:\d+:)?(\d{3})\.", version)
    return found.group(1) if found else None


def _proprietary(case: Case, wanted: Mapping[str, Any]) -> list[str]:
    """Return the installed packages that bring or demand proprietary modules of the wanted branch."""
    parts = r"linux-(modules|objects)-nvidia|nvidia-(dkms|kernel-source|headless(-no-dkms)?|driver)"
    return [name for name in installed(case, [rf"({parts})-{wanted['branch']}(-.*)?"]) if "-open" not in name]


def _flavours(case: Case) -> list[str]:
    """Return the kernel flavours that the host follows, from its metapackages; not from the kernel that runs."""
    found = (re.fullmatch(KERNEL_FLAVOUR, name) for name in sorted(case.packages))
    return [match.group(1) for match in found if match]


def _kernel_metapackages(case: Case) -> list[str]:
    names = "|".join(re.escape(flavour) for flavour in _flavours(case))
    return [rf"linux-(image-|headers-)?({names})"] if names else []


def _series(case: Case, wanted: Mapping[str, Any]) -> str:
    """Return branch and series as names of packages say them: for servers, unless the desktop's are there."""
    branch = str(wanted["branch"])
    return branch if f"libnvidia-compute-{branch}" in case.packages else f"{branch}-server"


def _packages(case: Case, wanted: Mapping[str, Any]) -> list[str]:
    """Return the packages to install, by name; what is there of them is brought to the newest, all to one version."""
    flavours = _flavours(case)
    if wanted["repository"] is None:
        case.refuse(
            "nvidia_driver_repository",
            f"names no archive, and llamarig knows none of {wanted['provider']} for this distribution",
            "name the archive with its key, or install the driver by your own means: nvidia_driver_managed: false",
        )
    if wanted["provider"] == "nvidia":
        names, series = _packages_of_nvidia(case, flavours, wanted), str(wanted["branch"])
    else:
        names, series = _packages_of_ubuntu(case, flavours, wanted), _series(case, wanted)
    # What is there of the user space is named too: half of an upgrade comes to the version of the other half.
    there = installed(case, [rf"(lib)?nvidia-.*-{series}(-open)?"])
    return [*names, *(name for name in there if name not in names)]


def _packages_of_nvidia(case: Case, flavours: list[str], wanted: Mapping[str, Any]) -> list[str]:
    branch = wanted["branch"]
    headers = [f"linux-headers-{flavour}" for flavour in flavours] or [f"linux-headers-{case.facts['kernel']}"]
    return [f"nvidia-driver-pinning-{branch}", *headers, f"nvidia-driver-{branch}-open"]


def _packages_of_ubuntu(case: Case, flavours: list[str], wanted: Mapping[str, Any]) -> list[str]:
    if not flavours:
        case.refuse(
            "nvidia_driver_provider",
            f"is ubuntu, and no kernel metapackage is installed: kernel {case.facts['kernel']} is nobody's to follow",
            "apt-get install linux-generic; for a kernel of your own: nvidia_driver_provider: nvidia",
        )
    series = _series(case, wanted)
    names = [f"nvidia-headless-no-dkms-{series}-open", f"nvidia-utils-{series}"]
    if f"nvidia-dkms-{series}-open" in case.packages:
        return names  # modules are built on this host, for every kernel
    # linux-virtual is the generic kernel with fewer modules; drivers are made for the generic one.
    kernels = dict.fromkeys(flavour.replace("virtual", "generic") for flavour in flavours)
    names = [*(f"linux-modules-nvidia-{series}-open-{flavour}" for flavour in kernels), *names]
    if case.facts["driver"]["on_disk"] is None and all(name in case.packages for name in names):
        # The metapackages follow another kernel than the one that runs: its own modules are asked for by name.
        names.insert(0, f"linux-modules-nvidia-{series}-open-{case.facts['kernel']}")
    # The modules bring the newest kernel along, and only these bring all of it, drivers of network cards too.
    return [*names, *installed(case, _kernel_metapackages(case))]


def _modules_of_newest_kernel(case: Case, wanted: Mapping[str, Any]) -> list[str]:
    """Return the modules package of a kernel that is installed, will start at the next boot, and has no driver."""
    kernels = case.facts["kernels"]
    newest = max(kernels, key=_release, default=case.facts["kernel"])
    series = _series(case, wanted)
    by_ubuntu = any(name.startswith(f"linux-modules-nvidia-{series}-open-") for name in case.packages)
    waiting = (
        _release(newest) > _release(case.facts["kernel"]) and newest not in case.facts["driver"]["on_disk_by_kernel"]
    )
    ubuntus = any(
        newest.endswith(f"-{flavour.split('-', maxsplit=1)[0].replace('virtual', 'generic')}")
        for flavour in _flavours(case)
    )
    if not (waiting and by_ubuntu and ubuntus):
        return []
    has_extra = f"linux-modules-extra-{case.facts['kernel']}" in case.packages
    extra = [f"linux-modules-extra-{newest}"] if has_extra else []
    return [f"linux-modules-nvidia-{series}-open-{newest}", *extra]


def _modules_by_kernel(case: Case) -> list[str]:
    """Return the modules packages of single kernels: one that its archive builds no more may go."""
    return installed(case, [r"linux-(modules|objects|signatures)-nvidia-.*\d+\.\d+\.\d+-.*"])


def _release(kernel: str) -> tuple[int, ...]:
    """Return the numbers of a kernel release, to compare by."""
    return tuple(int(part) for part in re.findall(r"\d+", kernel.split("-generic", maxsplit=1)[0]))
