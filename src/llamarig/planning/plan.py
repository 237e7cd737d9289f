"""The resolver: one host's intent in, its plan out. Pure: no I/O, no clock, no environment."""

from __future__ import annotations

import copy
import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address
from typing import Any, Final

from llamarig.config import paths
from llamarig.config.catalogue import ModelFile, Profile
from llamarig.config.engine_options import RECORDED, Option, recorded_options, recorded_versions
from llamarig.config.host import HostIntent
from llamarig.config.policy import Policy
from llamarig.config.records import Gpu, ServerValue, Service
from llamarig.config.shape import ShapeError
from llamarig.config.spec import DeviceMemory, HostMemory, Memory, Spec, SpecFile
from llamarig.errors import Problem
from llamarig.planning import engine, firewall, flags, layers, lessons, placement, residency, strategies
from llamarig.planning.devices import CONTEXT_MIB, DRIVER_MIB, MARGIN_MIB, MIB, cuda_devices
from llamarig.planning.memory import sequence_state
from llamarig.planning.request import Placement, PlacementError, Request
from llamarig.planning.settings import host_extra, memory_settings

# Makers' names that nobody says when naming a card.
_MAKERS: Final = ("NVIDIA ", "GeForce ")
_PARTS: Final = re.compile(r"\s*[,+]\s*")


@dataclass(frozen=True, slots=True)
class Plan:
    """All specs of one host, the files its models need, and what to think about.

    Attributes:
        default_service: the one that serves when nobody chose another.
        policy: when services come and go by themselves.
        ports: those that the door holds, each with its address and with the services that answer there.
        notes: what is worth knowing and is no fault: services that take turns.
        incomplete: what keeps the plan from being carried out, though it is a plan: files whose size or checksum nobody
            has said yet.

    """

    host: str
    specs: list[Spec]
    default_service: str | None
    image: str
    engine: dict[str, Any]
    sources: list[dict[str, Any]]
    hardware: dict[str, Any]
    openings: list[dict[str, Any]]
    policy: Policy = field(default_factory=Policy)
    ports: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    incomplete: list[Problem] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        specs = [spec.to_dict() for spec in self.specs]
        incomplete = [str(problem) for problem in self.incomplete]
        apart = {"specs": specs, "policy": self.policy.to_dict(), "incomplete": incomplete}
        return copy.deepcopy({key: value for key, value in values.items() if key not in apart}) | apart


def resolve(intent: HostIntent, profiles: Mapping[str, Profile], engine_files: str = "") -> tuple[Plan, list[Problem]]:
    """Resolve one host. Every problem is returned; with problems, the plan holds what could be resolved.

    ``engine_files`` is the checksum of the files beside the source that the engine is built from.
    """
    problems: list[Problem] = [*_names(intent), *residency.problems(intent), *firewall.problems(intent)]
    problems += [*engine.problems(intent.host, intent.engine, intent.hardware), *_unrecorded(intent)]
    incomplete: list[Problem] = list(engine.unlocked(intent.host, intent.engine))
    planned = engine.planned(intent.engine, intent.hardware.gpus, engine_files)
    image = str(planned["image"])
    specs: list[Spec] = []
    warnings = [] if intent.services else [f"{intent.host} runs no service: llm_services is empty"]
    sources: dict[str, dict[str, Any]] = {}
    for service in intent.services:
        profile = profiles.get(service.profile)
        if profile is None:
            problems.append(_no_profile(intent.host, service, profiles))
            continue
        found = [*_exposure(intent.host, service), *_limit(intent, service)]
        resolved = _Resolved.of(intent, service, profile, found)
        problems += found
        files = _files_of(service, profile)
        incomplete += _unknown_files(intent.host, service, files)
        if resolved is None or found:
            continue
        specs.append(_spec(intent, service, profile, resolved, image))
        warnings += [f"{service.name}: {text}" for text in resolved.warnings]
        problems += _sources(intent.host, service, files, sources)
    problems += residency.crowded(intent, specs)
    plan = Plan(
        host=intent.host,
        specs=specs,
        default_service=residency.default(intent),
        image=image,
        engine=planned,
        sources=list(sources.values()),
        hardware=intent.hardware.model_dump(mode="json"),
        openings=firewall.openings(intent.services, intent.allowed),
        policy=residency.policy(intent),
        ports=[port.to_dict() for port in residency.ports(intent.services)],
        notes=residency.notes(intent),
        warnings=warnings,
        incomplete=incomplete,
    )
    return plan, problems


def _unrecorded(intent: HostIntent) -> Iterator[Problem]:
    version = intent.engine.version
    if version is not None and version not in recorded_versions():
        yield Problem(
            intent.host,
            "engine",
            f"no --help of llama.cpp {version} is recorded, so its options cannot be checked",
            "playbooks/upgrade.yml -e llama_cpp_ref=<ref> brings another engine, and records it",
        )


def _options(intent: HostIntent) -> dict[str, Option]:
    """Return the options of the host's engine; of the newest recorded where its own are not known, which was said."""
    version = intent.engine.version
    return recorded_options(version if version in recorded_versions() else RECORDED)


def _no_profile(host: str, service: Service, profiles: Mapping[str, Profile]) -> Problem:
    near = difflib.get_close_matches(service.profile, profiles, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    remedy = f"{hint}use one of: {', '.join(sorted(profiles)) or 'none'}; or add a record to group_vars/all/models/"
    return Problem(host, "profile", f"there is no profile {service.profile!r}", remedy, service.name)


def _files_of(service: Service, profile: Profile) -> list[ModelFile]:
    return [*profile.files, *([profile.mmproj] if service.vision and profile.mmproj else [])]


def _sources(
    host: str, service: Service, files: list[ModelFile], sources: dict[str, dict[str, Any]]
) -> Iterator[Problem]:
    """Collect the files that a host needs; the same name must mean the same bytes in all profiles."""
    for item in files:
        source = item.model_dump(mode="json")
        if sources.setdefault(item.name, source)["sha256"] != item.sha256:
            yield Problem(
                host,
                f"profile {service.profile}, file {item.name}",
                "is the name of another file in another profile: their sha256 differ",
                "give one of them another name",
                service.name,
            )


@dataclass(frozen=True, slots=True)
class _Resolved:
    """One service's settings and placement."""

    settings: dict[str, layers.Setting]
    placed: Placement
    gpus: list[Gpu]
    warnings: list[str]
    host_limit: int
    host_extra: int

    @classmethod
    def of(cls, intent: HostIntent, service: Service, profile: Profile, problems: list[Problem]) -> _Resolved | None:
        """Merge, place, and merge again with what the strategy that was chosen brings; add what is wrong."""
        key = f"strategy {service.strategy.value}"
        before = len(problems)
        threads = intent.hardware.cpu_threads
        settings = _settings(intent, service, profile, strategies.settings_of(service.strategy, threads), problems)
        problems += [
            Problem(intent.host, f"server.{name}", message, remedy, service.name)
            for name, message, remedy in lessons.refused(service.strategy, settings, profile.model_shape)
        ]
        if service.vision and profile.mmproj is None:
            message = f"the profile {service.profile} has no mmproj"
            remedy = "add the vision projector to the profile, or leave vision out"
            problems.append(Problem(intent.host, "vision", message, remedy, service.name))
        if len(problems) > before:
            return None
        shape = profile.model_shape
        wanted = memory_settings(settings, shape)
        limit = (service.memory_mib or intent.hardware.memory_mib - intent.hardware.reserve_mib) * MIB
        try:
            extra = host_extra(settings, wanted, sequence_state(shape, wanted))
            gpus = placement.cards_for(service.strategy, intent.hardware, service.gpus)
            request = Request(
                devices=cuda_devices(gpus),
                shape=shape,
                settings=wanted,
                blocks=service.blocks,
                threads=threads,
                files=sum(item.bytes or 0 for item in profile.files),
                host=limit,
                host_extra=extra,
                projector=(profile.mmproj.bytes or 0) if service.vision and profile.mmproj else 0,
            )
            placed = placement.place(service.strategy, request)
        except PlacementError as error:
            problems.append(Problem(intent.host, key, str(error), error.remedy, service.name))
            return None
        except ShapeError as error:
            remedy = "llamarig gguf FILE|URL --shape reads it anew"
            problems.append(Problem(intent.host, f"profile {service.profile}, shape", str(error), remedy, service.name))
            return None
        if placed.strategy is not service.strategy:
            settings = _settings(intent, service, profile, strategies.settings_of(placed.strategy, threads), [])
            found = [
                f"server.{name} {message}" for name, message, _ in lessons.refused(placed.strategy, settings, shape)
            ]
            placed = replace(placed, warnings=[*placed.warnings, *found])
        uncounted = [f"not predicted: {key}" for key in lessons.uncounted(settings)]
        said = [*placed.warnings, *uncounted, *lessons.warnings(placed, shape, settings, wanted)]
        seen = [gpus[number] for number in placed.devices]
        return cls(settings, placed, seen, said, limit, extra)


def _names(intent: HostIntent) -> list[Problem]:
    seen: set[str] = set()
    problems = []
    for service in intent.services:
        if service.name in seen:
            problems.append(
                Problem(intent.host, "name", "two services have this name", "rename one of them", service.name)
            )
        seen.add(service.name)
    if intent.default_service is not None and intent.default_service not in seen:
        problems.append(
            Problem(
                intent.host,
                "llm_default_service",
                f"there is no service {intent.default_service!r}",
                f"use one of: {', '.join(sorted(seen)) or 'none declared'}",
            )
        )
    return problems


def _unknown_files(host: str, service: Service, files: list[ModelFile]) -> Iterator[Problem]:
    for item in files:
        missing = [key for key in ("sha256", "bytes") if getattr(item, key) is None]
        if missing:
            yield Problem(
                host,
                f"profile {service.profile}, file {item.name}",
                f"has no {' and '.join(missing)}; a model is never trusted without its checksum",
                "take both from the hub's file page, or from sha256sum and stat on a file you trust",
                service.name,
            )


def _exposure(host: str, service: Service) -> list[Problem]:
    if ip_address(service.bind).is_loopback or service.api_key:
        return []
    return [
        Problem(
            host,
            "bind",
            f"{service.bind} is reachable from the network and the service has no api_key",
            "set api_key (from a vault) or bind to 127.0.0.1",
            service.name,
        )
    ]


def _limit(intent: HostIntent, service: Service) -> list[Problem]:
    """Refuse a limit that does not leave the reserve that keeps sshd alive."""
    hardware = intent.hardware
    most = hardware.memory_mib - hardware.reserve_mib
    if service.memory_mib is None or service.memory_mib <= most:
        return []
    message = (
        f"{service.memory_mib} MiB leaves less than the reserve: {hardware.memory_mib} MiB declared - "
        f"{hardware.reserve_mib} MiB reserve = {most} MiB"
    )
    remedy = f"at most {most}, or a smaller host_hardware.reserve_mib"
    return [Problem(intent.host, "memory_mib", message, remedy, service.name)]


def _settings(
    intent: HostIntent,
    service: Service,
    profile: Profile,
    of_strategy: Mapping[str, ServerValue],
    problems: list[Problem],
) -> dict[str, layers.Setting]:
    """Lay the layers of one service over each other; every name that this engine would not take is a problem."""
    options = _options(intent)
    stack: list[tuple[str, dict[str, ServerValue]]] = []
    for layer, origin, values in (
        ("built-in", "", layers.BUILT_IN),
        ("profile", f"profile {service.profile}, server", profile.server),
        ("strategy", "", of_strategy),
        ("fleet", "llm_server_defaults", intent.server_defaults),
        ("service", "server", service.server),
    ):
        named: dict[str, ServerValue] = {}
        for key, value in values.items():
            where = f"{origin}.{key}"
            try:
                name = flags.canonical(key, options)
                flags.check_value(key, value, options[name.replace("_", "-")])
            except flags.BadOptionError as error:
                problems.append(Problem(intent.host, where, str(error), error.remedy, service.name))
                continue
            if name in named:
                message = f"says {name} a second time"
                problems.append(Problem(intent.host, where, message, "keep one of its names", service.name))
            named[name] = value
        stack.append((layer, named))
    return layers.merge(stack)


def _spec(intent: HostIntent, service: Service, profile: Profile, resolved: _Resolved, image: str) -> Spec:
    settings, placed = resolved.settings, resolved.placed
    if "alias" not in settings:
        settings = {**settings, "alias": layers.Setting(service.name, "built-in")}
    argv = [
        "--model",
        f"{paths.CONTAINER_MODELS}/{profile.files[0].name}",
        # A socket, not an address: the container has no network, and the door holds the service's port.
        "--host",
        paths.CONTAINER_SOCKET,
        "--log-jsonl",
        *placed.argv,
        *flags.argv(settings, _options(intent)),
    ]
    if service.vision and profile.mmproj:
        argv += ["--mmproj", f"{paths.CONTAINER_MODELS}/{profile.mmproj.name}"]
    if service.api_key:
        argv += ["--api-key-file", paths.CONTAINER_KEY]
    return Spec(
        host=intent.host,
        service=service.name,
        profile=service.profile,
        description=profile.description,
        title=profile.title or service.profile,
        speed=_speed(profile, resolved.gpus),
        bench=profile.bench,
        strategy=placed.strategy.value,
        asked=service.strategy.value,
        reason=placed.reason,
        considered=placed.considered,
        memory=_predicted(profile, resolved),
        image=image,
        bind=service.bind,
        port=service.port,
        models_dir=intent.models_dir,
        files=[_spec_file(intent.models_dir, item) for item in _files_of(service, profile)],
        argv=argv,
        memory_mib=service.memory_mib or intent.hardware.memory_mib - intent.hardware.reserve_mib,
        gpus=[gpu.uuid for gpu in resolved.gpus],
        load_timeout_seconds=service.load_timeout_seconds,
        drain_seconds=service.drain_seconds,
        api_key_file=f"{paths.KEYS}/{service.name}.key" if service.api_key else None,
        api_key_sha256=hashlib.sha256(service.api_key.encode()).hexdigest() if service.api_key else None,
        origins={key: _origin(setting) for key, setting in settings.items()},
    ).hashed()


def _origin(setting: layers.Setting) -> dict[str, Any]:
    """Write where a setting came from; ``over`` is what weaker layers said, the strongest of them first."""
    over = [{"layer": layer, "value": value} for layer, value in setting.over]
    return {"value": setting.value, "layer": setting.layer, **({"over": over} if over else {})}


def _speed(profile: Profile, gpus: Sequence[Gpu]) -> str:
    """Say shortly what was measured of a profile on cards like a service's, or on none; empty where nobody did."""
    for speed in profile.speeds:
        there = _PARTS.split(speed.hardware)
        if all(_short(gpu.model) in there for gpu in gpus) and (gpus or "strategy cpu" in speed.layout):
            return f"~{speed.tokens_per_second:g} t/s"
    return ""


def _short(model: str) -> str:
    for maker in _MAKERS:
        model = model.removeprefix(maker)
    return model


def _predicted(profile: Profile, resolved: _Resolved) -> Memory | None:
    """Write what was predicted in MiB, as the spec holds it."""
    found, shape = resolved.placed.memory, profile.model_shape
    if found is None or shape is None:
        return None
    devices = [
        DeviceMemory(
            name=gpu.name,
            uuid=gpu.uuid,
            memory=gpu.memory_mib,
            kept=gpu.reserve_mib + DRIVER_MIB + MARGIN_MIB,
            context=CONTEXT_MIB,
            weights=round(part.weights / MIB),
            cache=round(part.cache / MIB),
            compute=round(part.compute / MIB),
        )
        for gpu, part in zip(resolved.gpus, found.devices, strict=True)
    ]
    host = HostMemory(
        limit=resolved.host_limit // MIB,
        weights=round(found.host.weights / MIB),
        cache=round(found.host.cache / MIB),
        compute=round(found.host.compute / MIB),
        other=round(resolved.host_extra / MIB),
    )
    unknown = [*found.unknown, *lessons.uncounted(resolved.settings)]
    return Memory(devices, host, shape.source, round(found.uncertainty / MIB), round(found.logits / MIB), unknown)


def _spec_file(models_dir: str, item: ModelFile) -> SpecFile:
    return SpecFile(path=f"{models_dir}/{item.name}", bytes=item.bytes or 0, sha256=item.sha256 or "")
