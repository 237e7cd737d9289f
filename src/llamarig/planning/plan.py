"""The resolver: one host's intent in, its plan out. Pure: no I/O, no clock, no environment."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from typing import Any, Final

from llamarig.config import paths
from llamarig.config.engine_options import Option, recorded_options
from llamarig.config.records import Engine, HostIntent, ModelFile, Profile, ServerValue, Service, Strategy
from llamarig.config.spec import Spec, SpecFile
from llamarig.errors import Problem
from llamarig.planning import firewall, flags, layers, placement

MANAGEMENT_PORT: Final = 8081
CONTAINER_PORT: Final = 8080


@dataclass(frozen=True, slots=True)
class Plan:
    """All specs of one host, the files its models need, and what to think about."""

    host: str
    specs: list[Spec]
    default_service: str | None
    image: str
    sources: list[dict[str, Any]]
    hardware: dict[str, Any]
    openings: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def image_reference(engine: Engine) -> str:
    """Name the engine image by a hash of everything that goes into it: same inputs, same name."""
    digest = hashlib.sha256(json.dumps(engine.inputs, sort_keys=True).encode()).hexdigest()
    return f"{engine.repository}:{engine.recipe}-{digest[:12]}"


def resolve(intent: HostIntent, profiles: Mapping[str, Profile]) -> tuple[Plan, list[Problem]]:
    """Resolve one host. Every problem is returned; with problems, the plan holds what could be resolved."""
    options = recorded_options()
    problems: list[Problem] = [*_names(intent), *_ports(intent), *firewall.problems(intent)]
    image = image_reference(intent.engine)
    specs: list[Spec] = []
    sources: dict[str, dict[str, Any]] = {}
    for service in intent.services:
        profile = profiles.get(service.profile)
        if profile is None:
            known = ", ".join(sorted(profiles)) or "none"
            problems.append(
                Problem(
                    intent.host,
                    "profile",
                    f"there is no profile {service.profile!r}",
                    f"use one of: {known}; or add a record to group_vars/all/models/",
                    service.name,
                )
            )
            continue
        found = [
            *_files(intent.host, service, profile),
            *_exposure(intent.host, service),
            *_memory(intent, service, profile),
        ]
        try:
            gpus = placement.cards_for(service.strategy, intent.hardware, service.gpus)
            placed = placement.place(service.strategy, intent.hardware, gpus)
        except placement.PlacementError as error:
            key = f"strategy {service.strategy.value}"
            problems += [*found, Problem(intent.host, key, str(error), error.remedy, service.name)]
            continue
        settings, bad = _settings(intent, service, profile, placed, options)
        found += bad
        problems += found
        if not found:
            specs.append(_spec(intent, service, profile, settings, placed, [gpu.uuid for gpu in gpus], image, options))
            for item in profile.files:
                source = item.model_dump(mode="json")
                if sources.setdefault(item.name, source)["sha256"] != item.sha256:
                    problems.append(
                        Problem(
                            intent.host,
                            f"profile {service.profile}, file {item.name}",
                            "is the name of another file in another profile: their sha256 differ",
                            "give one of them another name",
                            service.name,
                        )
                    )
    warnings = [] if intent.services else [f"{intent.host} runs no service: llm_services is empty"]
    default = intent.default_service or (intent.services[0].name if intent.services else None)
    hardware = intent.hardware.model_dump(mode="json")
    openings = firewall.openings(intent.services, intent.allowed)
    return Plan(intent.host, specs, default, image, list(sources.values()), hardware, openings, warnings), problems


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


def _ports(intent: HostIntent) -> list[Problem]:
    by_port: defaultdict[int, list[Service]] = defaultdict(list)
    for service in intent.services:
        by_port[service.port].append(service)
    problems = []
    for port, services in by_port.items():
        if port == MANAGEMENT_PORT:
            problems += [
                Problem(intent.host, "port", f"{port} belongs to the management API", "choose another port", s.name)
                for s in services
            ]
        if len(services) > 1:
            names = " and ".join(repr(s.name) for s in services)
            problems.append(
                Problem(
                    intent.host,
                    "port",
                    f"services {names} both claim port {port}",
                    "give each service of a host a port of its own",
                    services[1].name,
                )
            )
    return problems


def _files(host: str, service: Service, profile: Profile) -> list[Problem]:
    problems = []
    for item in profile.files:
        key = f"profile {service.profile}, file {item.name}"
        if item.sha256 is None or item.bytes is None:
            missing = " and ".join(k for k in ("sha256", "bytes") if getattr(item, k) is None)
            problems.append(
                Problem(
                    host,
                    key,
                    f"has no {missing}; a model is never trusted without its checksum",
                    "take both from the hub's file page, or from sha256sum and stat on a file you trust",
                    service.name,
                )
            )
    return problems


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


def _memory(intent: HostIntent, service: Service, profile: Profile) -> list[Problem]:
    """Weights on the CPU must fit the container's limit; the limit must leave the reserve that keeps sshd alive."""
    hardware = intent.hardware
    most = hardware.memory_mib - hardware.reserve_mib
    limit = service.memory_mib or most
    problems = []
    if limit > most:
        problems.append(
            Problem(
                intent.host,
                "memory_mib",
                f"{limit} MiB leaves less than the reserve: {hardware.memory_mib} MiB declared - "
                f"{hardware.reserve_mib} MiB reserve = {most} MiB",
                f"at most {most}, or a smaller host_hardware.reserve_mib",
                service.name,
            )
        )
    weights = sum(item.bytes or 0 for item in profile.files) / 2**20
    if service.strategy is Strategy.CPU and weights > limit:
        problems.append(
            Problem(
                intent.host,
                "memory_mib",
                f"the weights of {service.profile} are {weights:.0f} MiB and the limit is {limit} MiB",
                "choose a smaller quantisation, or a host with more memory",
                service.name,
            )
        )
    return problems


def _settings(
    intent: HostIntent,
    service: Service,
    profile: Profile,
    placed: placement.Placement,
    options: Mapping[str, Option],
) -> tuple[dict[str, layers.Setting], list[Problem]]:
    problems: list[Problem] = []
    stack: list[tuple[str, dict[str, ServerValue]]] = []
    for layer, origin, values in (
        ("built-in", "", dict(layers.BUILT_IN)),
        ("profile", f"profile {service.profile}, server", dict(profile.server)),
        ("strategy", "", dict(placed.settings)),
        ("fleet", "llm_server_defaults", dict(intent.server_defaults)),
        ("service", "server", dict(service.server)),
    ):
        named: dict[str, ServerValue] = {}
        for key, value in values.items():
            try:
                name = flags.canonical(key, options)
                flags.check_value(key, value, options[name.replace("_", "-")])
            except flags.BadOptionError as error:
                problems.append(Problem(intent.host, f"{origin}.{key}", str(error), error.remedy, service.name))
                continue
            if name in named:
                problems.append(
                    Problem(
                        intent.host,
                        f"{origin}.{key}",
                        f"says {name} a second time",
                        "keep one of its names",
                        service.name,
                    )
                )
            named[name] = value
        stack.append((layer, named))
    settings = layers.merge(stack)
    batch, ubatch = settings.get("batch_size"), settings.get("ubatch_size")
    if (
        batch
        and ubatch
        and isinstance(batch.value, int)
        and isinstance(ubatch.value, int)
        and ubatch.value > batch.value
    ):
        problems.append(
            Problem(
                intent.host,
                "server.ubatch_size",
                f"{ubatch.value} is larger than batch_size {batch.value}",
                "keep ubatch_size at 512: a larger one costs compute buffer on every device",
                service.name,
            )
        )
    return settings, problems


def _spec(
    intent: HostIntent,
    service: Service,
    profile: Profile,
    settings: dict[str, layers.Setting],
    placed: placement.Placement,
    gpus: list[str],
    image: str,
    options: Mapping[str, Option],
) -> Spec:
    if "alias" not in settings:
        settings = {**settings, "alias": layers.Setting(service.name, "built-in")}
    argv = [
        "--model",
        f"{paths.CONTAINER_MODELS}/{profile.files[0].name}",
        "--host",
        "0.0.0.0",  # noqa: S104  inside the container's own network; published on the service's bind only
        "--port",
        str(CONTAINER_PORT),
        "--log-jsonl",
        *placed.argv,
        *flags.argv(settings, options),
    ]
    if service.api_key:
        argv += ["--api-key-file", paths.CONTAINER_KEY]
    return Spec(
        host=intent.host,
        service=service.name,
        profile=service.profile,
        description=profile.description,
        strategy=service.strategy.value,
        reason=placed.reason,
        image=image,
        bind=service.bind,
        port=service.port,
        models_dir=intent.models_dir,
        files=[_spec_file(intent.models_dir, item) for item in profile.files],
        argv=argv,
        memory_mib=service.memory_mib or intent.hardware.memory_mib - intent.hardware.reserve_mib,
        gpus=gpus,
        load_timeout_seconds=service.load_timeout_seconds,
        drain_seconds=service.drain_seconds,
        api_key_file=f"{paths.KEYS}/{service.name}.key" if service.api_key else None,
        api_key_sha256=hashlib.sha256(service.api_key.encode()).hexdigest() if service.api_key else None,
        origins={key: asdict(setting) for key, setting in settings.items()},
    ).hashed()


def _spec_file(models_dir: str, item: ModelFile) -> SpecFile:
    return SpecFile(path=f"{models_dir}/{item.name}", bytes=item.bytes or 0, sha256=item.sha256 or "")
