"""The border between Ansible and the planner: this host's variables in, its plan out, no host touched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

try:
    from llamarig.control.sources import check_local_models
    from llamarig.errors import ConfigError
    from llamarig.planning.intent import plan_host, require_service
except ImportError as error:
    msg = f"the llamarig package cannot be imported ({error}): run ./scripts/setup and use .venv/bin/ansible-playbook"
    raise AnsibleActionFail(msg) from error

display = Display()
ROOT = Path(__file__).resolve().parents[2]
WANTED = ("fleet_", "llm_", "host_hardware", "llama_image_engine")


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Template the variables that the planner reads, plan, and return plain types."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        host = variables["inventory_hostname"]
        intent = {key: _plain(self._templar.template(variables[key])) for key in variables if key.startswith(WANTED)}
        try:
            plan = plan_host(host, intent)
            check_local_models(host, plan["sources"], ROOT)
            if self._task.args.get("switching"):
                require_service(host, plan["specs"], self._task.args.get("service"))
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
