"""Why a switch would be refused before anything is touched."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from llamarig.config.policy import Policy
from llamarig.config.spec import Spec
from llamarig.daemon.comparison import remedy, shortfalls
from llamarig.daemon.memory import MemoryStore
from llamarig.runtime.specs import SpecStore


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why, and what helps."""

    message: str
    remedy: str


def refusal(
    specs: SpecStore, memory: MemoryStore, target: Spec, out: Collection[str], policy: Policy
) -> Refusal | None:
    """Return why a service cannot come; None where nothing speaks against it.

    Args:
        specs: of the host.
        memory: what is known of what services take.
        target: the service that is to come.
        out: the active services that would leave for it.
        policy: who may not be made to leave.

    """
    name = target.service
    pinned = [service for service in out if policy.of(service).pinned]
    if pinned:
        return Refusal(
            f"{name} has room only where {' and '.join(pinned)} stops, which is pinned",
            f"llamarig stop {pinned[0]}, or take pinned away in host_vars",
        )
    planned = specs.planned(name)
    # The files of a version of before are put in their place as its unit starts.
    for item in target.files if planned is not None and planned.spec_sha256 == target.spec_sha256 else ():
        path = specs.path(item.path)
        if not path.is_file():
            return Refusal(f"{name}: model file {item.path} is missing", "run playbooks/site.yml")
        size = path.stat().st_size
        if size != item.bytes:
            said = f"{name}: {item.path} has {size} bytes, its profile says {item.bytes}"
            return Refusal(said, "run playbooks/site.yml again: it fetches the file anew")
    found = shortfalls(target, memory.read(target))
    return Refusal(f"{name}: {'; '.join(found)}", remedy(target)) if found else None
