#!/usr/bin/python
"""Converge everything a role owns on a host in one pass."""

from __future__ import annotations

import fnmatch
import grp
import os
import pwd
import shutil
import stat
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: manifest
short_description: Converge everything a role owns on a host in one pass
description:
  - Takes the whole manifest of a role - directories, files, secrets, links, absences, units - and converges it in one
    module run, because every run costs the host about 0.2 s whatever it does.
  - Reports exactly which paths and units changed, so that handlers and restarts can follow exactly.
  - Unit files that changed are made known to systemd by one daemon-reload, before units are looked at.
  - Entries of C(files) and C(secrets) may name a C(template) instead of C(content); it is rendered on the control node
    with the entry's C(vars).
options:
  directories:
    description: Directories to exist, with O(directories[].path), V(owner), V(group), V(mode).
    type: list
    elements: dict
    default: []
  files:
    description:
      - Files with their full content.
      - With V(validate), a command in which %s stands for the new file, the file is put in place only if it succeeds.
    type: list
    elements: dict
    default: []
  secrets:
    description: As O(files), but the content is never logged and never part of a diff.
    type: list
    elements: dict
    default: []
  links:
    description: Symbolic links, as V(path) and V(target).
    type: list
    elements: dict
    default: []
  absent:
    description: Paths that must not exist.
    type: list
    elements: path
    default: []
  prune:
    description:
      - Sweeps; in V(directory), entries whose name matches V(pattern) and that this manifest does not name are removed.
      - With V(contains), only files that hold this text are removed.
      - With V(units), they are unit files; each is stopped and disabled before it goes.
    type: list
    elements: dict
    default: []
  units:
    description:
      - Units with V(name), and V(enabled) and V(active) as booleans where the role decides them.
      - With V(restart_on), a unit that runs is restarted when one of these paths changed in this pass; with
        V(reload_on), it is told to read them anew.
    type: list
    elements: dict
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
"""
EXAMPLES = r"""
- name: Configure the engine
  manifest:
    files:
      - {path: /etc/docker/daemon.json, content: "{}", mode: "0644"}
    units:
      - {name: docker.service, enabled: true, active: true}
"""
RETURN = r"""
changed_paths: {description: Paths written or given other attributes., returned: always, type: list}
removed_paths: {description: Paths removed., returned: always, type: list}
changed_units: {description: What units were told, as C(verb unit)., returned: always, type: list}
"""

_ATTRIBUTES = {
    "path": {"type": "path", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}
_FILE = {
    **_ATTRIBUTES,
    "content": {"type": "str", "required": True},
    "mode": {"type": "str", "default": "0644"},
    "validate": {"type": "str", "default": ""},
}


class Manifest:
    """One pass over the manifest; ``check_mode`` decides nothing but whether the hand moves."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, list[dict[str, Any]]] = module.params
        self.dry = bool(module.check_mode)
        self.changed: list[str] = []
        self.removed: list[str] = []
        self.units: list[str] = []
        self.diff: list[dict[str, str]] = []

    def run(self) -> dict[str, Any]:
        for entry in self.params["directories"]:
            self._directory(entry)
        for entry in self.params["files"]:
            self._file(entry, secret=False)
        for entry in self.params["secrets"]:
            self._file(entry, secret=True)
        for entry in self.params["links"]:
            self._link(entry)
        # Units are stopped while what they need to stop is still there.
        for entry in self.params["prune"]:
            self._prune(entry)
        for path in self.params["absent"]:
            self._absent(str(path))
        self._units()
        return {
            "changed": bool(self.changed or self.removed or self.units),
            "changed_paths": self.changed,
            "removed_paths": self.removed,
            "changed_units": self.units,
            "diff": self.diff,
        }

    def _directory(self, entry: dict[str, Any]) -> None:
        path = entry["path"]
        if not os.path.isdir(path):
            if os.path.lexists(path):
                self.module.fail_json(msg=f"{path} exists and is no directory: move it away")
            self._note(path, "absent", "directory")
            if not self.dry:
                os.makedirs(path)
        self._attributes(path, entry)

    def _file(self, entry: dict[str, Any], *, secret: bool) -> None:
        path, wanted = entry["path"], entry["content"].encode()
        if os.path.isdir(path):
            self.module.fail_json(msg=f"{path} is a directory, a file was expected: move it away")
        try:
            with open(path, "rb") as handle:
                present = None if os.path.islink(path) else handle.read()
        except FileNotFoundError:
            present = None
        if present != wanted:
            before = "" if present is None or secret else present.decode(errors="replace")
            self._note(path, before, "" if secret else entry["content"])
            if not self.dry:
                os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
                descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".manifest-")
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(wanted)
                    stream.flush()
                    os.fsync(stream.fileno())
                try:
                    self._apply(temporary, entry)
                    self._validate(temporary, entry)
                    os.replace(temporary, path)
                except BaseException:
                    os.unlink(temporary)
                    raise
        self._attributes(path, entry)

    def _validate(self, temporary: str, entry: dict[str, Any]) -> None:
        """Let the program that will read the file judge it first; it would stop at a bad one."""
        if not entry["validate"]:
            return
        code, out, err = self.module.run_command(entry["validate"].replace("%s", temporary))
        if code != 0:
            said = (err.strip() or out.strip()).replace(temporary, entry["path"])
            remedy = "correct the variables that the file is made of, in host_vars"
            msg = f"{entry['path']} would not be accepted and was left as it is: {said}\n    remedy: {remedy}"
            self.module.fail_json(msg=msg)

    def _link(self, entry: dict[str, Any]) -> None:
        path, target = entry["path"], entry["target"]
        if os.path.islink(path) and os.readlink(path) == target:
            return
        if os.path.lexists(path) and not os.path.islink(path):
            self.module.fail_json(msg=f"{path} exists and is no link: move it away")
        self._note(path, os.readlink(path) if os.path.islink(path) else "absent", target)
        if not self.dry:
            temporary = f"{path}.manifest"
            if os.path.lexists(temporary):
                os.unlink(temporary)
            os.symlink(target, temporary)
            os.replace(temporary, path)

    def _absent(self, path: str) -> None:
        if not os.path.lexists(path):
            return
        self.removed.append(path)
        self.diff.append({"before_header": path, "after_header": path, "before": "present\n", "after": "absent\n"})
        if self.dry:
            return
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def _prune(self, entry: dict[str, Any]) -> None:
        directory = entry["directory"]
        if not os.path.isdir(directory):
            return
        named = {str(item["path"]) for key in ("directories", "files", "secrets", "links") for item in self.params[key]}
        parents = {os.path.dirname(path) for path in named}
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            if path in named or path in parents or not fnmatch.fnmatch(name, entry["pattern"]):
                continue
            if entry["contains"]:
                try:
                    with open(path, encoding="utf-8", errors="replace") as handle:
                        if entry["contains"] not in handle.read():
                            continue
                except OSError:
                    continue
            if entry["units"] and not self.dry:
                self._systemctl("disable", "--now", name)
                self.module.run_command(["systemctl", "reset-failed", name])
            self._absent(path)

    def _units(self) -> None:
        own = "/etc/systemd/system/"
        paths = self.changed + self.removed + [str(entry["path"]) for entry in self.params["files"]]
        files = [os.path.basename(path) for path in paths if path.startswith(own)]
        entries = self.params["units"]
        names = [entry["name"] for entry in entries]
        states = self._states([*names, *files])
        touched = any(path.startswith(own) for path in self.changed + self.removed)
        # A run that broke off may have left a unit file that systemd has not read.
        owed = any(state.get("NeedDaemonReload") == "yes" for state in states.values())
        if (touched or owed) and not self.dry:
            self._systemctl("daemon-reload")
            states = self._states(names)
        for entry in entries:
            state = states.get(entry["name"], {})
            enabled = state.get("UnitFileState") in ("enabled", "static", "alias", "indirect")
            active = state.get("ActiveState") in ("active", "activating", "reloading")
            self._unit(entry["name"], entry["enabled"], enabled, ("enable", "disable"))
            self._unit(entry["name"], entry["active"], active, ("start", "stop"))
            if not (active and entry["active"]):
                continue
            if self._is_due(entry["restart_on"], state.get("ActiveEnterTimestamp", "")):
                self._unit(entry["name"], wanted=True, present=False, verbs=("restart", ""))
            elif self._is_due(entry["reload_on"], state.get("StateChangeTimestamp", "")):
                self._unit(entry["name"], wanted=True, present=False, verbs=("reload", ""))

    def _is_due(self, paths: list[str], read: str) -> bool:
        """Tell whether the unit runs with what the paths held before, be it that an earlier run broke off."""
        if set(paths) & {*self.changed, *self.removed}:
            return True
        since = float(read.lstrip("@") or 0)
        # systemd says whole seconds: a path of the same second was there first, or it would be restarted for ever.
        return since > 0 and any(os.path.exists(path) and os.stat(path).st_mtime > since + 1 for path in paths)

    def _unit(self, name: str, wanted: bool | None, present: bool, verbs: tuple[str, str]) -> None:
        if wanted is None or wanted == present:
            return
        verb = verbs[0] if wanted else verbs[1]
        self.units.append(f"{verb} {name}")
        self.diff.append({"before_header": name, "after_header": name, "before": "", "after": f"{verb}\n"})
        if not self.dry:
            self._systemctl(verb, name)

    def _states(self, names: list[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        properties = "Id,UnitFileState,ActiveState,NeedDaemonReload,ActiveEnterTimestamp,StateChangeTimestamp"
        code, out, _ = self.module.run_command(
            ["systemctl", "show", "--timestamp=unix", f"--property={properties}", *names]
        )
        states: dict[str, dict[str, str]] = {}
        if code == 0:
            for name, block in zip(names, out.strip().split("\n\n"), strict=False):
                states[name] = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        return states

    def _systemctl(self, *arguments: str) -> None:
        code, out, err = self.module.run_command(["systemctl", *arguments])
        if code != 0:
            self.module.fail_json(
                msg=f"systemctl {' '.join(arguments)} failed: {(err or out).strip()}", changed_paths=self.changed
            )

    def _attributes(self, path: str, entry: dict[str, Any]) -> None:
        """Owner, group and mode; in a dry run an account that a former step would create counts as a change."""
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            return
        wanted = self._ids(entry)
        mode = int(entry["mode"], 8)
        if wanted is not None and (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (*wanted, mode):
            return
        before = f"{info.st_uid}:{info.st_gid} {stat.S_IMODE(info.st_mode):04o}\n"
        self._note(path, before, f"{entry['owner']}:{entry['group']} {mode:04o}\n")
        if not self.dry:
            self._apply(path, entry)

    def _apply(self, path: str, entry: dict[str, Any]) -> None:
        ids = self._ids(entry)
        if ids is None:
            self.module.fail_json(msg=f"{path}: there is no user {entry['owner']} or no group {entry['group']}")
            return
        os.chown(path, *ids)
        os.chmod(path, int(entry["mode"], 8))

    @staticmethod
    def _ids(entry: dict[str, Any]) -> tuple[int, int] | None:
        try:
            return pwd.getpwnam(entry["owner"]).pw_uid, grp.getgrnam(entry["group"]).gr_gid
        except KeyError:
            return None

    def _note(self, path: str, before: str, after: str) -> None:
        if path not in self.changed:
            self.changed.append(path)
        self.diff.append({"before_header": path, "after_header": path, "before": before, "after": after})


class QuietModule(AnsibleModule):  # type: ignore[misc]  # Ansible is not typed
    """A module whose invocation, every file's content and every secret, does not go to the host's journal."""

    def _log_invocation(self) -> None:
        """Log nothing; ``no_log`` would also hide the result."""


def main() -> None:
    module = QuietModule(
        argument_spec={
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {**_ATTRIBUTES, "mode": {"type": "str", "default": "0755"}},
            },
            "files": {"type": "list", "elements": "dict", "default": [], "options": _FILE},
            "secrets": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "no_log": False,
                "options": {**_FILE, "content": {"type": "str", "required": True, "no_log": True}},
            },
            "links": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "path", "required": True}, "target": {"type": "str", "required": True}},
            },
            "absent": {"type": "list", "elements": "path", "default": []},
            "prune": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "directory": {"type": "path", "required": True},
                    "pattern": {"type": "str", "required": True},
                    "contains": {"type": "str", "default": ""},
                    "units": {"type": "bool", "default": False},
                },
            },
            "units": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "enabled": {"type": "bool"},
                    "active": {"type": "bool"},
                    "restart_on": {"type": "list", "elements": "path", "default": []},
                    "reload_on": {"type": "list", "elements": "path", "default": []},
                },
            },
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    module.exit_json(**Manifest(module).run())


if __name__ == "__main__":
    main()
