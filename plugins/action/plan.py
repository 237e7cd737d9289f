"""The border between Ansible and the planner: this host's variables in, its plan out, no host touched."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

try:
    from llamarig.control.sources import check_local_models
    from llamarig.errors import ConfigError, Problem
    from llamarig.planning.intent import plan_host, require_service
except ImportError as error:
    msg = f"the llamarig package cannot be imported ({error}): run ./scripts/setup and use .venv/bin/ansible-playbook"
    raise AnsibleActionFail(msg) from error

display = Display()
ROOT = Path(__file__).resolve().parents[2]
SPEC_KEYS = {"type", "elements", "choices", "options"}
# Roles whose name is an everyday word: a site may have variables of its own that begin with it.
COMMON_WORDS = {"agent", "plan", "verify"}
# Results of roles that ran before in the same run.
ROLES_OWN = {"plan_host", "preflight_host", "preflight_platform", "preflight_stack"}
WANTED = ("fleet_", "llm_", "host_hardware", "llama_image_engine", "firewall_allow", "firewall_enabled")


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Template the variables that the planner reads, plan, and return plain types."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        host = variables["inventory_hostname"]
        try:
            problems = self._role_problems(host, variables)
            intent = self._intent(host, variables, problems)
            plan = self._plan(host, intent, problems)
        except ConfigError as error:
            # Said once and in full here; what Ansible prints of a failed task's message, it prints twice.
            self._write(host, {"problems": [str(problem) for problem in error.problems]})
            for problem in error.problems:
                display.display(str(problem), color="red")
            count = len(error.problems)
            said = f"{count} problem{'s'[: count > 1]} in the inventory, said above; nothing was touched on any host"
            return {**result, "failed": True, "msg": said}
        self._write(host, plan)
        # The manifest holds API keys; -v must not print it.
        return {**result, "changed": False, **plan, "_ansible_no_log": True}

    def _plan(self, host: str, intent: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
        """Plan, and check what needs this machine's disk or the command line.

        Raises:
            ConfigError: with the problems found before and here, all at once.

        """
        plan: dict[str, Any] = {}
        try:
            plan = plan_host(host, intent)
            check_local_models(host, plan["sources"], ROOT)
            if self._task.args.get("switching"):
                require_service(host, plan["specs"], self._task.args.get("service"))
        except ConfigError as error:
            problems += error.problems
        if problems:
            raise ConfigError(problems)
        return plan

    def _intent(self, host: str, variables: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
        """Template what the planner reads; a value that cannot be is a problem like any other."""
        intent = {}
        for key in sorted(variables):
            if not key.startswith(WANTED):
                continue
            try:
                intent[key] = _plain(self._templar.template(variables[key]))
            except AnsibleError as error:
                remedy = "define what it refers to, in host_vars or a vault"
                problems.append(Problem(host, key, str(error).splitlines()[0], remedy))
        return intent

    def _role_problems(self, host: str, variables: dict[str, Any]) -> list[Problem]:
        """Check every role input that the inventory sets against its role's argument spec, before any role runs.

        Inputs that depend on the host itself cannot be templated yet, and are not the inventory's to get wrong.
        """
        problems = []
        for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
            role = path.parents[1].name
            options = self._loader.load_from_file(str(path))["argument_specs"]["main"]["options"]
            said = {}
            for name in (key for key in variables if key.startswith(f"{role}_") and key not in ROLES_OWN):
                if name not in options and role not in COMMON_WORDS:
                    near = difflib.get_close_matches(name, options, n=1)
                    remedy = f"did you mean {near[0]}?" if near else f"roles/{role}/README.md lists its variables"
                    problems.append(Problem(host, name, f"is no variable of the role {role}", remedy))
                elif name in options:
                    try:
                        said[name] = _plain(self._templar.template(variables[name]))
                    except AnsibleError:
                        continue
            spec = {name: {k: v for k, v in options[name].items() if k in SPEC_KEYS} for name in said}
            problems += [
                Problem(host, f"role {role}", message, f"see roles/{role}/README.md")
                for message in ArgumentSpecValidator(spec).validate(said).error_messages
            ]
        return problems

    def _write(self, host: str, content: dict[str, Any]) -> None:
        directory = self._task.args.get("output")
        if directory:
            # The manifest may hold keys; what is written here is for reading.
            shown = {key: value for key, value in content.items() if key != "manifest"}
            (Path(directory) / f"{host}.json").write_text(json.dumps(shown, indent=2), encoding="utf-8")


def _plain(value: object) -> object:
    """Turn Ansible's tagged and lazy containers into plain ones."""
    if isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
