"""What a host's GPU stack needs: from what the host is and what is wanted to what to do, or why not.

Pure: facts in (``llamarig.hardware.machine``), steps out. The roles carry the steps out, look again, and ask again;
they are done when nothing is left to do. So a run that broke off anywhere goes on from what it finds.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from llamarig.config.packages import DRIVER_PACKAGES, KERNEL_FLAVOUR
from llamarig.errors import Problem

TOOLKIT_PACKAGES: Final = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
DOCKER_COM_PACKAGES: Final = (
    "docker-ce",
    "docker-ce-cli",
    "containerd.io",
    "docker-buildx-plugin",
    "docker-compose-plugin",
)
# What Docker's own packages conflict with; never removed to make room.
_IN_DOCKERS_WAY: Final = (
    "docker.io",
    "docker-compose",
    "docker-compose-v2",
    "docker-buildx",
    "podman-docker",
    "containerd",
    "runc",
)
DOCKER_PACKAGES: Final = r"docker-.*|docker\.io|containerd(\.io)?|runc"
# Docker reads CDI specifications as the toolkit writes them since this version (toolkit 1.19.1 release notes).
_DOCKER_WITH_CDI: Final = "26.1"


@dataclass(frozen=True, slots=True)
class Packages:
    """What apt has to do for a role; ``hold`` are patterns of package names, matched in full."""

    install: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    hold: list[str] = field(default_factory=list)
    due: bool = False


@dataclass(frozen=True, slots=True)
class Driver:
    """What the driver needs; ``load`` and ``reboot`` follow the packages.

    ``reboot`` says why the driver needs one, ``pending`` why the host asks for one that the driver does not need.
    """

    packages: Packages = field(default_factory=Packages)
    load: bool = False
    reboot: str = ""
    pending: str = ""
    cdi_refresh: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything that a host's GPU stack needs. ``gpu`` is whether the host has NVIDIA cards at all."""

    gpu: bool
    driver: Driver
    docker: Packages
    toolkit: Packages
    archives: list[dict[str, Any]]
    keys: list[dict[str, str]]
    pins: list[dict[str, Any]]
    refresh_index: bool
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Case:
    """One decision: the host, its facts, and where problems and warnings go."""

    host: str
    facts: Mapping[str, Any]
    problems: list[Problem]
    warnings: list[str]
    maintain: bool = False

    @property
    def packages(self) -> Mapping[str, str]:
        installed: Mapping[str, str] = self.facts["packages"]
        return installed

    def refuse(self, key: str, message: str, remedy: str) -> None:
        self.problems.append(Problem(self.host, key, message, remedy))


def decide(
    host: str, facts: Mapping[str, Any], wanted: Mapping[str, Any], *, maintain: bool = False
) -> tuple[Stack, list[Problem]]:
    """Decide what a host needs; with ``maintain``, also what is there is brought to the newest that the pins allow.

    ``wanted`` has the declared ``gpus``, the ``platform`` (what is particular to the distribution), and the inputs of
    the roles as ``driver``, ``docker`` and ``toolkit``. Every problem is returned; with problems, nothing of the stack
    may be carried out.
    """
    case = _Case(host, facts, [], [], maintain)
    gpu = bool(facts["cards"])
    driver_wanted, docker_wanted = _completed(wanted)
    _cards(case, wanted["gpus"], driver_wanted)
    driver = _driver(case, driver_wanted) if gpu else Driver()
    docker = _docker(case, docker_wanted, gpu=gpu)
    toolkit = _toolkit(case, wanted["toolkit"]) if gpu else Packages()
    sources = _sources(case, driver_wanted, docker_wanted, wanted["toolkit"], gpu=gpu)
    archives = [{"path": item["path"], "template": "archive.sources.j2", "vars": {"archive": item}} for item in sources]
    keys = [
        {"path": item["key_path"], "url": item["key_url"], "fingerprint": item["key_fingerprint"]}
        for item in sources
        if item["key_path"] not in facts["apt_keys"]
    ]
    refresh = any(part.install for part in (driver.packages, docker, toolkit))
    pins = _pins(driver_wanted, docker_wanted, wanted["toolkit"], gpu=gpu)
    stack = Stack(gpu, driver, docker, toolkit, archives, keys, pins, refresh, case.warnings)
    return stack, case.problems


def _completed(wanted: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the wishes for driver and Docker, with what suits the distribution where the site said nothing."""
    platform = wanted["platform"]
    driver = dict(wanted["driver"])
    driver["provider"] = driver["provider"] or platform["driver_provider"]
    # None: this distribution has no archive of that provider, and the site names none.
    driver["repository"] = driver["repository"] or platform["driver_repositories"].get(driver["provider"])
    docker = {**wanted["docker"], "packages": platform["docker_packages"]}
    docker["source"] = docker["source"] or platform["docker_source"]
    docker["repository"] = docker["repository"] or platform["docker_repository"]
    return driver, docker


def _cards(case: _Case, declared: list[Mapping[str, Any]], driver: Mapping[str, Any]) -> None:
    found = {card["address"]: card for card in case.facts["cards"]}
    key = "host_hardware.gpus"
    for gpu in declared:
        address = gpu.get("pci_address")
        if address and address not in found:
            on_bus = ", ".join(found) or "no NVIDIA card"
            remedy = "look whether the card is seated and powered; if it moved or left: llamarig detect"
            case.refuse(key, f"{gpu['name']} is declared at {address}, on the bus is {on_bus}", remedy)
    if len(declared) > len(found) and not any(gpu.get("pci_address") for gpu in declared):
        remedy = "look whether every card is seated and powered; if one left: llamarig detect"
        case.refuse(key, f"declares {len(declared)} cards, on the PCI bus are {len(found)}", remedy)
    for card in found.values():
        if card["architecture"] == "older" and driver["managed"]:
            remedy = "take the card out, or leave the driver to you: nvidia_driver_managed: false"
            case.refuse(key, f"{card['name']} at {card['address']} is too old for the open kernel modules", remedy)
    if found and not declared:
        names = ", ".join(card["name"] for card in found.values())
        case.warnings.append(f"{case.host} has {names}, and declares none: llamarig detect writes what to declare")


def _driver(case: _Case, wanted: Mapping[str, Any]) -> Driver:
    state = case.facts["driver"]
    right = _driver_is_right(case, wanted)
    refresh = bool(right and ((case.facts["cdi"] or {}).get("driver") != state["loaded"]))
    if not wanted["managed"]:
        if not right:
            remedy = f"install driver {wanted['branch']} by your own means and reboot, or nvidia_driver_managed: true"
            case.refuse("nvidia_driver_managed", f"is false, and {_driver_fault(state, wanted)}", remedy)
        return Driver(cdi_refresh=refresh)
    pending = "packages were upgraded that need it" if case.facts["reboot_required"] else ""
    if right:
        hold = [DRIVER_PACKAGES, *_kernel_metapackages(case)]
        packages = _held(case, install=_installed(case, hold) if case.maintain else [], hold=hold)
        return Driver(packages, pending=pending, cdi_refresh=refresh)
    foreign = _foreign_driver(case, wanted)
    install = [] if _next_boot_is_right(case, wanted) and not foreign else _driver_packages(case, wanted)
    packages = _held(
        case,
        install=install,
        remove=foreign,
        hold=[DRIVER_PACKAGES, *_kernel_metapackages(case)],
    )
    load = not install and state["on_disk"] is not None and state["loaded"] is None and not state["nouveau"]
    reboot = "" if install or load else _reboot_reason(case)
    return Driver(packages, load=load, reboot=reboot, pending=pending)


def _next_boot_is_right(case: _Case, wanted: Mapping[str, Any]) -> bool:
    """Tell whether the packages are as wanted, so that loading the module, or a reboot, is all that is missing."""
    state = case.facts["driver"]
    userspace, starts = state["userspace"], _kernel_of_next_boot(case)
    on_disk = state["on_disk"] or state["on_disk_by_kernel"].get(starts)
    return userspace is not None and on_disk == userspace and _accepts(userspace, wanted)


def _kernel_of_next_boot(case: _Case) -> str:
    """Return the newest kernel that has a driver, if newer than the running one: boot loaders start the newest."""
    running: str = case.facts["kernel"]
    newest: str = max(case.facts["driver"]["on_disk_by_kernel"], key=_release, default=running)
    return newest if _release(newest) > _release(running) else running


def _driver_is_right(case: _Case, wanted: Mapping[str, Any]) -> bool:
    """Tell whether the driver works as wanted, whoever installed it: such a host is left alone."""
    state = case.facts["driver"]
    loaded = state["loaded"]
    same = loaded is not None and state["userspace"] == loaded and state["on_disk"] == loaded
    needs_open = any(card["architecture"] == "Blackwell" for card in case.facts["cards"])
    return bool(same and _accepts(loaded, wanted) and (state["open"] or not needs_open))


def _accepts(version: str, wanted: Mapping[str, Any]) -> bool:
    is_branch = version.split(".", maxsplit=1)[0] == str(wanted["branch"])
    return is_branch and _numbers(version) >= _numbers(str(wanted["minimum"]))


def _driver_fault(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    said = {"loaded": "module loaded", "on_disk": "module on disk", "userspace": "user space"}
    parts = ", ".join(f"{words} {state[key] or 'none'}" for key, words in said.items())
    return f"the driver is not {wanted['branch']} at {wanted['minimum']} or later throughout ({parts})"


def _reboot_reason(case: _Case) -> str:
    state = case.facts["driver"]
    if state["nouveau"]:
        return "nouveau drives the cards until the next boot"
    starts = _kernel_of_next_boot(case)
    if state["on_disk"] is None:
        return f"kernel {case.facts['kernel']} runs and has no driver, {starts} has it and starts at the next boot"
    if state["loaded"] != state["on_disk"]:
        return f"the module {state['loaded']} is loaded, {state['on_disk']} is installed"
    return ""


def _foreign_driver(case: _Case, wanted: Mapping[str, Any]) -> list[str]:
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
    driver = [name for name in case.packages if re.fullmatch(DRIVER_PACKAGES, name)]
    branches = {found.group(1) for name in driver if (found := re.search(r"-(\d{3})(?:-|$)", name))}
    others = sorted(branches - {branch})
    foreign = [name for name in driver if any(re.search(rf"-{other}(-|$)", name) for other in others)]
    if others and not wanted["replace"]:
        case.refuse(
            key,
            f"driver {', '.join(others)} is installed ({len(foreign)} packages), wanted is {branch}",
            "-e nvidia_driver_replace=true removes it, installs the wanted one and reboots; "
            "or keep it: nvidia_driver_managed: false",
        )
    if case.facts["secure_boot"] and wanted["provider"] == "nvidia":
        case.refuse(
            "nvidia_driver_provider",
            "is nvidia, whose modules are built on the host and signed by nobody, and Secure Boot is on",
            "nvidia_driver_provider: ubuntu (signed by Canonical), or turn Secure Boot off in the firmware",
        )
    if wanted["provider"] == "ubuntu":
        # A flavour has one modules package: the proprietary one, or the open one.
        foreign += [name for name in driver if name.startswith("linux-modules-nvidia-") and "-open" not in name]
    return sorted(set(foreign))


def _flavours(case: _Case) -> list[str]:
    """Return the kernel flavours that the host follows, from its metapackages; not from the kernel that runs."""
    found = (re.fullmatch(KERNEL_FLAVOUR, name) for name in sorted(case.packages))
    return [match.group(1) for match in found if match]


def _kernel_metapackages(case: _Case) -> list[str]:
    names = "|".join(re.escape(flavour) for flavour in _flavours(case))
    return [rf"linux-(image-|headers-)?({names})"] if names else []


def _driver_packages(case: _Case, wanted: Mapping[str, Any]) -> list[str]:
    branch, flavours = wanted["branch"], _flavours(case)
    if wanted["repository"] is None:
        case.refuse(
            "nvidia_driver_repository",
            f"names no archive, and llamarig knows none of {wanted['provider']} for this distribution",
            "name the archive with its key, or install the driver by your own means: nvidia_driver_managed: false",
        )
    if wanted["provider"] == "nvidia":
        headers = [f"linux-headers-{flavour}" for flavour in flavours] or [f"linux-headers-{case.facts['kernel']}"]
        return [f"nvidia-driver-pinning-{branch}", *headers, f"nvidia-driver-{branch}-open"]
    if not flavours:
        case.refuse(
            "nvidia_driver_provider",
            f"is ubuntu, and no kernel metapackage is installed: kernel {case.facts['kernel']} is nobody's to follow",
            "apt-get install linux-generic; for a kernel of your own: nvidia_driver_provider: nvidia",
        )
    packages = [
        *(f"linux-modules-nvidia-{branch}-server-open-{flavour}" for flavour in flavours),
        f"nvidia-headless-no-dkms-{branch}-server-open",
        f"nvidia-utils-{branch}-server",
    ]
    if case.facts["driver"]["on_disk"] is None and all(name in case.packages for name in packages):
        # The metapackages follow another kernel than the one that runs: its own modules are asked for by name.
        packages.insert(0, f"linux-modules-nvidia-{branch}-server-open-{case.facts['kernel']}")
    # What is there of the user space is named too: half of an upgrade comes to the version of the other half.
    return packages + [
        name
        for name in sorted(case.packages)
        if name not in packages and re.fullmatch(rf"(lib)?nvidia-.*-{branch}-server(-open)?", name)
    ]


def _installed(case: _Case, patterns: list[str]) -> list[str]:
    return [name for name in sorted(case.packages) if any(re.fullmatch(item, name) for item in patterns)]


def _docker(case: _Case, wanted: Mapping[str, Any], *, gpu: bool) -> Packages:
    packages = case.packages
    names = list(DOCKER_COM_PACKAGES if wanted["source"] == "docker.com" else wanted["packages"])
    theirs = "docker-ce" if wanted["source"] == "distribution" else "docker.io"
    if case.facts["snap_docker"]:
        remedy = "sudo snap remove docker (images and volumes go with it), and run again"
        case.refuse("docker", "is installed as a snap, which cannot be given GPUs or a daemon.json", remedy)
    if theirs in packages:
        return _docker_of_others(case, wanted, theirs, gpu=gpu)
    if wanted["source"] == "docker.com" and "docker-ce" not in packages:
        in_the_way = [name for name in _IN_DOCKERS_WAY if name in packages]
        if in_the_way:
            case.refuse(
                "docker_engine_source",
                f"is docker.com, and {', '.join(in_the_way)} of the distribution would have to go",
                f"apt-get remove {' '.join(in_the_way)}, or docker_engine_source: distribution",
            )
    missing = [name for name in names if name not in packages]
    pin = wanted["version"] if wanted["source"] == "docker.com" else ""
    pinned = ["docker-ce", "docker-ce-cli"] if pin else []
    strayed = [name for name in pinned if not fnmatch.fnmatch(packages.get(name, ""), pin)]
    wanted_now = names if case.maintain else {*missing, *strayed}
    install = [f"{name}={pin}" if name in pinned else name for name in sorted(wanted_now)]
    return _held(case, install=install, hold=[DOCKER_PACKAGES])


def _docker_of_others(case: _Case, wanted: Mapping[str, Any], name: str, *, gpu: bool) -> Packages:
    """Judge a Docker from the source that was not asked for: it stays where it can do the work."""
    version = _upstream(case.packages[name])
    case.warnings.append(
        f"{case.host} keeps its {name} {version}: docker_engine_source is {wanted['source']}, and nothing is removed"
    )
    if gpu and _numbers(version) < _numbers(_DOCKER_WITH_CDI):
        case.refuse(
            "docker",
            f"{name} {version} is installed, giving GPUs to containers by CDI needs {_DOCKER_WITH_CDI}",
            f"upgrade it, or stop its containers, apt-get remove {name}, and run again",
        )
    compose = {"docker-ce": ["docker-compose-plugin"], "docker.io": wanted["packages"]}[name]
    install = [item for item in compose if item not in case.packages]
    if case.maintain:
        install += _installed(case, [DOCKER_PACKAGES])
    return _held(case, install=install, hold=[DOCKER_PACKAGES])


def _toolkit(case: _Case, wanted: Mapping[str, Any]) -> Packages:
    pin, minimum = str(wanted["version"]), str(wanted["minimum"])
    if _numbers(_upstream(pin)) < _numbers(minimum):
        case.refuse(
            "nvidia_container_toolkit_version",
            f"is {pin}, versions before {minimum} let a container become root on the host (CVE-2025-23266 and later)",
            f"pin {minimum}-1 or later",
        )
    installed = {name: case.packages[name] for name in TOOLKIT_PACKAGES if name in case.packages}
    if not wanted["managed"]:
        old = [name for name, version in installed.items() if _numbers(_upstream(version)) < _numbers(minimum)]
        if old or "nvidia-container-toolkit-base" not in installed:
            said = f"{old[0]} is {installed[old[0]]}" if old else "nvidia-container-toolkit-base is not installed"
            remedy = f"bring {minimum} or later by your own means, or nvidia_container_toolkit_managed: true"
            case.refuse("nvidia_container_toolkit_managed", f"is false, and {said}", remedy)
        return Packages()
    wrong = [name for name in TOOLKIT_PACKAGES if installed.get(name) != pin]
    # Each of them demands the others at its own version: they move together or not at all.
    install = [f"{name}={pin}" for name in TOOLKIT_PACKAGES] if wrong else []
    return _held(case, install=install, hold=[re.escape(name) for name in TOOLKIT_PACKAGES])


def _held(
    case: _Case,
    *,
    install: list[str] | None = None,
    remove: list[str] | None = None,
    hold: list[str],
) -> Packages:
    """Complete what apt has to do: something is due also where a package is there and not held."""
    held = set(case.facts["held"])
    loose = [name for name in case.packages if name not in held and any(re.fullmatch(item, name) for item in hold)]
    return Packages(
        install or [], remove or [], hold, due=bool(install or remove or loose or case.facts["interrupted"])
    )


def _sources(
    case: _Case, driver: Mapping[str, Any], docker: Mapping[str, Any], toolkit: Mapping[str, Any], *, gpu: bool
) -> list[dict[str, Any]]:
    """Return the package sources that are needed, without those that the host names already in files of its own."""
    repositories = []
    if docker["source"] == "docker.com" and "docker.io" not in case.packages:
        repositories.append(docker["repository"])
    if gpu and driver["managed"]:
        repositories.append(driver["repository"])
    if gpu and toolkit["managed"]:
        repositories.append(toolkit["repository"])
    result = []
    for repository in repositories:
        if not repository:
            continue  # the distribution's own archive
        uri = repository["uri"].rstrip("/")
        named = [path for path, uris in case.facts["apt_sources"].items() if uri in uris and "/llamarig-" not in path]
        if named:
            case.warnings.append(f"{case.host} has {uri} in {named[0]}, which is left as it is")
            continue
        # Named by its fingerprint: a key that is there is the right one.
        key = f"/etc/apt/keyrings/llamarig-{repository['name']}-{repository['key_fingerprint'][-8:].lower()}.asc"
        path = f"/etc/apt/sources.list.d/llamarig-{repository['name']}.sources"
        result.append({"components": "", **repository, "key_path": key, "path": path})
    return result


def _pins(
    driver: Mapping[str, Any], docker: Mapping[str, Any], toolkit: Mapping[str, Any], *, gpu: bool
) -> list[dict[str, Any]]:
    """Return apt preferences (apt_preferences(5)), so that an apt-get by hand keeps to what is pinned here."""
    pins = []
    if docker["source"] == "docker.com" and docker["version"]:
        pins.append({"packages": "docker-ce docker-ce-cli", "pin": f"version {docker['version']}", "priority": 990})
    if gpu and driver["managed"] and driver["provider"] == "ubuntu":
        # NVIDIA's archive carries packages of the same names, which must not be mixed with Ubuntu's.
        pins.append({"packages": "*nvidia*", "pin": "origin developer.download.nvidia.com", "priority": 100})
    if gpu and toolkit["managed"]:
        names = " ".join(TOOLKIT_PACKAGES)
        pins.append({"packages": names, "pin": f"version {toolkit['version']}", "priority": 990})
    return pins


def _upstream(version: str) -> str:
    """Return the upstream part of a Debian version: without epoch and revision."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return found.group(1) if found else "0"


def _release(kernel: str) -> tuple[int, ...]:
    """Return the numbers of a kernel release, to compare by."""
    return tuple(int(part) for part in re.findall(r"\d+", kernel.split("-generic", maxsplit=1)[0]))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
