"""Git on the control node, as a program: asked, and fetched with, the same whatever shell or hook started us."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from llamarig.errors import LlamarigError

Say = Callable[[str], None]
# What git itself says is of one repository (git rev-parse --local-env-vars) and would send it to another than ours.
_OF_ONE_REPOSITORY: Final = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE"),
    *("GIT_IMPLICIT_WORK_TREE", "GIT_REPLACE_REF_BASE", "GIT_INTERNAL_SUPER_PREFIX"),
}
_SETTINGS: Final = (
    *("-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "core.hooksPath=/dev/null"),
    # A connection over which hardly anything comes for a minute is broken.
    *("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60"),
)
_SAY_EVERY_SECONDS: Final = 10
_PROGRESS: Final = re.compile(r"^(remote: )?[A-Z][A-Za-z ]+: +(\d+% )?\(?\d")
_CREDENTIALS: Final = re.compile(r"//[^/@\s]*@")
_REMEDIES: Final = {
    "No space left on device": "make room where this checkout lies, and run it again",
    "Could not resolve host": "check the address, and this machine's DNS; behind a proxy, set https_proxy",
    "certificate": "name the authority's certificate: git config --global http.sslCAInfo FILE",
    "could not read Username": "check the address: where there is no such repository, hosts ask for a login",
    "Authentication failed": "give git the login, with a credential helper or an ssh key",
    "Permission denied": "give git the login, with a credential helper or an ssh key",
    "not found": "check the address",
    "does not appear to be a git repository": "check the address",
    "does not exist": "check the address",
}


class GitError(LlamarigError):
    """Git is not installed, or refused; ``said`` is what it printed, without progress."""

    def __init__(self, message: str, remedy: str, said: str = "") -> None:
        super().__init__(message, remedy)
        self.said = said


def shown(repository: str) -> str:
    """Return a repository's address without the login that may stand in it."""
    return _CREDENTIALS.sub("//", repository)


def git(*arguments: str, directory: Path | None = None) -> bytes:
    """Return what git prints.

    Raises:
        GitError: there is no git, or it failed.

    """
    command = [*_command(directory), *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise _refused(arguments[0], done.stderr.decode("utf-8", "replace").splitlines())
    return done.stdout


def fetch(directory: Path, repository: str, refspecs: Iterable[str], *options: str, say: Say) -> None:
    """Fetch into a bare repository, saying every few seconds how far it is.

    Raises:
        GitError: there is no git, or it failed.

    """
    command = [*_command(directory), "fetch", "--progress", "--no-tags", "--no-recurse-submodules"]
    command += [*options, "--", repository, *refspecs]
    last: deque[str] = deque(maxlen=12)
    said_at = time.monotonic()
    with subprocess.Popen(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stderr or ():
            if not _PROGRESS.match(line):
                last.append(line.rstrip())
            elif time.monotonic() - said_at >= _SAY_EVERY_SECONDS:
                said_at = time.monotonic()
                say(line.strip())
    if process.returncode != 0:
        raise _refused("fetch", last)


def object_reader(directory: Path) -> subprocess.Popen[bytes]:
    """Start git as a reader of objects: an id a line in; a line with id, kind and size, and the content out."""
    return subprocess.Popen(
        [*_command(directory), "cat-file", "--batch"], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def environment() -> dict[str, str]:
    """Return the environment that git runs in: nothing of another repository, no prompts, messages in English."""
    kept = {name: value for name, value in os.environ.items() if name not in _OF_ONE_REPOSITORY}
    return kept | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_REPLACE_OBJECTS": "1"}


def _command(directory: Path | None) -> list[str]:
    program = shutil.which("git")
    if program is None:
        msg = "git is not installed on this control node"
        raise GitError(msg, "apt-get install git")
    return [program, *(["-C", str(directory)] if directory else []), *_SETTINGS]


def _refused(verb: str, lines: Iterable[str]) -> GitError:
    said = shown("\n".join(line for line in lines if line.strip()))
    remedy = next(
        (text for sign, text in _REMEDIES.items() if sign.lower() in said.lower()),
        "check that this control node reaches it; llama_image_source.repository in group_vars/all/engine.yml may name a"
        " mirror",
    )
    return GitError(f"git {verb} failed: {said or 'it does not say why'}", remedy, said)
