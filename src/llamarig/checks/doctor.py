"""Every check of the doctor, in the order a person would look."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from llamarig.checks.result import CheckResult, Status
from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.state import StateStore
from llamarig.errors import LlamarigError
from llamarig.runtime.engine import PROMPT, TOKENS, Engine, EngineError
from llamarig.runtime.specs import SpecStore
from llamarig.runtime.systemd import Units

_LOW_SPACE_GIB: Final = 2.0


@dataclass(frozen=True, slots=True)
class Box:
    """What the checks look at."""

    specs: SpecStore
    state: StateStore
    units: Units
    engine: Engine

    def active(self) -> Spec | None:
        """Return the spec of the active service, None where there is none."""
        name = self.state.read().active
        return next((spec for spec in self.specs.all() if spec.service == name), None)


def check_specs(box: Box) -> CheckResult:
    """Every spec can be read and was not edited by hand."""
    name = "specs"
    try:
        specs = box.specs.all()
    except LlamarigError as error:
        return CheckResult(name, Status.FAIL, error.message, error.remedy)
    edited = [spec.service for spec in specs if spec.hashed().spec_sha256 != spec.spec_sha256]
    if edited:
        return CheckResult(
            name, Status.FAIL, f"edited by hand: {', '.join(edited)}", "change host_vars and run playbooks/site.yml"
        )
    return CheckResult(name, Status.OK, f"{len(specs)} specs, as planned")


def check_models(box: Box) -> CheckResult:
    """Every model file of every spec is there, with its size."""
    name = "models"
    faults = []
    files = {item.path: item for spec in box.specs.all() for item in spec.files}
    for item in files.values():
        path = box.specs.path(item.path)
        if not path.is_file():
            faults.append(f"{item.path} is missing")
        elif path.stat().st_size != item.bytes:
            faults.append(f"{item.path} has {path.stat().st_size} bytes instead of {item.bytes}")
    if faults:
        return CheckResult(name, Status.FAIL, "; ".join(faults), "run playbooks/site.yml: it fetches them anew")
    return CheckResult(name, Status.OK, f"{len(files)} files complete")


def check_space(box: Box) -> CheckResult:
    """The file systems that fill up have room."""
    name = "space"
    low = []
    for path in ("/", paths.STATE, *{spec.models_dir for spec in box.specs.all()}):
        place = box.specs.path(path)
        if place.is_dir():
            free = shutil.disk_usage(place).free / 2**30
            if free < _LOW_SPACE_GIB:
                low.append(f"{path} has {free:.1f} GiB free")
    if low:
        return CheckResult(name, Status.WARN, "; ".join(low), "remove models or images that no service uses")
    return CheckResult(name, Status.OK, f"more than {_LOW_SPACE_GIB:.0f} GiB free everywhere")


def check_active(box: Box) -> CheckResult:
    """There is an active service, one that this host knows, and it starts with the host."""
    name = "active"
    state = box.state.read()
    if state.switching_to is not None:
        return CheckResult(
            name, Status.WARN, f"a switch to {state.switching_to} is under way or was cut off", "llamarig status"
        )
    if not box.specs.all():
        return CheckResult(name, Status.OK, "this host runs no service")
    if state.active is None:
        return CheckResult(name, Status.FAIL, "no service is active", "llamarig switch <service>")
    spec = box.active()
    if spec is None:
        return CheckResult(
            name, Status.FAIL, f"{state.active} is active and has no spec", "run playbooks/site.yml, or llamarig switch"
        )
    enabled = [s.service for s in box.specs.all() if box.units.state(s.service).enabled == "enabled"]
    if enabled != [state.active]:
        said = ", ".join(enabled) or "nothing"
        return CheckResult(
            name, Status.FAIL, f"{state.active} is active, but {said} starts with the host", "run playbooks/site.yml"
        )
    return CheckResult(name, Status.OK, f"{state.active}, starts with the host")


def check_units(box: Box) -> CheckResult:
    """The active service's unit runs, no other does, and none is restarting all the time."""
    name = "units"
    known = {spec.service for spec in box.specs.all()}
    running = [name for name in box.units.running() if name in known or box.specs.running(name) is not None]
    spec = box.active()
    if spec is None:
        if running:
            return CheckResult(
                name, Status.FAIL, f"running although nothing is active: {', '.join(running)}", "llamarig stop"
            )
        return CheckResult(name, Status.OK, "nothing runs")
    strays = [service for service in running if service != spec.service]
    if strays:
        return CheckResult(
            name, Status.FAIL, f"running beside {spec.service}: {', '.join(strays)}", "run playbooks/site.yml"
        )
    state = box.units.state(spec.service)
    if not state.is_running:
        return CheckResult(
            name,
            Status.FAIL,
            f"{paths.unit(spec.service)} is {state.active} ({state.sub}, {state.result})",
            f"llamarig logs {spec.service}, then llamarig switch {spec.service}",
        )
    if state.restarts:
        return CheckResult(
            name,
            Status.WARN,
            f"{paths.unit(spec.service)} was restarted {state.restarts} times",
            f"llamarig logs {spec.service}",
        )
    return CheckResult(name, Status.OK, f"{paths.unit(spec.service)} runs")


def check_spec_in_use(box: Box) -> CheckResult:
    """The running container was started with the spec that is on disk now."""
    name = "spec-in-use"
    spec = box.active()
    if spec is None:
        return CheckResult(name, Status.OK, "nothing is active")
    running = box.specs.running(spec.service)
    if running is None or running.spec_sha256 != spec.spec_sha256:
        return CheckResult(
            name, Status.FAIL, f"{spec.service} does not run with its present spec", "run playbooks/site.yml"
        )
    return CheckResult(name, Status.OK, f"{spec.spec_sha256[:12]}, engine {spec.image}")


def check_health(box: Box) -> CheckResult:
    """The active service says it is ready."""
    name = "health"
    spec = box.active()
    if spec is None:
        return CheckResult(name, Status.OK, "nothing is active")
    health = box.engine.health(spec)
    if health != "ok":
        return CheckResult(
            name, Status.FAIL, f"{spec.service} at {spec.url} is {health}", f"llamarig logs {spec.service} --follow"
        )
    return CheckResult(name, Status.OK, f"{spec.service} at {spec.url}")


def check_answer(box: Box) -> CheckResult:
    """The active service really answers, and not with one token over and over."""
    name = "answer"
    spec = box.active()
    if spec is None:
        return CheckResult(name, Status.OK, "nothing is active")
    if not box.units.holds_port(spec.service):
        return CheckResult(
            name,
            Status.FAIL,
            f"{spec.service} was not asked: its container does not run",
            f"llamarig logs {spec.service}",
        )
    try:
        answer = box.engine.complete(spec, PROMPT, TOKENS, 60)
    except EngineError as error:
        return CheckResult(name, Status.FAIL, f"{spec.service}: {error}", f"llamarig logs {spec.service}")
    speed = f", {answer.tokens_per_second:.0f} tokens/s" if answer.tokens_per_second else ""
    return CheckResult(name, Status.OK, f"{answer.text.strip()!r}{speed}")


CHECKS: Final[tuple[Callable[[Box], CheckResult], ...]] = (
    check_specs,
    check_models,
    check_space,
    check_active,
    check_units,
    check_spec_in_use,
    check_health,
    check_answer,
)


def examine(box: Box) -> Iterator[CheckResult]:
    """Run every check; one that breaks is a failed check, never the end of the doctor."""
    for check in CHECKS:
        start = time.monotonic()
        try:
            result = check(box)
        except (LlamarigError, OSError) as error:
            name = check.__name__.removeprefix("check_").replace("_", "-")
            result = CheckResult(name, Status.FAIL, f"the check itself failed: {error}", "llamarig status")
        yield replace(result, seconds=round(time.monotonic() - start, 3))


def verdict(box: Box, results: list[CheckResult]) -> dict[str, Any]:
    """Return what the results come to, as plain JSON types."""
    try:
        spec = box.active()
    except LlamarigError:
        spec = None  # the check of the specs has said so
    return {
        "healthy": all(result.status is not Status.FAIL for result in results),
        "url": spec.url if spec else None,
        "active": spec.service if spec else None,
        "checks": [{**asdict(result), "status": result.status.value} for result in results],
    }
