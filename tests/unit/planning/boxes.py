"""Hosts as ``llamarig.hardware.machine`` reports them, what is wanted of them, and what becomes of one."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Mapping
from typing import Any

import yaml

from llamarig.errors import Problem
from llamarig.hardware import cards
from llamarig.planning.case import Packages
from llamarig.planning.stack import Stack, decide
from tests.support import HOST, ROOT

KERNEL = "6.8.0-60-generic"
NEWER_KERNEL = "6.8.0-71-generic"
ANCIENT, OLD, NEW = "580.65.06", "580.82.07", "580.95.05"
PIN = "1.20.0-1"
TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
# What a fresh box of one flavour is asked to install.
FRESH = [
    "linux-modules-nvidia-580-server-open-generic",
    "nvidia-headless-no-dkms-580-server-open",
    "nvidia-utils-580-server",
]
_WITH_USER_SPACE = (
    "nvidia-headless-no-dkms-580-server-open",
    "nvidia-headless-no-dkms-580-open",
    "nvidia-driver-580-open",
)
_USER_SPACE = ("libnvidia-cfg1-{}", "libnvidia-compute-{}", "nvidia-compute-utils-{}", "nvidia-kernel-common-{}")


def card(device: str = "2684", address: str = "0000:01:00.0") -> dict[str, Any]:
    """A card on the bus, by default an RTX 4090."""
    name, architecture = cards.name(device), cards.architecture(device)
    return {"address": address, "device_id": device, "name": name, "architecture": architecture}


BLACKWELL, PASCAL = card("2c05", "0000:04:00.0"), card("1b80", "0000:09:00.0")


def gpu(name: str, address: str | None = None) -> dict[str, Any]:
    """A declared card, as the plan hands it on."""
    return {"name": name, "pci_address": address}


def ubuntu_driver(branch: str = "580", *, modules: str = "server-open", kernel: str = KERNEL) -> dict[str, str]:
    """The packages of Ubuntu's driver; ``modules`` is ``server`` for the proprietary ones."""
    names = [
        f"linux-modules-nvidia-{branch}-{modules}-generic",
        f"linux-modules-nvidia-{branch}-{modules}-{kernel}",
        f"nvidia-headless-no-dkms-{branch}-{modules}",
        f"nvidia-utils-{branch}-server",
        f"nvidia-firmware-{branch}-server-{branch}.82.07",
        *(name.format(f"{branch}-server") for name in _USER_SPACE),
    ]
    return dict.fromkeys(names, f"{NEW}-0ubuntu0.24.04.1")


def nvidia_driver() -> dict[str, str]:
    """The packages of the driver from NVIDIA's own archive."""
    names = ["nvidia-driver-pinning-580", "nvidia-driver-580-open", "nvidia-dkms-580-open", "libnvidia-compute-580"]
    return dict.fromkeys(names, f"{NEW}-1ubuntu1")


DOCKER_COM = {
    **dict.fromkeys(("docker-ce", "docker-ce-cli"), "5:29.1.2-1~ubuntu.24.04~noble"),
    **dict.fromkeys(("containerd.io", "docker-buildx-plugin", "docker-compose-plugin"), "2.1.5-1"),
}


def toolkit(version: str = PIN) -> dict[str, str]:
    """The four packages of the container toolkit."""
    return dict.fromkeys(TOOLKIT, version)


def driver(
    version: str | None = None, *, is_open: bool = True, kernels: Mapping[str, str] | None = None, **changes: Any
) -> dict[str, Any]:
    """A driver that is ``version`` in all three places; ``changes`` replaces facts of it."""
    on_disk, loaded = changes.get("on_disk", version), changes.get("loaded", version)
    return {
        "loaded": version,
        "loaded_open": bool(loaded) and is_open,
        "on_disk": version,
        "userspace": version,
        "open": None if on_disk is None else is_open,
        "signer": None,
        "on_disk_by_kernel": dict(kernels or ({KERNEL: on_disk} if on_disk else {})),
        "nouveau": False,
        "run_file": False,
        **changes,
    }


def facts(packages: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """A fresh Ubuntu box with an RTX 4090 and Docker, toolkit and kernel metapackage as they should be, and held."""
    base = {
        "linux-generic": "6.8.0-60.63",
        "linux-image-generic": "6.8.0-60.63",
        "linux-headers-generic": "6.8.0-60.63",
    }
    state = changes.get("driver", driver())
    there = {**base, **DOCKER_COM, **toolkit(), **(packages or {})}
    return {
        "kernel": KERNEL,
        "kernels": sorted({changes.get("kernel", KERNEL), *state["on_disk_by_kernel"]}),
        "cards": [card()],
        "driver": state,
        "cdi": None,
        "secure_boot": False,
        "reboot_required": False,
        "apt_sources": {},
        "apt_keys": [],
        "snap_docker": False,
        "docker_options": None,
        "persistenced_user": "",
        "packages": there,
        "held": sorted([*DOCKER_COM, *TOOLKIT]),
        "interrupted": False,
        **changes,
    }


def lacking(changed: dict[str, Any], *names: str) -> dict[str, Any]:
    """The same host without some packages."""
    return {**changed, "packages": {key: value for key, value in changed["packages"].items() if key not in names}}


def holding(changed: dict[str, Any]) -> dict[str, Any]:
    """The same host with every package held."""
    return {**changed, "held": sorted(changed["packages"])}


def wanted(system: str = "ubuntu_24_04", gpus: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """What a site wants that says nothing; ``changes`` are values of ``driver``, ``docker`` and ``toolkit``."""
    platform = _loaded(f"roles/preflight/vars/{system}.yml")
    defaults = _loaded("roles/nvidia_container_toolkit/defaults/main.yml")
    result = {
        "gpus": [gpu("rtx4090", "0000:01:00.0")] if gpus is None else gpus,
        "platform": platform["preflight_platform"],
        "driver": {
            "managed": True,
            "branch": "580",
            "minimum": OLD,
            "provider": "",
            "repository": {},
            "replace": False,
            # What a site says that lets its boxes be rebooted.
            "reboot": True,
        },
        "docker": {"source": "", "version": "5:29.*", "repository": {}, "options": {}},
        "toolkit": {
            "managed": True,
            "version": PIN,
            "minimum": "1.19.1",
            "repository": defaults["nvidia_container_toolkit_repository"],
        },
    }
    for section, values in changes.items():
        result[section] |= values
    return result


@functools.cache
def _loaded(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def decided(found: Mapping[str, Any], asked: Mapping[str, Any] | None = None) -> Stack:
    """Decide for a host that nothing is wrong with."""
    stack, problems = decide(HOST, found, asked or wanted())
    assert [str(problem) for problem in problems] == []
    return stack


def refused(found: Mapping[str, Any], asked: Mapping[str, Any] | None = None) -> list[Problem]:
    """Decide, and return what is wrong."""
    return decide(HOST, found, asked or wanted())[1]


class Box:
    """A host that does what is decided, as far as apt, the kernel and a boot matter to the next decision."""

    def __init__(self, found: Mapping[str, Any], newest_kernel: str = KERNEL) -> None:
        self.facts: dict[str, Any] = copy.deepcopy(dict(found))
        self._newest = newest_kernel

    def carry_out(self, stack: Stack) -> None:
        """Do what the roles do after one decision."""
        state = self.facts["driver"]
        for part in (stack.driver.packages, stack.docker, stack.toolkit):
            self._apt(part)
        if stack.driver.reboot:
            self.facts["kernel"] = max([self.facts["kernel"], *state["on_disk_by_kernel"]])
            state["nouveau"] = False
        self._depmod()
        if stack.driver.load or stack.driver.reboot:
            state |= {"loaded": state["on_disk"], "loaded_open": state["open"]}
        if stack.driver.cdi_refresh:
            self.facts["cdi"] = {"driver": state["loaded"]}

    def boot(self) -> None:
        """Start anew, which is all that a host may ask for of its own."""
        self.facts["reboot_required"] = False

    def _apt(self, part: Packages) -> None:
        packages = self.facts["packages"]
        for name in part.remove:
            del packages[name]
            if name.startswith("linux-modules-nvidia-"):
                self.facts["driver"]["on_disk_by_kernel"].clear()
        for item in part.install:
            name, _, version = item.partition("=")
            packages[name] = version.replace("*", "1.2-1") or ("26.1.5-1" if name == "docker.io" else "1")
            self._driver(name)
        names = [name for name in packages if any(re.fullmatch(pattern, name) for pattern in part.hold)]
        self.facts["held"] = sorted({*self.facts["held"], *names})
        if part.due:
            self.facts["interrupted"] = False

    def _driver(self, name: str) -> None:
        state = self.facts["driver"]
        if modules := re.fullmatch(r"linux-modules-nvidia-580(-server)?-open-(.+)", name):
            kernel = modules[2] if modules[2][0].isdigit() else self._newest
            state["on_disk_by_kernel"][kernel] = NEW
            self.facts["packages"][name.replace(modules[2], kernel)] = "1"
        if name in _WITH_USER_SPACE:
            state["userspace"] = NEW
        if name in {"nvidia-driver-580-open", "nvidia-dkms-580-server-open"}:  # modules are built for every kernel
            state["on_disk_by_kernel"] |= dict.fromkeys([*self.facts["kernels"], self.facts["kernel"]], NEW)

    def _depmod(self) -> None:
        state = self.facts["driver"]
        before, state["on_disk"] = state["on_disk"], state["on_disk_by_kernel"].get(self.facts["kernel"])
        if state["on_disk"] != before or any("-open-" in name for name in self.facts["packages"]):
            state["open"] = None if state["on_disk"] is None else True
