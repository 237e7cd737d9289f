"""Checks of the services: specs, model files, the daemon, units, the door, and whether those that are active answer."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import Final

from llamarig.checks.box import Box
from llamarig.checks.result import CheckResult, fail, ok, warn
from llamarig.config import paths
from llamarig.errors import LlamarigError
from llamarig.runtime.door import DoorError
from llamarig.runtime.engine import PROMPT, TOKENS, EngineError
from llamarig.runtime.exporter import ExporterError
from llamarig.runtime.gate import FileGate

_LOW_SPACE_GIB: Final = 2.0
# A card that is woken, or a driver under load, answers within a few seconds.
_STUCK_SECONDS: Final = 30.0


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


def check_daemon(box: Box) -> CheckResult:
    """The daemon runs and answers, and is of the release that is deployed."""
    name = "daemon"
    try:
        agent = box.daemon.get("/status").get("agent") or {}
    except LlamarigError as error:
        return fail(name, f"{error.message}: what serves goes on, and nothing switches", error.remedy)
    link = box.specs.path(paths.CURRENT)
    deployed = link.readlink().name if link.is_symlink() else None
    release = agent.get("release")
    if deployed is not None and release != deployed:
        said = f"llamarigd is still of release {release}, {deployed} is deployed"
        return warn(name, said, "sudo systemctl restart llamarigd: what serves goes on meanwhile")
    return ok(name, f"llamarigd {agent.get('version')}{f', release {release}' if release else ''}")


def check_exporter(box: Box) -> CheckResult | None:
    """The exporter, where there is one, answers, and the driver answers it. What serves goes on without."""
    name = "exporter"
    try:
        said = box.exporter(box.root)
    except ExporterError as error:
        return warn(name, f"nobody measures this host: {error}", "journalctl --unit llamarig-exporter")
    if said is None:
        return None
    stuck = float(said.get("stuck_seconds") or 0)
    if stuck > _STUCK_SECONDS:
        said_so = f"the driver has not answered llamarig-exporter for {stuck:.0f} s"
        return warn(name, said_so, "journalctl --dmesg --grep NVRM; a driver that never answers needs a reboot")
    return ok(name, "llamarig-exporter answers")


def check_active(box: Box) -> CheckResult:
    """Something is active, and this host knows it."""
    name = "active"
    state = box.state.read()
    if state.switching is not None:
        return warn(name, f"a switch to {state.switching.target} is under way or was cut off", "llamarig status")
    known = [spec.service for spec in box.specs.all()]
    if not known:
        return ok(name, "this host runs no service")
    unknown = [service for service in state.names if service not in known]
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        return fail(
            name, f"{', '.join(unknown)} {verb} active without a spec", "run playbooks/site.yml, or llamarig switch"
        )
    if state.names:
        return ok(name, ", ".join(state.names))
    if state.stopped:
        return warn(name, f"nothing serves: stopped by {_who_stopped(box)}", "llamarig switch <service>")
    return fail(name, "no service is active", "llamarig switch <service>")


def _who_stopped(box: Box) -> str:
    """Say who stopped what served last, and when."""
    stops = [event for event in box.state.history() if event.get("kind") == "stop"]
    if not stops:
        return "somebody"
    when = datetime.fromtimestamp(stops[-1].get("time") or 0, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{stops[-1].get('origin') or 'somebody'} on {when}"


def check_given_up(box: Box) -> CheckResult:
    """No service was given up because it did not come to serve again and again."""
    given_up = box.state.read().given_up
    if not given_up:
        return ok("given-up", "no service")
    said = "; ".join(f"{service}: {given.reason}" for service, given in given_up.items())
    first = next(iter(given_up))
    return warn("given-up", said, f"llamarig logs {first}; once it is mended, llamarig switch {first}")


def check_units(box: Box) -> CheckResult:
    """The units of active services run, others wait at their gates at most, and none is restarting all the time."""
    name = "units"
    state, known = box.state.read(), {spec.service for spec in box.specs.all()}
    running = [name for name in box.units.running() if name in known or box.specs.running(name) is not None]
    # The one that comes has its container already, and those that leave still run.
    coming = {state.switching.target, *state.switching.leaving} if state.switching else set()
    others = [service for service in running if service not in {*state.names, *coming}]
    gates = FileGate(box.root)
    strays = [service for service in others if gates.is_open(service)]
    if strays:
        beside = f"beside {', '.join(state.names)}" if state.names else "although nothing is active"
        return fail(name, f"running {beside}: {', '.join(strays)}", f"llamarig stop {strays[0]}")
    expected = [service for service in state.names if service in known and service not in coming]
    units = {service: box.units.state(service) for service in expected}
    for service, unit in units.items():
        if not unit.is_running:
            said = f"{paths.unit(service)} is {unit.active} ({unit.sub}, {unit.result})"
            return fail(name, said, f"llamarig logs {service}, then llamarig switch {service}")
    restarted = {service: unit.restarts for service, unit in units.items() if unit.restarts}
    if restarted:
        said = "; ".join(f"{paths.unit(service)} was restarted {count} times" for service, count in restarted.items())
        return warn(name, said, f"llamarig logs {next(iter(restarted))}")
    run = [f"{paths.unit(service)} runs" for service in units] or ["nothing runs"]
    return ok(name, ", ".join([*run, *(f"{paths.unit(service)} waits at its gate" for service in others)]))


def check_spec_in_use(box: Box) -> CheckResult:
    """Each active service runs with the spec that is on disk now."""
    name = "spec-in-use"
    state, active = box.state.read(), box.active()
    for spec in active:
        serving, running = state.serving(spec.service), box.specs.running(spec.service)
        version = running.spec_sha256 if running is not None else None
        if version == spec.spec_sha256:
            continue
        if serving is not None and version == serving.version:
            said = f"{spec.service} serves with its spec of before: it was never seen to serve with its present one"
            return fail(name, said, "llamarig history says why; mend it in host_vars and run playbooks/site.yml")
        return fail(name, f"{spec.service} does not run with its present spec", "run playbooks/site.yml")
    said = ", ".join(f"{spec.service} {spec.spec_sha256[:12]}, engine {spec.image}" for spec in active)
    return ok(name, said or "nothing is active")


def check_door(box: Box) -> CheckResult:
    """The door answers, and each active service's port leads to it."""
    name = "door"
    state, active = box.state.read(), box.active()
    coming = {state.switching.target, *state.switching.leaving} if state.switching else set()
    for spec in active:
        behind = box.door.behind(spec.port)
        if behind != spec.service and spec.service not in coming:
            said = f"port {spec.port} leads {f'to {behind}' if behind else 'nowhere'}, not to {spec.service}"
            return fail(name, said, "llamarig status; sudo systemctl restart llamarigd opens it again")
    try:
        for spec in active:
            box.door.traffic(spec.port)
    except DoorError as error:
        # Who may not ask it sees in check health whether it lets anybody through.
        if not isinstance(error.__cause__, PermissionError):
            return fail(name, error.message, error.remedy)
    said = ", ".join(f"port {spec.port} leads to {spec.service}" for spec in active)
    return ok(name, said or "nothing is active")


def check_health(box: Box) -> CheckResult:
    """Each active service says that it is ready, where its clients ask it."""
    name = "health"
    active = box.active()
    for spec in active:
        health = box.engine.health(spec)
        if health != "ok":
            return fail(name, f"{spec.service} at {spec.url} is {health}", f"llamarig logs {spec.service} --follow")
    return ok(name, ", ".join(f"{spec.service} at {spec.url}" for spec in active) or "nothing is active")


def check_answer(box: Box) -> CheckResult:
    """Each active service really answers, and not with one token over and over."""
    name = "answer"
    told = []
    for spec in box.active():
        remedy = f"llamarig logs {spec.service}"
        if box.door.behind(spec.port) != spec.service or not box.units.state(spec.service).is_running:
            return fail(name, f"{spec.service} was not asked: it does not run, or its port leads elsewhere", remedy)
        try:
            answer = box.engine.complete(spec, PROMPT, TOKENS, 60)
        except EngineError as error:
            return fail(name, f"{spec.service}: {error}", remedy)
        speed = f", {answer.tokens_per_second:.0f} tokens/s" if answer.tokens_per_second else ""
        told.append(f"{spec.service} {answer.text.strip()!r}{speed}")
    return ok(name, "; ".join(told) or "nothing is active")
