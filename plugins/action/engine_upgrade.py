"""The steps of an upgrade and of a way back that are the control node's: candidate, help, back, adopt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from llamarig.control import engine_upgrade
from llamarig.control.border import plain
from llamarig.control.engine_lock import read_lock, write_lock
from llamarig.errors import LlamarigError

ROOT: Final = Path(__file__).resolve().parents[2]
display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Run one step; files are written outside check mode alone, and only where they change."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = {key: plain(value) for key, value in self._task.args.items()}
        step = {"candidate": self._candidate, "help": self._help, "back": self._back, "adopt": self._adopt}
        try:
            return {**result, **step[str(arguments["step"])](arguments, task_vars or {})}
        except LlamarigError as error:
            return {**result, "failed": True, "msg": f"{error.message}\n    remedy: {error.remedy}"}

    def _candidate(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Write the lock that the upgrade would leave, and choose the canary."""
        plans = {host: variables["hostvars"][host]["plan_host"] for host in variables["ansible_play_hosts_all"]}
        canary = engine_upgrade.canary(plans, arguments["canary"])
        recipes = {str(plan["engine"]["recipe"]) for plan in plans.values()}
        if len(recipes) > 1:
            remedy = "--limit the run to the hosts of one recipe"
            raise LlamarigError(f"the hosts have engines of several recipes: {', '.join(sorted(recipes))}", remedy)
        asked = engine_upgrade.Asked(arguments["ref"], arguments["image"], arguments["version"])
        path = Path(arguments["lock"])
        lock = read_lock(path)
        wanted = engine_upgrade.candidate(ROOT, path, lock, recipes.pop(), asked, display.display)
        if engine_upgrade.adopted(lock, wanted):
            display.display("the fleet's lock names this engine already; hosts that lack it get it")
            wanted = dict(lock)
        return {"changed": self._write(arguments["candidate"], wanted), "canary": canary}

    def _help(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Record the candidate's options, and let its lock name them."""
        path = Path(arguments["candidate"])
        recipe = str(plain(variables["plan_host"]["engine"]["recipe"]))
        lock, recorded = engine_upgrade.with_help(ROOT, read_lock(path), recipe, arguments["text"])
        written = self._write(path, lock)
        return {"changed": recorded or written}

    def _back(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Decide which hosts go back, and write the lock that is the fleet's afterwards."""
        hosts = variables["ansible_play_hosts_all"]
        seen = {host: plain(variables["hostvars"][host]["llama_image_seen"]["data"]) for host in hosts}
        engines = {host: data.get("engine") for host, data in seen.items() if isinstance(data, dict)}
        found = engine_upgrade.back(read_lock(Path(arguments["lock"])), engines)
        display.display(found.why)
        return {"changed": self._write(arguments["candidate"], found.lock), "hosts": found.hosts, "why": found.why}

    def _adopt(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Let the fleet's lock be the candidate; a run over a part of the fleet leaves it."""
        left_out = engine_upgrade.limited(variables["ansible_play_hosts_all"], variables["groups"]["gpu_hosts"])
        if left_out:
            msg = f"the lock stays: {', '.join(left_out)} had no part in this run, and site.yml follows the lock"
            display.display(msg, color="yellow")
            return {"changed": False, "msg": msg}
        return {"changed": self._write(arguments["lock"], read_lock(Path(arguments["candidate"])))}

    def _write(self, path: str | Path, lock: dict[str, Any]) -> bool:
        path = Path(path)
        if self._task.check_mode:
            return not path.exists() or read_lock(path) != lock
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_lock(path, lock)
