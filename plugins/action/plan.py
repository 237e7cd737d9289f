"""The border between Ansible and the planner: this host's variables in, its plan out, no host touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

try:
    from llamarig.control.border import Border
    from llamarig.errors import ConfigError
    from llamarig.planning.host_files import manifest
    from llamarig.planning.intent import require_service
except ImportError as error:
    msg = f"the llamarig package cannot be imported ({error}): run ./scripts/setup and use .venv/bin/ansible-playbook"
    raise AnsibleActionFail(msg) from error

display = Display()
ROOT = Path(__file__).resolve().parents[2]


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Template the variables that the planner reads, plan, and return plain types."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        host = variables["inventory_hostname"]
        try:
            plan = self._plan(host, variables)
        except ConfigError as error:
            # Said once and in full here; what Ansible prints of a failed task's message, it prints twice.
            self._write(host, {"problems": [str(problem) for problem in error.problems]})
            for problem in error.problems:
                display.display(str(problem), color="red")
            count = len(error.problems)
            said = f"{count} problem{'s'[: count > 1]} in the inventory, said above; nothing was touched on any host"
            return {**result, "failed": True, "msg": said}
        self._write(host, plan)
        for text in plan["incomplete"]:
            display.display(f"cannot be deployed yet: {text}", color="yellow")
        # The manifest holds API keys; -v must not print it.
        return {**result, "changed": False, **plan, "_ansible_no_log": True}

    def _plan(self, host: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Plan, with what the role llama_service prints, and check the service that the command line names.

        Raises:
            ConfigError: with all problems at once.

        """
        arguments = self._task.args
        border = Border(ROOT, self._loader.load_from_file)
        if arguments.get("engine_only"):
            engine = border.engine(host, variables, self._templar)
            return {"host": host, "engine": engine, "image": engine["image"], "incomplete": []}
        only_plan = boolean(arguments.get("only_plan", False))
        found, keys = border.plan(host, variables, self._templar, only_plan=only_plan)
        plan = {**found.to_dict(), "manifest": manifest(found.specs, keys, found.policy, found.engine)}
        if arguments.get("switching"):
            require_service(host, plan["specs"], arguments.get("service"))
        return plan

    def _write(self, host: str, content: dict[str, Any]) -> None:
        directory = self._task.args.get("output")
        if directory:
            # The manifest may hold keys; what is written here is for reading.
            shown = {key: value for key, value in content.items() if key != "manifest"}
            (Path(directory) / f"{host}.json").write_text(json.dumps(shown, indent=2), encoding="utf-8")
