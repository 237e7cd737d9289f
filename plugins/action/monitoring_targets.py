"""The border between Ansible and where Prometheus scrapes: variables of all hosts in, targets out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from llamarig.planning.targets import READ, targets

display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Decide, and say every problem at once."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        everybody = task_vars["hostvars"]
        hosts = {
            str(host): {name: everybody[host][name] for name in READ if name in everybody[host]}
            for host in self._task.args["hosts"]
        }
        for variables in hosts.values():
            # What is said with -e is a word, and every word would be true.
            for name in variables.keys() & {"exporter_enabled", "monitoring_node_enabled"}:
                variables[name] = boolean(variables[name])
        found, problems = targets(task_vars["inventory_hostname"], hosts)
        for problem in problems:
            display.display(str(problem), color="red")
        if problems:
            count = len(problems)
            said = f"{count} problem{'s'[: count > 1]} with what is to be scraped, said above; nothing was changed"
            return {**result, "failed": True, "msg": said}
        return {**result, "changed": False, **asdict(found)}
