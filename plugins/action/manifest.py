"""Render the templates of a manifest on the control node, then hand the whole to the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

_JINJA = {"trim_blocks": True, "lstrip_blocks": True}


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """An entry with ``template`` becomes one with ``content``; nothing else is touched."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        arguments = dict(self._task.args)
        for key in ("files", "secrets"):
            arguments[key] = [self._rendered(dict(entry), task_vars) for entry in arguments.get(key, [])]
        result: dict[str, Any] = self._execute_module(
            module_name="manifest", module_args=arguments, task_vars=task_vars
        )
        return result

    def _rendered(self, entry: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        name = entry.pop("template", None)
        variables = entry.pop("vars", {})
        if name is None:
            return entry
        try:
            source = Path(self._find_needle("templates", name))
        except Exception as error:
            msg = f"{entry.get('path')}: no template {name!r} beside this role"
            raise AnsibleActionFail(msg) from error
        templar = self._templar.copy_with_new_env(
            searchpath=[str(source.parent)], available_variables={**task_vars, **variables}
        )
        text = trust_as_template(source.read_text(encoding="utf-8"))
        content = templar.template(text, escape_backslashes=False, overrides=_JINJA)
        return {**entry, "content": content}
