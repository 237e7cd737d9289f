"""Load firewall rules on trial; only a new connection, which the rules themselves let through, can keep them."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Each host for itself, in one task: hosts of a fleet do not wait for each other while their timers run."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        seconds = int(self._task.args["seconds"])
        began = time.monotonic()
        result = self._module("tried", seconds, variables)
        if result.get("failed") or not result.get("changed") or self._task.check_mode:
            return result
        # Half of the time for trying, so that a connection that comes at last is not too late.
        while time.monotonic() < began + seconds / 2:
            try:
                self._new_connection()
                return self._module("kept", seconds, variables)
            except AnsibleConnectionFailure:
                time.sleep(1)
        back = self._wait_until_undone(began + seconds + 30)
        msg = (
            f"the new rules let no new connection to {variables['inventory_hostname']} through, and were undone after"
            f" {seconds} s; the host {'answers again' if back else 'does not answer yet'}. They are in"
            " /etc/llamarig/firewall.planned.nft there: compare its ssh_ports with the port that you connect to"
        )
        raise AnsibleActionFail(msg)

    def _module(self, state: str, seconds: int, task_vars: dict[str, Any]) -> dict[str, Any]:
        arguments = {"state": state, "seconds": seconds}
        result: dict[str, Any] = self._execute_module(
            module_name="firewall_rules", module_args=arguments, task_vars=task_vars
        )
        return result

    def _new_connection(self) -> None:
        """Leave the connection that is open: established traffic passes whatever the rules say of SSH."""
        self._connection.reset()

    def _wait_until_undone(self, until: float) -> bool:
        while time.monotonic() < until:
            try:
                self._new_connection()
                self._low_level_execute_command("true")
            except AnsibleConnectionFailure:
                time.sleep(1)
            else:
                return True
        return False
