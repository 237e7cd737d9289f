"""The check of the firewall."""

from __future__ import annotations

import os

from llamarig.checks.box import Box
from llamarig.checks.result import CheckResult, fail, ok, warn
from llamarig.hardware import firewall

_SITE = "run playbooks/site.yml"


def check_firewall(box: Box) -> CheckResult | None:
    """The firewall is loaded, lets SSH through, and is the one that was planned last."""
    name = "firewall"
    planned, kept = box.root / firewall.PLANNED, box.root / firewall.KEPT
    if not planned.exists():
        return None
    if not kept.exists():
        return fail(name, "there is none: no new connection came through the planned rules", _SITE)
    let_through = firewall.loaded_ssh_ports()
    if let_through is not None:
        return _check_loaded(box, name, let_through)
    if os.geteuid() != 0:
        return ok(name, "only root can see whether it is loaded")
    return fail(
        name,
        "its rules are not loaded: everything that listens can be reached",
        "sudo systemctl restart llamarig-firewall.service, and look who flushed them",
    )


def _check_loaded(box: Box, name: str, let_through: list[int]) -> CheckResult:
    cut = [port for port in firewall.ssh_ports(box.root, os.getpid()) if port not in let_through]
    if cut:
        said = ", ".join(map(str, cut))
        return fail(name, f"it shuts a port of SSH: {said}", f"{_SITE} while you still have a connection")
    if firewall.is_pending(box.root):
        return warn(name, "loaded, but not as planned last: no new connection came through those rules", _SITE)
    return ok(name, f"loaded, with SSH on port {', '.join(map(str, let_through))}")
