"""Fetch or push model files with visible progress; the module checks and places them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from llamarig.control import rsync
from llamarig.errors import LlamarigError

display = Display()
STALLED_SLICES = 6


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """One module run where nothing is missing; otherwise as many as the files need."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        host = (task_vars or {}).get("inventory_hostname", "?")
        sources = {entry["name"]: entry.get("path") for entry in self._task.args["files"]}
        digests = {entry["name"]: entry["sha256"] for entry in self._task.args["files"]}
        fetched: list[str] = []
        pushed: set[str] = set()
        before: list[tuple[str, int]] = []
        stalled = 0
        while True:
            result: dict[str, Any] = self._execute_module(
                module_name="model_files", module_args=self._task.args, task_vars=task_vars
            )
            fetched += result.get("fetched", [])
            result |= {"fetched": fetched, "changed": bool(fetched)}
            if result.get("failed") or not (result.get("pushes") or result.get("unfinished")):
                return result
            progress = [(item["name"], item["done"]) for item in result["unfinished"]]
            stalled = stalled + 1 if progress and progress == before else 0
            before = progress
            if stalled == STALLED_SLICES:
                return {
                    **result,
                    "failed": True,
                    "msg": f"not a byte of {progress[0][0]} arrived in {STALLED_SLICES} tries:"
                    " check that the host reaches its url; the next run goes on where this one stopped",
                }
            for item in result["unfinished"]:
                share = 100 * item["done"] / item["bytes"]
                size = f"{item['done'] / 2**30:.2f} of {item['bytes'] / 2**30:.2f} GiB"
                display.display(f"  {host}: {item['name']}: {size} ({share:.0f} %)")
            # Two names of the same bytes come one after the other: what is under way is called by its checksum.
            for name in {digests[name]: name for name in reversed(result["pushes"])}.values():
                if name in pushed:
                    return {
                        **result,
                        "failed": True,
                        "msg": f"{name} was pushed and did not arrive whole: run it again",
                    }
                pushed.add(name)
                if not sources.get(name):
                    return {
                        **result,
                        "failed": True,
                        "msg": f"{name} is not on the host and its profile names neither url nor path:"
                        f" copy it to {self._task.args['directory']}/{name}, or name a source",
                    }
                self._push(host, name, str(sources[name]), result["incoming"])

    def _push(self, host: str, name: str, source: str, incoming: str) -> None:
        digest = next(entry["sha256"] for entry in self._task.args["files"] if entry["name"] == name)
        display.display(f"  {host}: pushing {name} from {source}")
        try:
            rsync.push(
                self._connection,
                Path(source),
                f"{incoming}/{digest}",
                lambda said: display.display(f"  {host}: {name}: {said}"),
            )
        except LlamarigError as error:
            msg = f"{name} could not be pushed to {host}: {error.message}; {error.remedy}"
            raise AnsibleActionFail(msg) from error
