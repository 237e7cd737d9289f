"""The lab's command line, called by scripts/deploy, scripts/test and molecule."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from llamarig.errors import LlamarigError
from llamarig.lab.ghosts import make_ghosts, read_ghost_names, usual_ghosts
from llamarig.lab.hosts import Lab, Say
from llamarig.lab.models import make_models
from llamarig.lab.silicon.cards import card_lines, read_silicon

ROOT = Path(__file__).resolve().parents[3]


def main() -> None:
    """Bring lab hosts up or down."""
    arguments = _parse()
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"lab {time.monotonic() - start:5.1f} s  {text}", flush=True)

    try:
        if arguments.verb == "cards":
            for host, cards in read_silicon(arguments.file).items():
                print("".join(f"{host} {line}\n" for line in card_lines(host, cards)), end="")
            return
        _work(arguments, say)
        for directory in (arguments.directory, ROOT / ".lab"):
            _give_to_user(directory)
    except LlamarigError as error:
        remedy = f"\n    remedy: {error.remedy}" if error.remedy else ""
        print(f"lab: {error.message}{remedy}", file=sys.stderr)
        sys.exit(1)


def _parse() -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--directory", type=Path, default=ROOT / ".lab", help="where the lab keeps its things")
    parser = argparse.ArgumentParser(prog="python -m llamarig.lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", parents=[common], help="bring hosts up")
    up.add_argument("hosts", nargs="*", help="names of hosts; default: lab01")
    up.add_argument("--silicon", type=Path, metavar="FILE", help="YAML that says which host has which cards")
    down = verbs.add_parser("down", parents=[common], help="remove hosts")
    down.add_argument("hosts", nargs="*", help="names of hosts; default: all of them")
    verbs.add_parser("models", parents=[common], help="make the tiny models")
    ghosts = verbs.add_parser("ghosts", parents=[common], help="make headers of published models, without weights")
    ghosts.add_argument("names", nargs="*", metavar="MODEL[.MIX]", help="for instance glm-4.7-flash.q8_0; default: all")
    verbs.add_parser("addresses", parents=[common], help="print the address of every running host")
    cards = verbs.add_parser("cards", help="print the cards of every host, as --silicon would make them")
    cards.add_argument("file", type=Path, metavar="FILE")
    return parser.parse_args()


def _work(arguments: argparse.Namespace, say: Say) -> None:
    if arguments.verb == "up":
        silicon = read_silicon(arguments.silicon) if arguments.silicon else {}
        make_models(ROOT / ".lab" / "models", say)
        Lab(arguments.directory, say, silicon, ROOT / ".lab" / "archive").up(arguments.hosts or ["lab01"])
    elif arguments.verb == "models":
        make_models(ROOT / ".lab" / "models", say)
    elif arguments.verb == "ghosts":
        wanted = read_ghost_names(arguments.names) if arguments.names else usual_ghosts()
        make_ghosts(ROOT / ".lab" / "ghosts", wanted, say)
    elif arguments.verb == "addresses":
        for host, address in Lab(arguments.directory, say).addresses().items():
            print(f"{host} {address}")
    else:
        Lab(arguments.directory, say).down(arguments.hosts or None)
        say("down")


def _give_to_user(directory: Path) -> None:
    """Under sudo, leave the lab's files to the person who typed the command: Ansible runs as them."""
    user = os.environ.get("SUDO_UID")
    if user and os.geteuid() == 0 and directory.is_dir():
        for path in [directory, *directory.rglob("*")]:
            os.chown(path, int(user), -1, follow_symlinks=False)


if __name__ == "__main__":
    main()
