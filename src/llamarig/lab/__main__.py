"""The lab's command line, called by scripts/deploy, scripts/test and molecule."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from llamarig.errors import LlamarigError
from llamarig.lab.hosts import Lab
from llamarig.lab.models import make_models

ROOT = Path(__file__).resolve().parents[3]


def main() -> None:
    """Bring lab hosts up or down."""
    parser = argparse.ArgumentParser(prog="python -m llamarig.lab", description=__doc__)
    parser.add_argument("verb", choices=["up", "down", "models", "addresses"])
    parser.add_argument("hosts", nargs="*", help="names of hosts; default: lab01, or with 'down' all of them")
    parser.add_argument("--directory", type=Path, default=ROOT / ".lab", help="where the lab keeps its things")
    arguments = parser.parse_args()
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"lab {time.monotonic() - start:5.1f} s  {text}", flush=True)

    lab = Lab(arguments.directory, say)
    try:
        if arguments.verb == "up":
            make_models(ROOT / ".lab" / "models", say)
            lab.up(arguments.hosts or ["lab01"])
        elif arguments.verb == "models":
            make_models(ROOT / ".lab" / "models", say)
        elif arguments.verb == "addresses":
            for host, address in lab.addresses().items():
                print(f"{host} {address}")
        else:
            lab.down(arguments.hosts or None)
            say("down")
        for directory in (arguments.directory, ROOT / ".lab"):
            _give_to_user(directory)
    except LlamarigError as error:
        remedy = f"\n    remedy: {error.remedy}" if error.remedy else ""
        print(f"lab: {error.message}{remedy}", file=sys.stderr)
        sys.exit(1)


def _give_to_user(directory: Path) -> None:
    """Under sudo, leave the lab's files to the person who typed the command: Ansible runs as them."""
    user = os.environ.get("SUDO_UID")
    if user and os.geteuid() == 0 and directory.is_dir():
        for path in [directory, *directory.rglob("*")]:
            os.chown(path, int(user), -1, follow_symlinks=False)


if __name__ == "__main__":
    main()
