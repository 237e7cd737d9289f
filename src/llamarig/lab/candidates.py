"""Candidates for an upgrade, made of an engine that is there: an equal one, and three that must never go live.

    make_candidate("llamarig/llama-cpp:0.7.0-debian-0123456789ab", Kind.SLOW, "llamarig/llama-cpp:slow")
    python -m llamarig.lab.candidates slow llamarig/llama-cpp:0.7.0-debian-0123456789ab candidate:slow --host lab01

Made in seconds and without a build: a container of the engine that never starts gets a file or two, and is committed.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from llamarig.errors import LlamarigError
from llamarig.lab.hosts import Lab
from llamarig.lab.machine import LabError, compile_library

DOCKER: Final = ("docker",)
# What the lacking engine no longer knows: every service is given it.
OPTION: Final = "--cache-ram"
SLOWER_PERCENT: Final = 60
WELL_UP_TO: Final = 100
_PLACE: Final = "/usr/lib/llamarig-candidate"
_HELP: Final = f"{_PLACE}/help.txt"
_WRAPPER: Final = """\
#!/bin/sh
# llama-server without {option}: it refuses it, as the engine refuses what it does not know.
for word do
  case $word in
    {option}) echo "error: invalid argument: $word" >&2; exit 1 ;;
    -h | --help | --usage) exec cat {help} ;;
  esac
done
exec {server} "$@"
"""


class Kind(StrEnum):
    """What a candidate is like beside the engine that it is made of.

    EQUAL: the same under another name. SLOW: every batch takes 60 % longer. BROKEN: answers prompts of more than 100
    tokens wrongly. LACKING: does not know ``--cache-ram``, which every service is given.
    """

    EQUAL = "equal"
    SLOW = "slow"
    BROKEN = "broken"
    LACKING = "lacking"


def make_candidate(
    engine: str,
    kind: Kind,
    image: str,
    *,
    docker: Sequence[str] = DOCKER,
    percent: int = SLOWER_PERCENT,
    well_up_to: int = WELL_UP_TO,
    option: str = OPTION,
) -> None:
    """Make ``image`` of the image ``engine``; one of that name is replaced.

    Args:
        engine: an image with llama-server on its path.
        kind: what the candidate is like.
        image: its name.
        docker: the docker command, ``("docker", "exec", "-i", CONTAINER, "docker")`` for the docker inside a lab host.
        percent: how much longer a batch of a slow one takes.
        well_up_to: tokens of a prompt that a broken one still answers rightly.
        option: long name of what a lacking one does not know.

    Raises:
        LabError: this machine has no C compiler, or docker refuses.

    """
    said = json.loads(_call([*docker, "image", "inspect", engine]))[0]["Config"]
    entry, command = said.get("Entrypoint") or [], said.get("Cmd") or []
    contents: dict[str, bytes] = {}
    changes = [f"LABEL llamarig.candidate={kind.value}"]
    if kind in {Kind.SLOW, Kind.BROKEN}:
        library = f"{_PLACE}/{kind.value}_engine.so"
        contents[library] = compile_engine(kind)
        value = f"LAB_SLOWER_PERCENT={percent}" if kind is Kind.SLOW else f"LAB_WELL_UP_TO={well_up_to}"
        changes += [f"ENV LD_PRELOAD={library}", f"ENV {value}"]
    elif kind is Kind.LACKING:
        contents = _lacking(docker, engine, option)
        changes.append(f"ENV PATH={_PLACE}:{_path(said)}")
        entry = [f"{_PLACE}/llama-server" if word.endswith("/llama-server") else word for word in entry]
    changes += [f"ENTRYPOINT {json.dumps(entry)}", f"CMD {json.dumps(command)}"]
    container = _call([*docker, "create", "--entrypoint", "/none", engine]).decode().strip()
    try:
        if contents:
            _call([*docker, "cp", "-", f"{container}:/"], _tar(contents))
        _call([*docker, "commit", *(word for change in changes for word in ("--change", change)), container, image])
    finally:
        _call([*docker, "rm", container])


def engine_source(kind: Kind) -> str:
    """Return the source of what a slow or a broken engine preloads."""
    return files("llamarig").joinpath("data", "lab", f"{kind.value}_engine.c").read_text(encoding="utf-8")


def compile_engine(kind: Kind) -> bytes:
    """Compile what a slow or a broken engine preloads.

    Raises:
        LabError: this machine has no C compiler.

    """
    with tempfile.TemporaryDirectory(prefix="llamarig-candidate-") as name:
        library = compile_library(Path(name), f"{kind.value}_engine", engine_source(kind))
        if library is None:
            raise LabError(
                "no C compiler is here, and slow or broken engines need one", "apt-get install gcc libc6-dev"
            )
        return library.read_bytes()


def without_option(text: str, option: str) -> str:
    """Return a ``--help`` that does not name an option, nor any of its other names and its description."""
    kept, leaving = [], False
    for line in text.splitlines(keepends=True):
        if line.startswith("-"):
            names = line.split("  ")
            leaving = any(option == word.strip(", ") for name in names for word in name.split())
        if not leaving:
            kept.append(line)
    return "".join(kept)


def _lacking(docker: Sequence[str], engine: str, option: str) -> dict[str, bytes]:
    run = [*docker, "run", "--rm", "--network", "none", "--entrypoint", "sh", engine, "-c"]
    server = _call([*run, "command -v llama-server"]).decode().strip()
    text = _call([*run, "llama-server --help"]).decode()
    wrapper = _WRAPPER.format(option=option, help=_HELP, server=server)
    return {f"{_PLACE}/llama-server": wrapper.encode(), _HELP: without_option(text, option).encode()}


def _path(said: Mapping[str, Any]) -> str:
    found = [word.removeprefix("PATH=") for word in said.get("Env") or [] if word.startswith("PATH=")]
    return found[0] if found else "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _tar(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        directory = tarfile.TarInfo(_PLACE.lstrip("/"))
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(directory)
        for name, content in contents.items():
            info = tarfile.TarInfo(name.lstrip("/"))
            info.mode, info.size = 0o755, len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _call(command: Sequence[str], content: bytes = b"") -> bytes:
    done = subprocess.run(command, input=content, capture_output=True, check=False)
    if done.returncode != 0:
        msg = f"{' '.join(command[:6])} ... failed: {(done.stderr or done.stdout).decode(errors='replace').strip()}"
        raise LabError(msg)
    return done.stdout


def main() -> None:
    """Make one candidate, on this machine's docker or on that of a lab host."""
    parser = argparse.ArgumentParser(prog="python -m llamarig.lab.candidates", description=__doc__)
    parser.add_argument("kind", type=Kind, choices=list(Kind))
    parser.add_argument("engine", help="the image that it is made of")
    parser.add_argument("image", help="its name")
    parser.add_argument("--host", help="the lab host whose docker makes it; default: this machine's")
    parser.add_argument("--directory", type=Path, default=Path(".lab"), help="where the lab keeps its things")
    given = parser.parse_args()
    inside = ["exec", "-i", Lab(given.directory, print).container(given.host), "docker"] if given.host else []
    try:
        make_candidate(given.engine, given.kind, given.image, docker=[*DOCKER, *inside])
    except LlamarigError as error:
        print(f"candidates: {error.message}\n    remedy: {error.remedy or 'see above'}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
