#!/usr/bin/python
"""Bring packages to what a role wants in one pass: repair, install, remove, hold."""

from __future__ import annotations

import glob
import os
import re
import shlex
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: apt_packages
short_description: Repair, install, remove and hold packages in one pass
description:
  - C(ansible.builtin.apt) installs; this module also completes a dpkg that was interrupted, changes held packages and
    holds them again, never removes what it was not told to remove, and can be asked in check mode for packages of an
    archive that the host does not know yet.
  - Configuration files that somebody changed stay as they are. A lock of apt is waited for.
options:
  install:
    description:
      - Packages, as apt-get takes them, with V(name=version) and wildcards in it; one that is there is brought to the
        newest version that the host's pins allow.
    type: list
    elements: str
    default: []
  remove:
    description: Packages that must go, with their configuration, in the same step as the installation.
    type: list
    elements: str
    default: []
  spare:
    description: Packages that may go where apt cannot install beside them.
    type: list
    elements: str
    default: []
  hold:
    description: Patterns of package names, matched in full; what is installed and matches is held.
    type: list
    elements: str
    default: []
  refresh:
    description: Refresh the package index, before anything is installed; by itself that is no change.
    type: bool
    default: false
  lock_timeout_seconds:
    description: How long another program that holds apt's lock is waited for.
    type: int
    default: 600
attributes:
  check_mode: {support: full}
"""
EXAMPLES = r"""
- name: Install the container toolkit
  apt_packages:
    install: [nvidia-container-toolkit=1.20.0-1]
    hold: [nvidia-container-toolkit]
"""
RETURN = r"""
installed: {description: What was installed or upgraded., returned: always, type: list}
removed: {description: What was removed., returned: always, type: list}
held: {description: What was held in this pass., returned: always, type: list}
"""

_KEEP_FILES = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
# needrestart must not restart services while a role is at work; "l" only lists.
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l", "LC_ALL": "C.UTF-8"}


class Packages:
    """One pass over what apt has to do."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.dry = bool(module.check_mode)

    def run(self) -> dict[str, Any]:
        repaired = self._repair()
        coming: list[str] = []
        going: list[str] = []
        if self.params["refresh"] and not self.dry:
            self._refresh()
        if self.params["install"] or self.params["remove"]:
            coming, going = self._install(self.params["install"], self.params["remove"])
        held = self._hold()
        return {
            "changed": bool(coming or going or held or repaired),
            "installed": coming,
            "removed": going,
            "held": held,
        }

    def _repair(self) -> bool:
        """Complete what an interrupted dpkg left half-done; apt-get refuses to do anything before that."""
        owed = bool(self._unfinished())
        if owed and not self.dry:
            # It may be at work yet, for a run whose connection broke: this waits for the lock, and for nothing else.
            self._call(["apt-get", "check", *self._lock()])
            self._call(["dpkg", "--configure", "--pending", "--force-confdef", "--force-confold"])
            if self._unfinished():
                # A package was unpacked before what it depends on: apt-get brings that, and configures both.
                self._apt("install", "--fix-broken", "--no-remove", "--allow-change-held-packages")
        return owed

    def _unfinished(self) -> list[str]:
        """Return packages that are neither installed nor gone, and the journal of a dpkg that was killed."""
        _, out, _ = self.module.run_command(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n"])
        rows = (line.split(" ", 1) for line in out.splitlines())
        names = [name for state, name in rows if state not in ("installed", "config-files", "not-installed")]
        journal = os.path.join(os.path.dirname(self._place("Dir::State::status/f")), "updates")
        return names + [name for name in os.listdir(journal) if name[:1].isdigit()]

    def _refresh(self) -> None:
        """Refresh the index; a fault of llamarig's archives ends the run, one of others' is said."""
        code, out, err = self._call(["apt-get", "update", *self._lock()])
        said = [line for line in (out + err).splitlines() if line.startswith(("E:", "W:", "Err:"))]
        if code == 0 and not said:
            return
        ours = [uri for uri in self._archives() if any(uri in line for line in said)]
        if not ours:
            self.module.warn("\n".join(["apt-get update complains of an archive that is not llamarig's:", *said]))
            return
        remedy = (
            "an archive is used only if it is signed with the key that was declared for it: "
            "correct its key or its address, or see whether the host reaches it"
        )
        lines = ["the package index cannot be refreshed, nothing was installed:", *said, f"    remedy: {remedy}"]
        self.module.fail_json(msg="\n".join(lines))

    def _place(self, name: str) -> str:
        """Return a path of apt's, wherever its configuration puts it."""
        _, out, _ = self._call(["apt-config", "shell", "PLACE", name])
        return shlex.split(out.strip() or "PLACE=/nowhere")[0].removeprefix("PLACE=").rstrip("/")

    def _archives(self) -> list[str]:
        """Return the addresses of the archives that the role apt_sources wrote."""
        found = []
        for path in glob.glob(f"{self._place('Dir::Etc::sourceparts/d')}/llamarig-*.sources"):
            with open(path, encoding="utf-8") as stream:
                found += re.findall(r"^URIs: (\S+?)/?$", stream.read(), re.MULTILINE)
        return found

    def _install(self, packages: list[str], remove: list[str]) -> tuple[list[str], list[str]]:
        """Install and remove in one transaction of apt, all or nothing; return what came and what went."""
        arguments = ["--purge", "--allow-change-held-packages", "--allow-downgrades", *packages]
        arguments += [f"{name}-" for name in remove]
        code, out, err = self._call(["apt-get", "install", "--simulate", "--no-install-recommends", *arguments])
        if code != 0 and self.dry:
            # The host may not know the archive yet: the files that name it were not written either.
            return packages, remove
        if code != 0:
            self._refuse(packages or remove, out + err)
        coming = re.findall(r"^Inst (\S+)", out, re.MULTILINE)
        going = re.findall(r"^(?:Remv|Purg) (\S+)", out, re.MULTILINE)
        strangers = [name for name in going if name not in {*remove, *self.params["spare"]}]
        if strangers:
            self.module.fail_json(
                msg=f"installing {', '.join(packages)} would remove {', '.join(strangers)}: nothing was changed\n"
                f"    remedy: if nobody needs them: apt-get remove {' '.join(strangers)}, and run again"
            )
        if (coming or going) and not self.dry:
            self._apt("install", *arguments)
        return coming, going

    def _refuse(self, packages: list[str], output: str) -> None:
        lines = [line.strip() for line in output.splitlines()]
        said = [line for line in lines if line.startswith("E:") or "Depends:" in line or "but it is not" in line]
        self.module.fail_json(
            msg="\n".join(
                [
                    f"apt cannot install {', '.join(packages)}:",
                    *(said or lines[-5:]),
                    "    remedy: see which archives the host knows: apt-cache policy " + packages[0].split("=")[0],
                ]
            )
        )

    def _hold(self) -> list[str]:
        patterns = self.params["hold"]
        if not patterns:
            return []
        _, out, _ = self.module.run_command(["dpkg-query", "--show", "--showformat=${Status} ${Package}\n"])
        rows = [line.split() for line in out.splitlines()]
        loose = [
            name
            for want, _, state, name in rows
            if state == "installed" and want != "hold" and any(re.fullmatch(pattern, name) for pattern in patterns)
        ]
        if loose and not self.dry:
            self._must(["apt-mark", "hold", *loose])
        return loose

    def _apt(self, verb: str, *arguments: str) -> None:
        self._must(["apt-get", verb, "-y", "--no-install-recommends", *_KEEP_FILES, *self._lock(), *arguments])

    def _lock(self) -> list[str]:
        return ["-o", f"DPkg::Lock::Timeout={self.params['lock_timeout_seconds']}"]

    def _must(self, command: list[str]) -> None:
        code, out, err = self._call(command)
        if code != 0:
            lines = (err.strip() or out.strip()).splitlines()
            self.module.fail_json(msg=f"{' '.join(command[:2])} failed:\n" + "\n".join(lines[-20:]), command=command)

    def _call(self, command: list[str]) -> tuple[int, str, str]:
        code, out, err = self.module.run_command(command, environ_update=_ENVIRONMENT)
        return int(code), str(out), str(err)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "install": {"type": "list", "elements": "str", "default": []},
            "remove": {"type": "list", "elements": "str", "default": []},
            "spare": {"type": "list", "elements": "str", "default": []},
            "hold": {"type": "list", "elements": "str", "default": []},
            "refresh": {"type": "bool", "default": False},
            "lock_timeout_seconds": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    module.exit_json(**Packages(module).run())


if __name__ == "__main__":
    main()
