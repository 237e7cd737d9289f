"""What a site has that builds the engine itself, without the internet: a repository of its source, and base images.

``python -m llamarig.lab.engine_site DIRECTORY`` makes them, and prints what it made as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from llamarig.lab import llama_source
from llamarig.lab.engine_image import ensure_bases
from llamarig.lab.machine import LabError, run
from llamarig.lab.models import Say

ROOT: Final = Path(__file__).resolve().parents[3]
REF: Final = f"v{llama_source.VERSION}"


def ensure_repository(directory: Path, tree: Path) -> Path:
    """Return a bare git repository below a directory, with a tree as its one commit, tagged as its release.

    The same tree is the same commit, on every machine.

    Raises:
        LabError: git is missing, or refused the tree.

    """
    repository = directory / f"{tree.name}.git"
    if repository.is_dir():
        return repository
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="repository-", dir=directory) as name:
        bare = Path(name) / "bare"
        _git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        work = ("--git-dir", str(bare), "--work-tree", str(tree))
        # What the tree's own .gitignore names was in the sdist, so it is in the commit.
        _git(*work, "add", "--force", "--all", ".")
        _git(*work, "commit", "--quiet", "--no-gpg-sign", f"--message=llama.cpp {llama_source.VERSION}")
        _git("--git-dir", str(bare), "tag", REF)
        bare.rename(repository)
    return repository


def save_bases(directory: Path, say: Say) -> dict[str, Path]:
    """Write the base images of the CPU's build as archives below a directory; return each by its purpose.

    Raises:
        LabError: they cannot be made here.

    """
    directory.mkdir(parents=True, exist_ok=True)
    saved = {}
    for purpose, image in zip(("build", "runtime"), ensure_bases(say), strict=True):
        path = directory / f"{image.replace(':', '_')}.tar"
        if not path.exists():
            temporary = path.with_suffix(".part")
            run(["docker", "save", "--output", str(temporary), image])
            temporary.replace(path)
        saved[purpose] = path
    return saved


def _git(*arguments: str) -> None:
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for who in ("AUTHOR", "COMMITTER"):
        settings |= {f"GIT_{who}_NAME": "lab", f"GIT_{who}_EMAIL": "lab@localhost"}
        settings[f"GIT_{who}_DATE"] = f"{llama_source.EPOCH} +0000"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "core.autocrlf=false", "-c", "core.fileMode=true", *arguments]
    try:
        done = subprocess.run(command, env={**kept, **settings}, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError("git is not installed", "apt-get install git") from error
    if done.returncode != 0:
        raise LabError(f"git {' '.join(arguments[:6])} failed: {done.stderr.strip()[-1000:]}")


def main() -> None:
    """Make repository and base images below the directory that is named."""
    directory = Path(sys.argv[1]).resolve()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        tree = llama_source.ensure_source(ROOT / ".cache" / "engine", say)
        repository = ensure_repository(directory, tree)
        bases = save_bases(directory, say)
    except LabError as error:
        print(f"lab: {error.message}\n    remedy: {error.remedy}", file=sys.stderr)
        sys.exit(1)
    made = {"repository": repository.as_uri(), "ref": REF, "version": llama_source.VERSION}
    print(json.dumps({**made, **{purpose: str(path) for purpose, path in bases.items()}}))


if __name__ == "__main__":
    main()
