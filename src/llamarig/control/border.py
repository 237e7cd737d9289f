"""The border between Ansible and the planner: a host's variables as Ansible templates them in, its plan out.

The action plugin of the role plan crosses it for one host of a deployment, ``inventory.py`` for a whole inventory.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from llamarig.config.engine import PREFIX, Engine
from llamarig.control.sources import add_local_shapes, check_local_models
from llamarig.errors import ConfigError, Problem
from llamarig.planning.intent import ENGINE_FILES, read_engine, read_plan
from llamarig.planning.plan import Plan

# What the planner reads of a host's variables.
_WANTED: Final = (
    *(PREFIX + name for name in Engine.model_fields),
    *("fleet_", "llm_", "host_hardware", "firewall_allow", "firewall_enabled"),
)
# What goes into a build beside the source.
ENGINE_FILE_NAMES: Final = ("Dockerfile", "entrypoint.sh")
_SPEC_KEYS: Final = {"type", "elements", "choices", "options"}
# Roles whose name is an everyday word: a site may have variables of its own that begin with it.
_COMMON_WORDS: Final = {"agent", "door", "exporter", "monitoring", "plan", "verify"}
_REGISTER: Final = re.compile(r"^\s+register: (\w+)$", re.MULTILINE)
_JINJA: Final = re.compile(r"\{[{%#]|^#jinja2:")
_TEMPLATE: Final = object()


class Templar(Protocol):
    """What of Ansible's Templar is used here."""

    def template(self, variable: object) -> object:
        """Return a value with its templates replaced.

        Raises:
            AnsibleError: what a template refers to is not there.

        """
        ...


class Border:
    """The border of one run: what does not change from host to host is read once."""

    def __init__(self, root: Path, load: Callable[[str], Any]) -> None:
        """Take the checkout, and how Ansible loads a YAML file."""
        self._root = root
        self._load = load
        self._plain: dict[int, tuple[object, object]] = {}

    def plan(
        self, host: str, variables: Mapping[str, Any], templar: Templar, *, only_plan: bool = False
    ) -> tuple[Plan, dict[str, str]]:
        """Plan a host from its variables, checking what needs this machine's disk; keys of services are beside it.

        With ``only_plan`` the plan may be one that cannot be deployed yet: ``incomplete`` says what is missing.

        Raises:
            ConfigError: with every problem found.

        """
        problems = self._role_problems(host, variables, templar)
        intent = self._intent(host, variables, templar, problems)
        try:
            add_local_shapes(host, intent, self._root)
            intent[ENGINE_FILES] = self._engine_files
            plan, keys = read_plan(host, intent, only_plan=only_plan)
        except ConfigError as error:
            raise ConfigError([*problems, *error.problems]) from None
        try:
            # What is not known of a file was said.
            known = [item for item in plan.sources if item["bytes"] and item["sha256"]]
            check_local_models(host, known, self._root)
        except ConfigError as error:
            (plan.incomplete if only_plan else problems).extend(error.problems)
        if problems:
            raise ConfigError(problems)
        return plan, keys

    def engine(self, host: str, variables: Mapping[str, Any], templar: Templar) -> dict[str, Any]:
        """Return the host's engine alone, as its plan has it.

        Raises:
            ConfigError: with every problem of the engine and of the declared hardware.

        """
        problems: list[Problem] = []
        intent = self._intent(host, variables, templar, problems)
        if problems:
            raise ConfigError(problems)
        return read_engine(host, intent | {ENGINE_FILES: self._engine_files})

    def _intent(
        self, host: str, variables: Mapping[str, Any], templar: Templar, problems: list[Problem]
    ) -> dict[str, Any]:
        """Template what the planner reads; a value that cannot be is a problem like any other."""
        intent = {}
        for key in sorted(variables):
            if not key.startswith(_WANTED):
                continue
            try:
                intent[key] = self._templated(variables[key], templar)
            except AnsibleError as error:
                remedy = "define what it refers to, in host_vars or a vault"
                problems.append(Problem(host, key, str(error).splitlines()[0], remedy))
        return intent

    def _templated(self, value: object, templar: Templar) -> object:
        """Return a value templated, in plain types; what holds no template is the same for every host that has it."""
        found = self._plain.get(id(value))
        if found is None:
            # The value is kept beside what became of it, so that its id stays its own.
            found = self._plain[id(value)] = (value, _literal(value))
        return plain(templar.template(value)) if found[1] is _TEMPLATE else found[1]

    def _role_problems(self, host: str, variables: Mapping[str, Any], templar: Templar) -> list[Problem]:
        """Check every role input that the inventory sets against its role's argument spec, before any role runs.

        What the fleet layer hands from the plan to the roles is not the inventory's to get wrong. Nor are inputs that
        depend on the host itself; they cannot be templated yet.
        """
        problems = []
        for role, options in self._roles.items():
            said = {}
            for name in self._beginning(variables, role):
                if name not in options and role not in _COMMON_WORDS:
                    near = difflib.get_close_matches(name, options, n=1)
                    remedy = f"did you mean {near[0]}?" if near else f"roles/{role}/README.md lists its variables"
                    problems.append(Problem(host, name, f"is no variable of the role {role}", remedy))
                elif name in options and not (name in self._handed and variables[name] == self._handed[name]):
                    try:
                        said[name] = self._templated(variables[name], templar)
                    except AnsibleError:
                        continue
            spec = {name: {k: v for k, v in options[name].items() if k in _SPEC_KEYS} for name in said}
            problems += [
                Problem(host, f"role {role}", message, f"see roles/{role}/README.md")
                for message in (ArgumentSpecValidator(spec).validate(said).error_messages if said else ())
            ]
        return problems

    @cached_property
    def _engine_files(self) -> str:
        """The checksum of what is built beside the engine's source; a changed Dockerfile is another engine."""
        folder = self._root / "templates" / "llama_image"
        digest = hashlib.sha256()
        for name in ENGINE_FILE_NAMES:
            digest.update(f"{name}\0".encode() + (folder / name).read_bytes())
        return digest.hexdigest()

    @cached_property
    def _roles(self) -> dict[str, dict[str, Any]]:
        """The options of every role, by its name."""
        return {
            path.parents[1].name: self._load(str(path))["argument_specs"]["main"]["options"]
            for path in sorted(self._root.glob("roles/*/meta/argument_specs.yml"))
        }

    @cached_property
    def _registered(self) -> set[str]:
        """Results of roles that may have run before in the same run, and what preflight loads from its own vars/."""
        texts = [path.read_text(encoding="utf-8") for path in self._root.glob("roles/*/tasks/*.yml")]
        return {"preflight_platform", *(name for text in texts for name in _REGISTER.findall(text))}

    def _beginning(self, variables: Iterable[str], role: str) -> list[str]:
        return [name for name in variables if name.startswith(f"{role}_") and name not in self._registered]

    @cached_property
    def _handed(self) -> dict[str, Any]:
        """What the fleet layer hands to the roles, by variable."""
        handed: dict[str, Any] = self._load(str(self._root / "group_vars/gpu_hosts/roles.yml"))
        return handed


def _literal(value: object) -> object:
    """Return a value of plain types; ``_TEMPLATE`` where Ansible has to be asked what it is."""
    if isinstance(value, Mapping):
        pairs = {str(key): _literal(item) for key, item in value.items()}
        return _TEMPLATE if any(item is _TEMPLATE for item in pairs.values()) else pairs
    if isinstance(value, list):
        items = [_literal(item) for item in value]
        return _TEMPLATE if any(item is _TEMPLATE for item in items) else items
    if isinstance(value, str):
        return _TEMPLATE if _JINJA.search(value) else plain(value)
    return plain(value) if value is None or isinstance(value, (bool, int, float)) else _TEMPLATE


def plain(value: object) -> object:
    """Turn Ansible's tagged and lazy containers into plain ones."""
    if isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
