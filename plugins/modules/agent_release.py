#!/usr/bin/python
"""Deploy a release of the agent: unpack, compile, smoke-test, and only then switch the link."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: agent_release
short_description: Deploy a release of the agent
description:
  - A release is a directory C(releases/<sha12>) with everything the agent imports. C(current) links to the one in use.
  - Without O(archive) the module says whether the host needs it (RV(needed)); a release that is there is only linked.
  - The link is replaced atomically, after the release answered its smoke test. Older releases stay for rollback.
options:
  root:
    description: Where releases live.
    type: path
    required: true
  release:
    description: Name of the release, the first 12 digits of the hash of its inputs.
    type: str
    required: true
  archive:
    description: The release as a tar archive on the host.
    type: path
  archive_sha256:
    description: Checksum of the archive.
    type: str
  command:
    description: A link in everybody's path to the release's command.
    type: path
    required: true
  keep:
    description: How many releases stay, the current one included.
    type: int
    default: 3
attributes:
  check_mode: {support: full}
"""
EXAMPLES = r"""
- name: Deploy the agent
  agent_release:
    root: /opt/llamarig
    release: 0123456789ab
    command: /usr/local/bin/llamarig
"""
RETURN = r"""
needed: {description: Whether the archive must be sent., returned: always, type: bool}
release: {description: The release that is current after., returned: always, type: str}
previous: {description: The release that was current before., returned: always, type: str}
"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "archive": {"type": "path"},
            "archive_sha256": {"type": "str"},
            "command": {"type": "path", "required": True},
            "keep": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    params = module.params
    root, name = params["root"], params["release"]
    releases, link = os.path.join(root, "releases"), os.path.join(root, "current")
    target = os.path.join(releases, name)
    previous = os.path.basename(os.readlink(link)) if os.path.islink(link) else ""
    program = os.path.join(link, "bin", "llamarig")
    linked = os.path.islink(params["command"]) and os.readlink(params["command"]) == program
    current = previous == name and os.path.isdir(target) and linked
    if current or module.check_mode:
        module.exit_json(changed=not current, needed=False, previous=previous)
    if not os.path.isdir(target):
        if not params["archive"]:
            module.exit_json(changed=True, needed=True, previous=previous)
        _unpack(module, params["archive"], params["archive_sha256"], target)
    code, out, err = module.run_command([os.path.join(target, "bin", "llamarig"), "version", "--json"])
    if code != 0:
        stays = previous or "no release"
        module.fail_json(msg=f"release {name} failed its smoke test, {stays} stays current: {(err or out)[-1000:]}")
    _link(os.path.join("releases", name), link)
    _link(program, params["command"])
    _prune(releases, {name, previous} if params["keep"] > 1 else {name}, params["keep"])
    module.exit_json(changed=True, needed=False, previous=previous)


def _link(target: str, path: str) -> None:
    temporary = f"{path}.new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.replace(temporary, path)


def _unpack(module: AnsibleModule, archive: str, sha256: str, target: str) -> None:
    with open(archive, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != sha256:
        module.fail_json(msg=f"the release arrived damaged: sha256 {digest}, expected {sha256}")
    temporary = f"{target}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary, mode=0o755)
    with tarfile.open(archive) as tar:
        tar.extractall(temporary, filter="data")
    # Compiled here, for this host's Python, so that no start of the command compiles and none has to write.
    module.run_command([sys.executable, "-m", "compileall", "-q", "-j", "0", temporary])
    os.sync()  # a power cut must not leave a release of empty files under a finished name
    os.replace(temporary, target)


def _prune(releases: str, kept: set[str], keep: int) -> None:
    paths = sorted(
        (os.path.join(releases, name) for name in os.listdir(releases) if name not in kept),
        key=os.path.getmtime,
        reverse=True,
    )
    for path in paths[max(0, keep - len(kept)) :]:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main()
