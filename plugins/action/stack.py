"""The border between Ansible and the decisions on the GPU stack: what the host is in, what to do out."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from llamarig.planning.stack import decide

display = Display()
_DONE = "done"


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Decide, say every problem at once, and with ``expect: done`` refuse a host that still needs something."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        host = (task_vars or {})["inventory_hostname"]
        arguments = self._task.args
        # What is said with -e is a word, and every word would be true.
        wanted = {**arguments["wanted"]}
        for part, key in (("driver", "managed"), ("driver", "replace"), ("driver", "reboot"), ("toolkit", "managed")):
            wanted[part] = {**wanted[part], key: boolean(wanted[part][key])}
        maintain = boolean(arguments.get("maintain", False))
        stack, problems = decide(host, arguments["facts"], wanted, maintain=maintain)
        if problems:
            for problem in problems:
                display.display(str(problem), color="red")
            count = len(problems)
            said = f"{count} problem{'s'[: count > 1]} with {host}, said above; nothing was changed"
            return {**result, "failed": True, "msg": said}
        if arguments.get("expect") == _DONE and (left := _left(stack.to_dict()["driver"])):
            said = f"{host}: the driver is not as it should be after everything was done: {left}"
            remedy = "look at dmesg and apt-get install --dry-run, or see docs/troubleshooting.md"
            return {**result, "failed": True, "msg": f"{said}\n    remedy: {remedy}"}
        return {**result, "changed": False, "warnings": stack.warnings, **stack.to_dict()}


def _left(driver: dict[str, Any]) -> str:
    """Say what the driver still needs, empty when nothing is left."""
    wanting = driver["packages"]["install"]
    if wanting:
        return f"it still wants {', '.join(wanting)}"
    return driver["reboot"] or ("its module is not loaded" if driver["load"] else "")
