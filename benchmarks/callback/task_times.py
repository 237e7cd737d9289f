"""Write how long every task took, as JSON lines, to the file that LLAMARIG_TASK_TIMES names."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_times
type: aggregate
short_description: Write how long every task took
description: Writes one JSON line per task, for the scripts in benchmarks/.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible is not typed
    """A task lasts until the next one starts, over all hosts."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_times"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(os.environ["LLAMARIG_TASK_TIMES"])
        self.current: tuple[str, float] | None = None

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        self._close()
        self.current = (task.get_name(), time.monotonic())

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, is_conditional=False)

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ARG002
        self._close()

    def _close(self) -> None:
        if self.current is not None:
            name, start = self.current
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"task": name, "seconds": round(time.monotonic() - start, 4)}) + "\n")
            self.current = None
