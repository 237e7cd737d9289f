"""Checks of the services: specs, model files, units, and whether the active one answers."""

from __future__ import annotations

import shutil
from typing import Final

from llamarig.checks.box import Box
from llamarig.checks.result import CheckResult, fail, ok, warn
from llamarig.config import paths
from llamarig.errors import LlamarigError
from llamarig.runtime.engine import PROMPT, TOKENS, EngineError

_LOW_SPACE_GIB: Final = 2.0


def check_specs(box: Box) -> CheckResult:
    """Every spec can be read and was not edited by hand."""
    name = "specs"
    try:
        specs = box.specs.all()
    except LlamarigError as error:
        return fail(name, error.message, error.remedy)
    edited = [spec.service for spec in specs if spec.hashed().spec_sha256 != spec.spec_sha256]
    if edited:
        return fail(name, f"edited by hand: {', '.join(edited)}", "change host_vars and run playbooks/site.yml")
    return ok(name, f"{len(specs)} specs, as planned")


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
        return fail(name, "; ".join(faults), "run playbooks/site.yml: it fetches them anew")
    return ok(name, f"{len(files)} files complete")


def check_space(box: Box) -> CheckResult:
    """The file systems that fill up have room: for models, for images, for the host itself."""
    name = "space"
    low = []
    seen = set()
    images = ("/var/lib/docker", "/var/lib/containerd")
    for path in ("/", paths.STATE, *images, *sorted({spec.models_dir for spec in box.specs.all()})):
        place = box.specs.path(path)
        if place.is_dir() and place.stat().st_dev not in seen:
            seen.add(place.stat().st_dev)
            free = shutil.disk_usage(place).free / 2**30
            if free < _LOW_SPACE_GIB:
                low.append(f"{path} has {free:.1f} GiB free")
    if low:
        return warn(name, "; ".join(low), "remove models or images that no service uses")
    return ok(name, f"more than {_LOW_SPACE_GIB:.0f} GiB free everywhere")


def check_active(box: Box) -> CheckResult:
    """There is an active service, one that this host knows, and it starts with the host."""
    name = "active"
    state = box.state.read()
    if state.switching_to is not None:
        return warn(name, f"a switch to {state.switching_to} is under way or was cut off", "llamarig status")
    if not box.specs.all():
        return ok(name, "this host runs no service")
    if state.active is None:
        return fail(name, "no service is active", "llamarig switch <service>")
    spec = box.active()
    if spec is None:
        return fail(name, f"{state.active} is active and has no spec", "run playbooks/site.yml, or llamarig switch")
    enabled = [s.service for s in box.specs.all() if box.units.state(s.service).enabled == "enabled"]
    if enabled != [state.active]:
        said = ", ".join(enabled) or "nothing"
        return fail(name, f"{state.active} is active, but {said} starts with the host", "run playbooks/site.yml")
    return ok(name, f"{state.active}, starts with the host")


def check_units(box: Box) -> CheckResult:
    """The active service's unit runs, no other does, and none is restarting all the time."""
    name = "units"
    known = {spec.service for spec in box.specs.all()}
    running = [name for name in box.units.running() if name in known or box.specs.running(name) is not None]
    spec = box.active()
    if spec is None:
        if running:
            return fail(name, f"running although nothing is active: {', '.join(running)}", "llamarig stop")
        return ok(name, "nothing runs")
    strays = [service for service in running if service != spec.service]
    if strays:
        return fail(name, f"running beside {spec.service}: {', '.join(strays)}", "run playbooks/site.yml")
    state = box.units.state(spec.service)
    if not state.is_running:
        return fail(
            name,
            f"{paths.unit(spec.service)} is {state.active} ({state.sub}, {state.result})",
            f"llamarig logs {spec.service}, then llamarig switch {spec.service}",
        )
    if state.restarts:
        return warn(
            name,
            f"{paths.unit(spec.service)} was restarted {state.restarts} times",
            f"llamarig logs {spec.service}",
        )
    return ok(name, f"{paths.unit(spec.service)} runs")


def check_spec_in_use(box: Box) -> CheckResult:
    """The running container was started with the spec that is on disk now."""
    name = "spec-in-use"
    spec = box.active()
    if spec is None:
        return ok(name, "nothing is active")
    running = box.specs.running(spec.service)
    if running is None or running.spec_sha256 != spec.spec_sha256:
        return fail(name, f"{spec.service} does not run with its present spec", "run playbooks/site.yml")
    return ok(name, f"{spec.spec_sha256[:12]}, engine {spec.image}")


def check_health(box: Box) -> CheckResult:
    """The active service says it is ready."""
    name = "health"
    spec = box.active()
    if spec is None:
        return ok(name, "nothing is active")
    health = box.engine.health(spec)
    if health != "ok":
        return fail(name, f"{spec.service} at {spec.url} is {health}", f"llamarig logs {spec.service} --follow")
    return ok(name, f"{spec.service} at {spec.url}")


def check_answer(box: Box) -> CheckResult:
    """The active service really answers, and not with one token over and over."""
    name = "answer"
    spec = box.active()
    if spec is None:
        return ok(name, "nothing is active")
    if not box.units.holds_port(spec.service):
        return fail(
            name,
            f"{spec.service} was not asked: its container does not run",
            f"llamarig logs {spec.service}",
        )
    try:
        answer = box.engine.complete(spec, PROMPT, TOKENS, 60)
    except EngineError as error:
        return fail(name, f"{spec.service}: {error}", f"llamarig logs {spec.service}")
    speed = f", {answer.tokens_per_second:.0f} tokens/s" if answer.tokens_per_second else ""
    return ok(name, f"{answer.text.strip()!r}{speed}")
