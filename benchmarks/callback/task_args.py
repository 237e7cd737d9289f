"""Write what reached every host, as JSON lines, to the file that LLAMARIG_TASK_ARGS names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_args
type: aggregate
short_description: Write what reached every host
description: Writes one JSON line per host and task, with the module's arguments and its result, for benchmarks/.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible is not typed
    """Templates are rendered and defaults filled in by then: this is what the host was really asked for."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_args"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(os.environ["LLAMARIG_TASK_ARGS"])

    def v2_runner_on_ok(self, result: Any) -> None:
        data = dict(getattr(result, "result", None) or result._result)  # noqa: SLF001  ansible-core before 2.19
        self._write(result, {"args": data.pop("invocation", {}).get("module_args"), "result": data})

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._write(result, {"args": None, "result": None})

    def _write(self, result: Any, data: dict[str, Any]) -> None:
        task, host = result._task, result._host  # noqa: SLF001  no other way in ansible-core before 2.19
        role = task._role.get_name() if task._role else None  # noqa: SLF001
        line = {"host": host.get_name(), "role": role, "action": task.action, "task": task.get_name(), **data}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, default=str) + "\n")
