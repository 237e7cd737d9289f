"""The steps of playbooks/lock.yml and playbooks/vendor.yml, which are all of the control node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from llamarig.control.engine_lock import SOURCE, read_lock, rendered, write_lock
from llamarig.control.engine_steps import Asked, lock_engine, vendor_engine
from llamarig.errors import LlamarigError

ROOT: Final = Path(__file__).resolve().parents[2]
display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """``step: lock`` looks up commit and digests; ``step: vendor`` has the archive, locking before where need be.

    In check mode lock and archive stay as they are; only .cache gets what is fetched to see what they would be.
    """

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args
        path = Path(str(arguments["lock"]))
        try:
            before = read_lock(path)
            lock, made = before, False
            warnings: list[str] = []
            unlocked = not (before.get(SOURCE) or {}).get("commit")
            if arguments["step"] == "lock" or unlocked or arguments.get("ref"):
                lock, warnings = lock_engine(ROOT, path, before, self._asked(task_vars or {}), self._say)
            if arguments["step"] == "vendor":
                said = str(arguments.get("prune", ""))
                pruned = boolean(said) if said else None
                dry = self._task.check_mode
                lock, made = vendor_engine(ROOT, path, lock, self._say, pruned=pruned, dry=dry)
            changed = self._write(path, lock, result) or made
        except LlamarigError as error:
            return {**result, "failed": True, "msg": f"{error.message}\n    remedy: {error.remedy}"}
        except OSError as error:
            said = f"{error.filename or path}: {error.strerror or error}"
            return {**result, "failed": True, "msg": f"{said}\n    remedy: see to room and rights there"}
        return {**result, "changed": changed, "warnings": warnings, "locked": lock}

    def _asked(self, variables: Mapping[str, Any]) -> Asked:
        arguments = self._task.args
        insecure = arguments.get("insecure_registries") or []
        return Asked(
            ref=str(arguments.get("ref") or ""),
            count=boolean(arguments.get("count", False)),
            bases=set(_bases(variables)),
            insecure=insecure.split(",") if isinstance(insecure, str) else list(insecure),
        )

    def _write(self, path: Path, lock: dict[str, Any], result: dict[str, Any]) -> bool:
        before = path.read_text(encoding="utf-8")
        after = rendered(path, before, lock)
        result["diff"] = {"before": before, "after": after, "before_header": str(path), "after_header": str(path)}
        if self._task.check_mode:
            return before != after
        return write_lock(path, lock)

    def _say(self, text: str) -> None:
        display.display(f"  {text}")


def _bases(variables: Mapping[str, Any]) -> Iterator[str]:
    """Yield the base images of all hosts: a mirror may be named for some of them alone."""
    for host in variables["groups"]["gpu_hosts"]:
        try:
            bases = variables["hostvars"][host].get("llama_image_bases")
        except AnsibleError:
            # Its variables cannot be read before something else is there; its plan will say so.
            continue
        for backend in (bases or {}).values():
            yield from (str(name) for name in (backend or {}).values())
