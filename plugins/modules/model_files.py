#!/usr/bin/python
"""Keep model files: complete, checked against their sha256, and renamed into place only then."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: model_files
short_description: Keep model files complete and checked
description:
  - A file counts as present when its size is right and its sha256 was seen to be right for this very file (size,
    modification time and inode are remembered in C(.verified) of the models directory, so that it is read once).
  - With a V(url), a missing file is fetched by aria2, resumably, in slices of O(slice_seconds); the caller repeats
    until RV(unfinished) is empty. With V(incoming), a file that was pushed there is taken.
  - A file is checked before it is renamed into place. What it replaces stays beside it as C(.previous) until the agent
    has seen the active service serve, so that going back to the former file is possible.
options:
  directory:
    description: The models directory.
    type: path
    required: true
  files:
    description: Files with V(name), V(bytes), V(sha256), and V(url) where they can be fetched.
    type: list
    elements: dict
    required: true
  slice_seconds:
    description: How long one run may fetch.
    type: int
    default: 20
  owner:
    description: Owner and group of the files.
    type: str
    required: true
attributes:
  check_mode: {support: full}
"""
EXAMPLES = r"""
- name: Keep the models
  model_files:
    directory: /srv/llamarig/models
    owner: llamarig
    files:
      - {name: tiny.gguf, bytes: 638368, sha256: "0123...", url: "https://hub.example.com/tiny.gguf"}
"""
RETURN = r"""
fetched: {description: Names of files that came into place., returned: always, type: list}
pushes: {description: Files that must be pushed to RV(incoming)., returned: always, type: list}
unfinished: {description: Files still being fetched, with bytes so far., returned: always, type: list}
incoming: {description: The directory for files under way., returned: always, type: str}
"""

# Exit codes of aria2c, from its manual.
_UNFINISHED = 7
_WRONG_CHECKSUM = 32
_ARIA2 = {
    3: "there is no such file",
    24: "it wants a password or a token; llamarig has none to give yet, so fetch it by hand and use path",
    _WRONG_CHECKSUM: "its checksum is not the profile's; what came was discarded",
}


class Store:
    """One models directory."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.directory: str = module.params["directory"]
        self.incoming = os.path.join(self.directory, ".incoming")
        self.notes = os.path.join(self.directory, ".verified")
        self.result: dict[str, Any] = {"fetched": [], "pushes": [], "unfinished": [], "incoming": self.incoming}

    def run(self) -> dict[str, Any]:
        missing = [entry for entry in self.module.params["files"] if not self._present(entry)]
        if missing and not self.module.check_mode:
            self._space(missing)
        for entry in missing:
            if self.module.check_mode:
                self.result["fetched"].append(entry["name"])
            elif self._arrived(entry) or (entry["url"] and self._fetch(entry)):
                self._take(entry)
            elif not entry["url"]:
                if os.path.exists(f"{self._part(entry)}.aria2"):
                    self._discard(entry)  # half of a fetch, from when the profile named a url
                self.result["pushes"].append(entry["name"])
            else:
                part = self._part(entry)
                done = os.stat(part).st_blocks * 512 if os.path.exists(part) else 0
                self.result["unfinished"].append({"name": entry["name"], "done": done, "bytes": entry["bytes"]})
                break
        return {**self.result, "changed": bool(self.result["fetched"])}

    def _path(self, entry: dict[str, Any]) -> str:
        return os.path.join(self.directory, entry["name"])

    def _part(self, entry: dict[str, Any]) -> str:
        return os.path.join(self.incoming, entry["sha256"])

    def _present(self, entry: dict[str, Any]) -> bool:
        path = self._path(entry)
        try:
            info = os.stat(path)
        except FileNotFoundError:
            return False
        if info.st_size != entry["bytes"]:
            return False
        if self._note(entry) == _stamp(entry, info):
            return True
        if _sha256(path) != entry["sha256"]:
            return False
        if not self.module.check_mode:
            self._remember(entry)
        return True

    def _space(self, missing: list[dict[str, Any]]) -> None:
        os.makedirs(self.incoming, mode=0o700, exist_ok=True)
        here = sum(os.stat(self._part(e)).st_blocks * 512 for e in missing if os.path.exists(self._part(e)))
        needed = sum(entry["bytes"] for entry in missing) - here
        info = os.statvfs(self.directory)
        free = info.f_bavail * info.f_frsize
        if needed > free:
            self._fail(
                f"{self.directory} has {free / 2**30:.1f} GiB free, the models still need {needed / 2**30:.1f}:"
                " free some space or add a disk (llamarig removes no model by itself)"
            )

    def _arrived(self, entry: dict[str, Any]) -> bool:
        """Tell whether a pushed or fetched file is complete; one of the right size and wrong content is an error."""
        part = self._part(entry)
        if not os.path.exists(part) or os.path.exists(f"{part}.aria2") or os.path.getsize(part) != entry["bytes"]:
            return False
        digest = _sha256(part)
        if digest != entry["sha256"]:
            os.unlink(part)
            self._fail(
                f"{entry['name']} arrived with sha256 {digest}, the profile says {entry['sha256']}: it was discarded"
            )
        return True

    def _fetch(self, entry: dict[str, Any]) -> bool:
        """Fetch for one slice of time; True when the file is complete and its checksum right."""
        lines = [
            entry["url"],
            f"  dir={self.incoming}",
            f"  out={entry['sha256']}",
            f"  checksum=sha-256={entry['sha256']}",
        ]
        command = ["aria2c", "--input-file=-", f"--stop={self.module.params['slice_seconds']}"]
        command += [
            "--continue=true",
            "--always-resume=false",
            "--auto-file-renaming=false",
            "--follow-torrent=false",
            "--follow-metalink=false",
            "--split=8",
        ]
        command += ["--max-connection-per-server=8", "--min-split-size=64M", "--file-allocation=none"]
        command += ["--summary-interval=0", "--console-log-level=error", "--download-result=hide", "--max-tries=5"]
        command += ["--retry-wait=2", "--connect-timeout=15", "--timeout=60", "--no-conf", "--auto-save-interval=1"]
        code, out, err = self.module.run_command(command, data="\n".join(lines) + "\n")
        part = self._part(entry)
        if os.path.exists(part) and os.path.getsize(part) > entry["bytes"]:
            self._discard(entry)
            self._fail(f"{entry['name']}: {entry['url']} sends more than the {entry['bytes']} bytes of the profile")
        if code == _UNFINISHED:
            return False
        if code == _WRONG_CHECKSUM:
            self._discard(entry)
        if code != 0:
            reason = _ARIA2.get(code) or (err or out).strip()[-500:] or f"aria2c exit {code}"
            self._fail(f"{entry['name']} could not be fetched from {entry['url']}: {reason}")
        return self._arrived(entry)

    def _discard(self, entry: dict[str, Any]) -> None:
        for path in (self._part(entry), f"{self._part(entry)}.aria2"):
            if os.path.exists(path):
                os.unlink(path)

    def _take(self, entry: dict[str, Any]) -> None:
        path, part = self._path(entry), self._part(entry)
        account = pwd.getpwnam(self.module.params["owner"])
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.chown(part, account.pw_uid, account.pw_gid)
        os.chmod(part, 0o644)
        with open(part, "rb") as stream:
            os.fsync(stream.fileno())
        if os.path.exists(path):
            # What is replaced may be what the active service goes back to; the agent drops it when it commits.
            os.replace(path, f"{path}.previous")
        os.replace(part, path)
        self._remember(entry)
        self.result["fetched"].append(entry["name"])

    def _note_path(self, entry: dict[str, Any]) -> str:
        return os.path.join(self.notes, entry["name"].replace("/", "%") + ".json")

    def _note(self, entry: dict[str, Any]) -> object:
        try:
            with open(self._note_path(entry), encoding="ascii") as stream:
                return json.load(stream)
        except (FileNotFoundError, ValueError):
            return None

    def _remember(self, entry: dict[str, Any]) -> None:
        stamp = _stamp(entry, os.stat(self._path(entry)))
        os.makedirs(self.notes, mode=0o755, exist_ok=True)
        temporary = self._note_path(entry) + ".new"
        with open(temporary, "w", encoding="ascii") as stream:
            json.dump(stamp, stream)
        os.replace(temporary, self._note_path(entry))

    def _fail(self, message: str) -> None:
        self.module.fail_json(msg=message, **self.result)


def _stamp(entry: dict[str, Any], info: os.stat_result) -> dict[str, Any]:
    return {"sha256": entry["sha256"], "size": info.st_size, "mtime": info.st_mtime_ns, "inode": info.st_ino}


def _sha256(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "bytes": {"type": "int", "required": True},
                    "sha256": {"type": "str", "required": True},
                    "url": {"type": "str"},
                    "path": {"type": "str"},
                },
            },
            "slice_seconds": {"type": "int", "default": 20},
            "owner": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    module.exit_json(**Store(module).run())


if __name__ == "__main__":
    main()
