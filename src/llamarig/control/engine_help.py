"""The recorded ``--help`` of engines: what the planner knows of their options."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from llamarig.config.engine_options import parse_help
from llamarig.errors import LlamarigError

FOLDER: Final = Path("src/llamarig/data/llama-server-help")
# What no llama-server lacks; a help without them is no help.
_ALWAYS: Final = {"model", "host", "port", "ctx-size"}
_SHOWN: Final = 8


def record_help(root: Path, version: str, text: str) -> tuple[str, bool]:
    """Keep what an engine says of its options; return the version it is kept under, and whether that is news.

    An engine that says it is a version whose recorded help differs (a build with changes of its own) is told apart by
    what follows a plus.

    Raises:
        LlamarigError: the text is no help of llama-server.

    """
    missing = _ALWAYS - parse_help(text).keys()
    if missing:
        said = text.strip().splitlines()[-1:] or ["nothing"]
        msg = f"llama-server {version} --help names no --{', --'.join(sorted(missing))}; it ends with: {said[0][:200]}"
        raise LlamarigError(msg, "look at what the image runs: docker run --rm IMAGE --help")
    plain = version.partition("+")[0]
    digest = hashlib.sha256(text.encode()).hexdigest()[:_SHOWN]
    for name in (plain, f"{plain}+{digest}"):
        path = root / FOLDER / f"{name}.txt"
        if not path.exists():
            temporary = path.with_name(f".{path.name}.new")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
            return name, True
        if path.read_text(encoding="utf-8") == text:
            return name, False
    msg = f"{path} holds another text than its name says"
    raise LlamarigError(msg, "remove it, and run the playbook again")
