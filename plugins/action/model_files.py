"""Fetch or push model files with visible progress; the module checks and places them."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.path import unfrackpath

display = Display()
STALLED_SLICES = 6
SAY_EVERY_SECONDS = 10


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """One module run where nothing is missing; otherwise as many as the files need."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        host = (task_vars or {}).get("inventory_hostname", "?")
        sources = {entry["name"]: entry.get("path") for entry in self._task.args["files"]}
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
            for name in result["pushes"]:
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
        """Push with rsync, over the connection that Ansible has open; a broken push goes on where it stopped."""
        digest = next(entry["sha256"] for entry in self._task.args["files"] if entry["name"] == name)
        command = ["rsync", "--partial", "--append-verify", "--inplace", "--chmod=F600"]
        command += ["--info=progress2", "--outbuf=L"]
        if shutil.which(command[0]) is None:
            msg = "rsync is not installed on this control node: apt-get install rsync"
            raise AnsibleActionFail(msg)
        target = f"{incoming}/{digest}"
        if self._connection.transport == "ssh":
            if self._connection.become is not None:
                command.append("--rsync-path=sudo -n rsync")
            address, ssh = self._ssh()
            command.append(f"--rsh={shlex.join(ssh)}")
            target = f"{address}:{target}"
        elif self._connection.transport != "local":
            msg = f"model files are pushed over ssh; {host} has connection {self._connection.transport}"
            raise AnsibleActionFail(msg)
        display.display(f"  {host}: pushing {name} from {source}")
        said, last = time.monotonic(), ""
        with subprocess.Popen(
            [*command, source, target], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            for line in process.stdout or ():
                last = line.strip() or last
                if time.monotonic() - said >= SAY_EVERY_SECONDS:
                    said = time.monotonic()
                    display.display(f"  {host}: {name}: {last}")
        if process.returncode != 0:
            msg = f"{name} could not be pushed to {host}: {last[-500:]}; the next run goes on where this one stopped"
            raise AnsibleActionFail(msg)

    def _ssh(self) -> tuple[str, list[str]]:
        """Return the address and the ssh command that reach the host as Ansible does, over its open connection."""
        option = self._connection.get_option
        command = [option("ssh_executable")]
        for key in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
            command += shlex.split(option(key) or "")
        if option("port"):
            command += ["-p", str(option("port"))]
        if option("private_key_file"):
            command += ["-i", option("private_key_file")]
        if self._connection.control_path:
            socket = self._connection.control_path % {"directory": unfrackpath(option("control_path_dir"))}
            command += ["-o", f"ControlPath={socket}"]
        user = option("remote_user")
        return (f"{user}@{option('host')}" if user else option("host")), command
