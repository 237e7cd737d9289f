"""Modules of ours as Ansible runs them on a host: one file, arguments in, one line of JSON out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.contract.tree import ROOT


def run_module(
    name: str, arguments: dict[str, Any], directory: Path, *, check: bool = False, **environment: str
) -> dict[str, Any]:
    """Run a module with its arguments, which lie in ``directory``; return its result, failed or not."""
    place = directory / "arguments.json"
    place.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments | {"_ansible_check_mode": check}}), encoding="utf-8")
    keep = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "plugins" / "modules" / f"{name}.py"), str(place)],
        env={**keep, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.strip(), done.stderr
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    assert bool(result.get("failed")) is bool(done.returncode)
    return result
