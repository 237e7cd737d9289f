"""Build the agent's release on the control node where a host needs one, send it, and let the module deploy it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from llamarig.control.release import Release
from llamarig.errors import LlamarigError

ROOT = Path(__file__).resolve().parents[2]
display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """One module run where the host has the release; otherwise build, send, deploy."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        host = (task_vars or {}).get("inventory_hostname", "?")
        try:
            release = Release(ROOT, python=arguments.pop("python"), machine=arguments.pop("machine"))
            arguments["release"] = release.name
            result = self._module(arguments, task_vars)
            if not result.get("needed") or result.get("failed"):
                return result
            display.display(f"  {host}: release {release.name} for Python {release.python}")
            archive, digest = release.build()
        except LlamarigError as error:
            return {"failed": True, "msg": f"{error.message}: {error.remedy}"}
        directory = self._make_tmp_path()
        remote = self._transfer_file(str(archive), self._connection._shell.join_path(directory, archive.name))  # noqa: SLF001  as ActionBase itself
        try:
            return self._module({**arguments, "archive": remote, "archive_sha256": digest}, task_vars)
        finally:
            self._remove_tmp_path(directory)

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="agent_release", module_args=arguments, task_vars=task_vars
        )
        return {**result, "release": arguments["release"]}
