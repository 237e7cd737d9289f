"""What a host's GPU stack needs: from what the host is and what is wanted to what to do, or why not.

Pure: facts in (``llamarig.hardware.machine``), steps out. The roles carry the steps out, look again, and ask again;
they are done when nothing is left to do. So a run that broke off anywhere goes on from what it finds.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from llamarig.errors import Problem
from llamarig.planning.case import Case, Packages, held, installed, numbers, upstream
from llamarig.planning.driver import Driver, decide_driver

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
# What unattended-upgrades leaves alone, by the beginnings of names; playbooks/maintain.yml moves it.
_NEVER_UPGRADED: Final = ("docker", "containerd", "runc", "nvidia-container", "libnvidia-container")
_NEVER_UPGRADED_DRIVER: Final = (
    "nvidia-",
    "libnvidia-",
    "linux-modules-nvidia-",
    "linux-(image-|headers-)?(generic|lowlatency|virtual|nvidia|oem)",
)
# Docker reads CDI specifications as the toolkit writes them since this version (toolkit 1.19.1 release notes).
_DOCKER_WITH_CDI: Final = "26.1"


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
    never_upgraded: list[str]
    refresh_index: bool
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def decide(
    host: str, facts: Mapping[str, Any], wanted: Mapping[str, Any], *, maintain: bool = False
) -> tuple[Stack, list[Problem]]:
    """Decide what a host needs; with ``maintain``, also what is there is brought to the newest that the pins allow.

    ``wanted`` has the declared ``gpus``, the ``platform`` (what is particular to the distribution), and the inputs of
    the roles as ``driver``, ``docker`` and ``toolkit``. Every problem is returned; with problems, nothing of the stack
    may be carried out.
    """
    case = Case(host, facts, [], [], maintain)
    gpu = bool(facts["cards"])
    driver_wanted, docker_wanted = _completed(wanted)
    _cards(case, wanted["gpus"], driver_wanted)
    driver = decide_driver(case, driver_wanted) if gpu else Driver()
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
    moved = [*_NEVER_UPGRADED, *(_NEVER_UPGRADED_DRIVER if gpu and driver_wanted["managed"] else ())]
    stack = Stack(gpu, driver, docker, toolkit, archives, keys, pins, moved, refresh, case.warnings)
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


def _cards(case: Case, declared: list[Mapping[str, Any]], driver: Mapping[str, Any]) -> None:
    found = {card["address"]: card for card in case.facts["cards"]}
    key = "host_hardware.gpus"
    for gpu in declared:
        address = gpu.get("pci_address")
        if address and address not in found:
            on_bus = ", ".join(found) or "no NVIDIA card"
            remedy = "look whether the card is seated and powered; if it moved or left: llamarig detect"
            case.refuse(key, f"{gpu['name']} is declared at {address}, on the bus is {on_bus}", remedy)
    if len(declared) > len(found) and all(gpu.get("pci_address") in {None, *found} for gpu in declared):
        remedy = "look whether every card is seated and powered; if one left: llamarig detect"
        case.refuse(key, f"declares {len(declared)} cards, on the PCI bus are {len(found)}", remedy)
    older = [f"{card['name']} at {card['address']}" for card in found.values() if card["architecture"] == "older"]
    if older and len(older) == len(found) and driver["managed"]:
        remedy = "leave the driver to you: nvidia_driver_managed: false"
        case.refuse(key, f"{', '.join(older)}: too old for the open kernel modules", remedy)
    elif older:
        case.warnings.append(f"{case.host} has {', '.join(older)}, too old for the open kernel modules: it is not used")
    if found and not declared:
        names = ", ".join(card["name"] for card in found.values())
        case.warnings.append(f"{case.host} has {names}, and declares none: llamarig detect writes what to declare")


def _docker(case: Case, wanted: Mapping[str, Any], *, gpu: bool) -> Packages:
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
    _daemon_json(case, wanted["options"])
    main = "docker-ce" if wanted["source"] == "docker.com" else "docker.io"
    missing = [name for name in names if name not in packages]
    pin = wanted["version"] if wanted["source"] == "docker.com" else ""
    pinned = ["docker-ce", "docker-ce-cli"] if pin else []
    strayed = [name for name in pinned if not fnmatch.fnmatch(packages.get(name, ""), pin)]
    newer = [name for name in strayed if numbers(packages.get(name, "")) > numbers(pin)]
    if newer:
        case.refuse(
            "docker_engine_version",
            f"is {pin}, and {newer[0]} {packages[newer[0]]} is installed: Docker does not go back with what it keeps",
            "raise the pin in group_vars/all/versions.yml, or downgrade by hand",
        )
    wanted_now = names if case.maintain else {*missing, *strayed}
    install = [f"{name}={pin}" if name in pinned else name for name in sorted(wanted_now)]
    if gpu and main in packages and not any(name.startswith(main) for name in install):
        _refuse_without_cdi(case, main, "move it: playbooks/maintain.yml; or take docker_engine_source: docker.com")
    return held(case, install=install, hold=[DOCKER_PACKAGES])


def _daemon_json(case: Case, options: Mapping[str, Any]) -> None:
    """Refuse to replace a daemon.json that somebody wrote, where that would take options away."""
    lost = sorted(set(case.facts["docker_options"] or {}) - set(options))
    if lost:
        case.refuse(
            "docker_engine_daemon_options",
            f"lacks {', '.join(lost)}, which /etc/docker/daemon.json has; that file becomes llamarig's",
            "add them there, or take them out of the file",
        )


def _refuse_without_cdi(case: Case, name: str, remedy: str) -> None:
    version = upstream(case.packages[name])
    if numbers(version) < numbers(_DOCKER_WITH_CDI):
        case.refuse(
            "docker",
            f"{name} {version} is installed, giving GPUs to containers by CDI needs {_DOCKER_WITH_CDI}",
            remedy,
        )


def _docker_of_others(case: Case, wanted: Mapping[str, Any], name: str, *, gpu: bool) -> Packages:
    """Judge a Docker from the source that was not asked for: it stays where it can do the work."""
    _daemon_json(case, wanted["options"])
    version = upstream(case.packages[name])
    case.warnings.append(
        f"{case.host} keeps its {name} {version}: docker_engine_source is {wanted['source']}, and nothing is removed"
    )
    if gpu and not case.maintain:
        _refuse_without_cdi(case, name, f"upgrade it, or stop its containers, apt-get remove {name}, and run again")
    compose = {"docker-ce": ["docker-compose-plugin"], "docker.io": wanted["packages"]}[name]
    install = [item for item in compose if item not in case.packages]
    if case.maintain:
        install += installed(case, [DOCKER_PACKAGES])
    return held(case, install=install, hold=[DOCKER_PACKAGES])


def _toolkit(case: Case, wanted: Mapping[str, Any]) -> Packages:
    pin, minimum = str(wanted["version"]), str(wanted["minimum"])
    if numbers(pin) < numbers(minimum):
        case.refuse(
            "nvidia_container_toolkit_version",
            f"is {pin}, versions before {minimum} let a container become root on the host (CVE-2025-23266 and later)",
            f"pin {minimum}-1 or later",
        )
    installed = {name: case.packages[name] for name in TOOLKIT_PACKAGES if name in case.packages}
    if not wanted["managed"]:
        old = [name for name, version in installed.items() if numbers(version) < numbers(minimum)]
        if old or "nvidia-container-toolkit-base" not in installed:
            said = f"{old[0]} is {installed[old[0]]}" if old else "nvidia-container-toolkit-base is not installed"
            remedy = f"bring {minimum} or later by your own means, or nvidia_container_toolkit_managed: true"
            case.refuse("nvidia_container_toolkit_managed", f"is false, and {said}", remedy)
        return Packages()
    wrong = [name for name in TOOLKIT_PACKAGES if installed.get(name) != pin]
    # Each of them demands the others at its own version: they move together or not at all.
    install = [f"{name}={pin}" for name in TOOLKIT_PACKAGES] if wrong else []
    return held(case, install=install, hold=[re.escape(name) for name in TOOLKIT_PACKAGES])


def _sources(
    case: Case, driver: Mapping[str, Any], docker: Mapping[str, Any], toolkit: Mapping[str, Any], *, gpu: bool
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
    if gpu and driver["managed"] and driver["provider"] == "nvidia":
        # Its packages have no upper bound: a dependency would bring the newest branch.
        pins.append({"packages": "*nvidia*", "pin": f"version {driver['branch']}.*", "priority": 990})
    if gpu and toolkit["managed"]:
        names = " ".join(TOOLKIT_PACKAGES)
        pins.append({"packages": names, "pin": f"version {toolkit['version']}", "priority": 990})
    return pins
