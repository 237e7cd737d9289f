"""The border to Ansible: plain variables of one host in, records or problems out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from llamarig.config.catalogue import Profile
from llamarig.config.engine import PREFIX, Engine
from llamarig.config.host import HostIntent
from llamarig.config.records import Allowed, Hardware, Service
from llamarig.errors import ConfigError, Problem
from llamarig.planning import catalogue, engine, host_files
from llamarig.planning.plan import Plan, resolve

CATALOGUE_PREFIX: Final = "llm_profiles_"
_PARTS: Final = (CATALOGUE_PREFIX, catalogue.SHAPES_PREFIX)
SENTINEL: Final = "fleet_layer_loaded"
# The checksum of Dockerfile and entrypoint, which the border puts beside the variables.
ENGINE_FILES: Final = "engine_files_sha256"
_LONG: Final = 80
_HIDDEN: Final = "api_key"
# Fields of the whole intent that are said as llm_<field>, and have a default.
_RESIDENCY: Final = ("minimum_minutes", "hung_seconds", "crash_limit", "crash_window_minutes")
# Fields of the whole intent, under the names that people write them by.
_VARIABLES: Final = {
    "models_dir": "fleet_models_dir",
    "server_defaults": "llm_server_defaults",
    "default_service": "llm_default_service",
    **{name: f"llm_{name}" for name in _RESIDENCY},
    "firewall": "firewall_enabled",
    "allowed": "firewall_allow",
    "management_port": "agent_api_port",
    "exporter_port": "exporter_port",
}
_KNOWN: Final = (
    *(SENTINEL, "fleet_models_dir", "llm_services", "llm_default_service", "llm_server_defaults"),
    *(_VARIABLES[name] for name in _RESIDENCY),
)
R = TypeVar("R", bound=BaseModel)


def plan_host(host: str, variables: Mapping[str, Any], *, only_plan: bool = False) -> dict[str, Any]:
    """Plan one host from its Ansible variables.

    Returns the plan as plain types, with ``manifest`` for the llama_service role. With ``only_plan`` it may be one that
    cannot be carried out yet: ``incomplete`` says what is missing.

    Raises:
        ConfigError: with every problem found.

    """
    plan, api_keys = read_plan(host, variables, only_plan=only_plan)
    return {
        **plan.to_dict(),
        "manifest": host_files.manifest(plan.specs, api_keys, plan.policy, plan.engine),
    }


def read_plan(host: str, variables: Mapping[str, Any], *, only_plan: bool = False) -> tuple[Plan, dict[str, str]]:
    """Validate and resolve; the keys of services are returned beside the plan, never in it."""
    if variables.get(SENTINEL) is not True:
        raise ConfigError(
            [
                Problem(
                    host,
                    "group_vars",
                    "the fleet layer is not loaded: the inventory of this host has no link to group_vars",
                    "ln -s ../../group_vars inventories/<site>/group_vars (an absolute link for a site elsewhere)",
                )
            ]
        )
    problems = _unknown(host, variables)
    profiles = _profiles(host, variables, problems)
    hardware = _record(host, "host_hardware", Hardware, variables.get("host_hardware"), problems)
    said_engine = _engine(host, variables, problems)
    services = []
    declared = _listed(host, "llm_services", variables.get("llm_services", []), "services", problems)
    names = {item.get("name") for item in declared if isinstance(item, dict) and isinstance(item.get("name"), str)}
    for number, item in enumerate(declared):
        name = item.get("name") if isinstance(item, dict) else None
        service = _record(host, f"llm_services[{number}]", Service, item, problems, service=str(name) if name else None)
        if service is not None:
            services.append(service)
    default = variables.get("llm_default_service")
    if isinstance(default, str) and default in names and default not in {service.name for service in services}:
        default = None  # it is declared; what is wrong with it was said
    ports = _listed(host, "firewall_allow", variables.get("firewall_allow", []), "ports", problems)
    found = [_record(host, f"firewall_allow[{n}]", Allowed, item, problems) for n, item in enumerate(ports)]
    content = {
        "host": host,
        # Broken records were reported; stand-ins let everything else be checked in the same run.
        "hardware": hardware or Hardware(memory_mib=2**31, cpu_threads=1),
        "engine": said_engine,
        "services": services,
        "default_service": default,
        "server_defaults": variables.get("llm_server_defaults") or {},
        "allowed": [allowed for allowed in found if allowed is not None],
    }
    for name in ("firewall", "models_dir", "management_port", "exporter_port", *_RESIDENCY):
        if variables.get(_VARIABLES[name]) is not None:
            content[name] = variables[_VARIABLES[name]]
    intent = _record(host, "", HostIntent, content, problems) if said_engine is not None else None
    if intent is None:
        raise ConfigError(problems)
    plan, unresolved = resolve(intent, profiles, str(variables.get(ENGINE_FILES, "")))
    problems += [*unresolved, *([] if only_plan else plan.incomplete)]
    if problems:
        raise ConfigError(problems)
    return plan, {service.name: service.api_key for service in intent.services if service.api_key}


def read_engine(host: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return a host's engine alone, as its plan has it; neither its services nor its recorded options are asked about.

    Raises:
        ConfigError: with every problem of the engine and of the declared hardware.

    """
    found: list[Problem] = []
    hardware = _record(host, "host_hardware", Hardware, variables.get("host_hardware"), found)
    record = _engine(host, variables, found)
    if record is None or hardware is None:
        raise ConfigError(found)
    found += [*engine.problems(host, record, hardware), *engine.unlocked(host, record)]
    if found:
        raise ConfigError(found)
    return engine.planned(record, hardware.gpus, str(variables.get(ENGINE_FILES, "")))


def _engine(host: str, variables: Mapping[str, Any], problems: list[Problem]) -> Engine | None:
    """Gather the engine from its variables; what is wrong is said under the name that people write."""
    given = {name: variables[PREFIX + name] for name in Engine.model_fields if PREFIX + name in variables}
    found: list[Problem] = []
    record = _record(host, "", Engine, {key: value for key, value in given.items() if value is not None}, found)
    problems += [replace(problem, key=PREFIX + problem.key) for problem in found]
    return record


def _listed(host: str, key: str, value: object, what: str, problems: list[Problem]) -> list[Any]:
    if isinstance(value, list):
        return value
    problems.append(Problem(host, key, f"must be a list of {what}", "begin each with '- '"))
    return []


def require_service(host: str, specs: list[dict[str, Any]], name: str | None) -> None:
    """Check the service that ``--tags switch -e service=`` names.

    Raises:
        ConfigError: no such service on this host.

    """
    names = [spec["service"] for spec in specs]
    if name not in names:
        said = "no service was named" if not name else f"this host runs no service {name!r}"
        remedy = f"-e service=<name>, one of: {', '.join(names) or 'none'}; --limit leaves out other hosts"
        raise ConfigError([Problem(host, "service", said, remedy)])


def _unknown(host: str, variables: Mapping[str, Any]) -> list[Problem]:
    """Refuse variables that look like llamarig's and are not: a typo there would be silence."""
    problems = []
    for variable in sorted(variables):
        if variable in _KNOWN or variable.startswith(_PARTS) or not variable.startswith(("llm_", "fleet_")):
            continue
        near = difflib.get_close_matches(variable, _KNOWN, n=1)
        remedy = f"did you mean {near[0]}?" if near else "a site's own variables begin with neither llm_ nor fleet_"
        problems.append(Problem(host, variable, "is no variable that llamarig knows", remedy))
    return problems


def _profiles(host: str, variables: Mapping[str, Any], problems: list[Problem]) -> dict[str, Profile]:
    declared = variables.get("llm_services")
    services = declared if isinstance(declared, list) else []
    used = {str(item.get("profile")) for item in services if isinstance(item, dict)}
    needed = used | _bases(variables, used)
    profiles: dict[str, Profile] = {}
    origin: dict[str, str] = {}
    for variable in sorted(v for v in variables if v.startswith(CATALOGUE_PREFIX)):
        fragment = variables[variable] or {}
        if not isinstance(fragment, dict):
            problems.append(Problem(host, variable, "is no mapping of profiles", "write it as name: {files: ...}"))
            continue
        for name, data in fragment.items():
            if name in origin:
                problems.append(
                    Problem(
                        host,
                        f"profile {name}",
                        f"is defined twice, in {origin[name]} and {variable}",
                        "rename or remove one of them",
                    )
                )
                continue
            origin[name] = variable
            found: list[Problem] = []
            profile = _record(host, f"profile {name}", Profile, data, found)
            if profile is not None:
                profiles[name] = profile
            elif name in needed:
                problems += found
                profiles[name] = _placeholder()
    shapes = catalogue.join_shapes(host, variables, problems)
    whole, found = catalogue.expand(host, profiles, shapes, used)
    problems += found
    return whole


def _bases(variables: Mapping[str, Any], used: set[str]) -> set[str]:
    """Return the names of the profiles that the used ones are based on."""
    parts = [variables[name] for name in variables if name.startswith(CATALOGUE_PREFIX)]
    wanted = [part[name] for part in parts if isinstance(part, dict) for name in used & part.keys()]
    return {str(data["based_on"]) for data in wanted if isinstance(data, dict) and data.get("based_on")}


def _placeholder() -> Profile:
    """Stand in for a profile that was reported already, so that it is not reported as missing too."""
    return Profile.model_validate({"files": [{"name": "x", "bytes": 1, "sha256": "0" * 64}]})


def _record(
    host: str,
    key: str,
    kind: type[R],
    data: object,
    problems: list[Problem],
    service: str | None = None,
) -> R | None:
    if data is None:
        problems.append(Problem(host, key, "is not declared", f"declare {key} in host_vars/{host}", service))
        return None
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        seen: set[str] = set()
        for item in error.errors(include_url=False):
            # A value that fits none of a union's types is reported once for each of them: once is enough.
            path = item["loc"][:2] if item["loc"][:1] in (("server",), ("server_defaults",)) else item["loc"]
            where = ".".join(str(part) for part in path)
            full = _VARIABLES.get(where.split(".")[0]) if not key else None
            full = full or (f"{key}.{where}" if key and where else key or where)
            if full not in seen:
                problems.append(Problem(host, full, _message(item), _remedy(item, kind), service))
            seen.add(full)
        return None


def _message(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return "is no key that llamarig knows"
    if item["type"] == "missing":
        return "is missing"
    text = str(item["msg"]).removeprefix("Value error, ")
    if _HIDDEN in item["loc"]:
        return "must be at least 16 printable characters without spaces (its value is not shown)"
    value = repr(item["input"])
    return text if value in text or len(value) > _LONG else f"{text}, not {value}"


def _remedy(item: Mapping[str, Any], kind: type[BaseModel]) -> str:
    last = str(item["loc"][-1]) if item["loc"] else ""
    known = list(kind.model_fields)
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(last, known, n=1)
        return f"did you mean {near[0]}?" if near else f"remove it; known keys: {', '.join(known)}"
    if item["type"] == "missing":
        return f"add {last}; see docs/reference/inventory.md"
    return f"correct {last or 'the value'}; see docs/reference/inventory.md"
