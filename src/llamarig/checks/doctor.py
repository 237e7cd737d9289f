"""The doctor: every check in the order a person would look, and what they come to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any, Final

from llamarig.checks import cards, containers, driver, firewall, machine, memory, services
from llamarig.checks.box import Box
from llamarig.checks.result import CheckResult, Status, fail
from llamarig.errors import LlamarigError

Check = Callable[[Box], CheckResult | None]
# The machine, then its cards, then what it serves: the first that fails is the likely cause of those after it.
CHECKS: Final[tuple[Check, ...]] = (
    machine.check_memory,
    machine.check_clock,
    machine.check_reboot,
    firewall.check_firewall,
    driver.check_secure_boot,
    driver.check_driver,
    driver.check_packages_held,
    cards.check_gpus,
    cards.check_pcie,
    cards.check_persistence,
    cards.check_tuning,
    containers.check_cdi,
    containers.check_compute,
    services.check_specs,
    services.check_models,
    services.check_space,
    services.check_daemon,
    services.check_exporter,
    services.check_active,
    services.check_given_up,
    services.check_units,
    services.check_spec_in_use,
    services.check_door,
    services.check_health,
    cards.check_gpu_in_use,
    memory.check_memory_plan,
    services.check_answer,
)


def examine(box: Box) -> Iterator[CheckResult]:
    """Run every check that concerns this host; one that breaks is a failed check, never the end of the doctor."""
    for check in CHECKS:
        start = time.monotonic()
        try:
            result = check(box)
        except (LlamarigError, OSError) as error:
            result = _broken(check, error)
        if result is not None:
            yield replace(result, seconds=round(time.monotonic() - start, 3))


def _broken(check: Check, error: LlamarigError | OSError) -> CheckResult:
    name = check.__name__.removeprefix("check_").replace("_", "-")
    remedy = error.remedy if isinstance(error, LlamarigError) else ""
    return fail(name, f"the check itself failed: {error}", remedy or "llamarig status")


def verdict(box: Box, results: list[CheckResult]) -> dict[str, Any]:
    """Return what the results come to, as plain JSON types; warnings leave a host healthy."""
    try:
        active = box.active()
    except LlamarigError:
        active = []  # the check of the specs has said so
    first = active[0] if active else None
    return {
        "healthy": all(result.status is not Status.FAIL for result in results),
        "warnings": sum(result.status is Status.WARN for result in results),
        "url": first.url if first else None,
        "active": first.service if first else None,
        "services": [{"service": spec.service, "url": spec.url} for spec in active],
        "checks": [{**asdict(result), "status": result.status.value} for result in results],
    }
