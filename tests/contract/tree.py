"""What the contract tests share: the checkout, its YAML, and Ansible's own programs run on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
_NESTED = ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tasks_of(node: Any) -> Iterator[dict[str, Any]]:
    """Every task of a tasks file, every play of a playbook and its tasks, those in blocks too."""
    for item in node or []:
        yield item
        for key in _NESTED:
            yield from tasks_of(item.get(key))


def ansible(program: str, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs of this environment, as an operator does at the checkout's root."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8", **extra}
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**environment, **settings}, capture_output=True, text=True, check=False, timeout=120
    )
