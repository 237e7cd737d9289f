"""Checks of the way from a card into a container. Left out where no card is declared."""

from __future__ import annotations

import os
import re
from typing import Final

from llamarig.checks.box import Box
from llamarig.checks.result import CheckResult, fail, ok, warn
from llamarig.runtime.container_probe import Computed, ProbeError

_REFRESH: Final = "sudo systemctl restart nvidia-cdi-refresh.service"
_REBOOT: Final = "sudo systemctl reboot"
_NO_COMPAT: Final = (
    "NVIDIA_CTK_CDI_GENERATE_DISABLED_HOOKS=enable-cuda-compat in /etc/nvidia-container-toolkit/nvidia-cdi-refresh.env"
)
# Codes of cuda.h (CUresult) that cuInit gives, what each means in a container, and what helps.
_CUDA: Final = {
    34: ("the library is a stub without a driver", _REFRESH),
    100: ("CUDA sees no card: the device nodes are not in the container", _REFRESH),
    101: ("CUDA sees a card that it cannot use", f"{_REFRESH}, then {_REBOOT}"),
    802: ("the driver is not ready", "sudo modprobe nvidia_uvm; systemctl status nvidia-persistenced"),
    803: (
        "the container was given a user space of another version than the loaded module",
        f"{_REFRESH}; where check driver says that versions differ, {_REBOOT}",
    ),
    804: (
        "a cuda-compat library took the driver's place, and these cards take none",
        f"{_NO_COMPAT}, then {_REFRESH}",
    ),
    999: (
        "CUDA itself does not know what is wrong, most often the module nvidia_uvm, which nvidia-smi does not need",
        "stop the service, sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm; where that fails, reboot",
    ),
}


def check_cdi(box: Box) -> CheckResult | None:
    """Containers can be given every declared card, with the libraries of the loaded driver."""
    if not box.cards:
        return None
    cdi = box.facts["cdi"]
    if cdi is None:
        return fail(
            "cdi",
            "there is no CDI specification: no container can be given a card",
            f"{_REFRESH}; where there is no such unit, run playbooks/site.yml",
        )
    unnamed = [str(wanted) for wanted, card in box.cards if card.uuid not in cdi["devices"]]
    if unnamed:
        return fail("cdi", f"{cdi['path']} does not name {', '.join(unnamed)}", _REFRESH)
    loaded = box.facts["driver"]["loaded"]
    if None not in {loaded, cdi["driver"]} and cdi["driver"] != loaded:
        return fail("cdi", f"{cdi['path']} is of driver {cdi['driver']}, {loaded} is loaded", _REFRESH)
    gone = [path for path in _mounted(box, cdi["path"]) if not (box.root / path.lstrip("/")).exists()]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        return fail("cdi", f"{cdi['path']} mounts {gone[0]}{more}, not there: no container starts", _REFRESH)
    return ok("cdi", f"{cdi['path']}, of driver {cdi['driver']}")


def _mounted(box: Box, path: str) -> list[str]:
    """Return the files that a CDI specification mounts, YAML or JSON; a host has no YAML library."""
    text = (box.root / path.lstrip("/")).read_text(encoding="utf-8")
    return re.findall(r"^\W*hostPath\W+?(/[^\s\"',]+)", text, re.MULTILINE)


def check_compute(box: Box) -> CheckResult | None:
    """A container that is given the cards can compute on them."""
    name = "compute"
    if not box.cards:
        return None
    if os.geteuid() != 0:
        return warn(name, "not asked: only root may start a container", "sudo llamarig doctor")
    names = ", ".join(wanted.name for wanted, _ in box.cards)
    try:
        together = _complaint(box.probe.compute([card.uuid for _, card in box.cards]), len(box.cards))
        if together is None:
            return ok(name, f"a container computes on {names}")
        alone = {} if len(box.cards) == 1 else _one_by_one(box)
    except ProbeError as error:
        return fail(name, error.message, error.remedy)
    faults = alone or {together: [names]}
    texts = [f"{', '.join(cards)}: {meaning}" for (meaning, _), cards in faults.items()]
    return fail(name, "; ".join(texts), "; ".join(dict.fromkeys(remedy for _, remedy in faults)))


def _one_by_one(box: Box) -> dict[tuple[str, str], list[str]]:
    """Ask for each card alone, and return the complaints with the cards that they are about."""
    faults: dict[tuple[str, str], list[str]] = {}
    for wanted, card in box.cards:
        said = _complaint(box.probe.compute([card.uuid]), 1)
        if said is not None:
            faults.setdefault(said, []).append(wanted.name)
    return faults


def _complaint(computed: Computed, cards: int) -> tuple[str, str] | None:
    """Return what is wrong with what a container said, and the remedy; None where it can compute."""
    if computed.library is None:
        return "the container is given no libcuda.so", _REFRESH
    if computed.code is None:
        return f"{computed.library} cannot be loaded in the container: {computed.error}", _REFRESH
    if computed.code:
        unknown = ("cuInit fails", "journalctl --dmesg --grep NVRM may say why")
        meaning, remedy = _CUDA.get(computed.code, unknown)
        return f"{meaning} (CUDA {computed.code})", remedy
    if computed.cards != cards:
        return f"CUDA sees {computed.cards} cards, the container was given {cards}", _REFRESH
    return None
