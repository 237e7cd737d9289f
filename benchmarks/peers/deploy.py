"""The pyinfra peer of converge.py: the same operations as site.yml keeps, by pyinfra's own operations.

Run by pyinfra, never by Python: it reads the list that converge.py wrote for its host. A check that changes nothing
(image, model file, answer) has no operation in pyinfra, because ``server.shell`` always counts as a change; here it is
an operation that asks for a fact and yields no command.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyinfra import host
from pyinfra.api import OperationError, operation
from pyinfra.context import config
from pyinfra.facts.server import Command
from pyinfra.operations import apt, files, systemd

config.SUDO = True


@operation()  # type: ignore[untyped-decorator]  # pyinfra lives in a virtual environment of its own
def holds(command: str, wanted: str) -> Iterator[str]:
    """Fail unless the command prints what is wanted."""
    said = host.get_fact(Command, command=command)
    if said != wanted:
        msg = f"{command}: {said!r} instead of {wanted!r}"
        raise OperationError(msg)
    yield from ()


@operation()  # type: ignore[untyped-decorator]
def pruned(directory: str, pattern: str, contains: str, keep: list[str]) -> Iterator[str]:
    """Remove what matches the pattern and is not to be kept."""
    command = f"find {shlex.quote(directory)} -mindepth 1 -maxdepth 1 -name {shlex.quote(pattern)}"
    if contains:
        command += f" -exec grep -qF {shlex.quote(contains)} {{}} ';' -print"
    for path in (host.get_fact(Command, command=command) or "").split("\n"):
        if path and path not in keep:
            yield f"rm -rf {shlex.quote(path)}"


def apply(entry: dict[str, Any]) -> None:
    """Call the operation for one entry."""
    name = f"{entry['kind']}: {entry['name']}"
    match entry["kind"]:
        case "packages":
            apt.packages(name=name, packages=entry["packages"], present=True, no_recommends=True)
        case "directory":
            files.directory(
                name=name, path=entry["path"], user=entry["owner"], group=entry["group"], mode=entry["mode"]
            )
        case "file":
            files.put(
                name=name,
                src=entry["source"],
                dest=entry["path"],
                user=entry["owner"],
                group=entry["group"],
                mode=entry["mode"],
            )
        case "link":
            files.link(name=name, path=entry["path"], target=entry["target"])
        case "unit":
            systemd.service(name=name, service=entry["unit"], enabled=entry["enabled"], running=entry["active"])
        case "prune":
            pruned(
                name=name,
                directory=entry["directory"],
                pattern=entry["pattern"],
                contains=entry["contains"],
                keep=entry["keep"],
            )
        case "absent":
            files.file(name=name, path=entry["path"], present=False)
        case "shell" | "model" | "request":
            holds(name=name, command=entry["command"], wanted=entry["wanted"])
        case kind:
            msg = f"no operation for {kind}"
            raise ValueError(msg)


for item in json.loads(Path(host.data.operations).read_text(encoding="utf-8")):
    apply(item)
