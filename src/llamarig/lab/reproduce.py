"""Whether two builds of the engine from the same inputs give the same bytes: `scripts/reproduce-engine`.

The image for the CPU is built twice from nothing: no step of an earlier build, no ccache, each from its own copy of the
source with its own file times, and the second with another number of jobs, so that files are compiled in another order.
Then every file of both is compared.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from llamarig.errors import LlamarigError
from llamarig.lab.engine_image import BINARIES, build, cpu_arguments, ensure_bases
from llamarig.lab.llama_source import COMMIT, EPOCH, ensure_source
from llamarig.lab.machine import LabError, ensure_docker, run

ROOT = Path(__file__).resolve().parents[3]
_CACHE: Final = ROOT / ".cache" / "engine"
_IMAGES: Final = ("llamarig-reproduce:first", "llamarig-reproduce:second")
_NO_COMMIT: Final = "0" * 40  # of a source that somebody names; both builds are told the same


def main() -> None:
    """Build twice and compare."""
    arguments = _parse()
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {text}", flush=True)

    try:
        ensure_docker()
        source = arguments.source or ensure_source(_CACHE, say)
        _give_to_user(_CACHE)
        with source_tree(source) as tree:
            version, commit = tree_version(tree), (COMMIT if arguments.source is None else _NO_COMMIT)
            given = (arguments.build_image, arguments.runtime_image)
            bases = given if all(given) else ensure_bases(say)
            for image, jobs in zip(_IMAGES, (arguments.jobs, arguments.jobs + 1), strict=True):
                say(f"building llama.cpp {version} for the CPU from nothing, {jobs} jobs")
                build(tree, image, {**cpu_arguments(version, commit, EPOCH, bases), "JOBS": str(jobs)}, cache=False)
        first, second = (digests(image) for image in _IMAGES)
        for name in sorted(first):
            print(f"{first[name]}  {name}")
        different = compare(first, second)
    except LlamarigError as error:
        print(f"reproduce-engine: {error.message}" + (f"\n    remedy: {error.remedy}" if error.remedy else ""))
        sys.exit(2)
    finally:
        if not arguments.keep:
            run(["docker", "image", "rm", "--force", *_IMAGES], check=False)
    if different:
        say(f"{len(different)} of {len(first | second)} files differ: {', '.join(different)}")
        sys.exit(1)
    say(f"both builds have the same {len(first)} files, byte for byte")


def tree_version(tree: Path) -> str:
    """Return the version that a tree of llama.cpp says it is.

    Raises:
        LabError: it does not say.

    """
    lists = tree / "CMakeLists.txt"
    text = lists.read_text(encoding="utf-8") if lists.is_file() else ""
    found = dict(re.findall(r"^set\(LLAMA_VERSION_(MAJOR|MINOR|PATCH) +(\d+)\)$", text, re.MULTILINE))
    if len(found) != len(("major", "minor", "patch")):
        raise LabError(f"{tree} is no llama.cpp of which CMakeLists.txt says the version", "take v0.3.0 or later")
    return f"{found['MAJOR']}.{found['MINOR']}.{found['PATCH']}"


def digests(image: str) -> dict[str, str]:
    """Return the sha256 of every file of an engine's image that the build made, by name."""
    inside = f"sha256sum {BINARIES}/* /version.json /usr/local/bin/llama-entrypoint"
    listing = run(["docker", "run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", image, "-c", inside])
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in listing.splitlines())}


def compare(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Return the names of files that are not the same in both, in order."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


@contextmanager
def source_tree(source: Path) -> Iterator[Path]:
    """Give a source as a directory: it is one, or an archive of one, with or without a folder around it."""
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise LabError(f"there is no {source}", "name a directory with llama.cpp's source, or an archive of it")
    with tempfile.TemporaryDirectory(prefix="llamarig-source-") as name:
        run(["tar", "--extract", "--file", str(source), "--directory", name])
        found = [path for path in (Path(name), *sorted(Path(name).iterdir())) if (path / "CMakeLists.txt").is_file()]
        if not found:
            raise LabError(f"{source} holds no llama.cpp", "the archive's top, or the one folder in it, is the source")
        yield found[0]


def _give_to_user(directory: Path) -> None:
    """Under sudo, leave what was fetched to the person who typed the command: other tests use it as them."""
    user = os.environ.get("SUDO_UID")
    if user and os.geteuid() == 0 and directory.is_dir():
        for path in (directory.parent, directory, *directory.rglob("*")):
            os.chown(path, int(user), -1, follow_symlinks=False)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/reproduce-engine",
        description="Build the engine for the CPU twice from nothing and compare both, byte for byte.",
        epilog="Exit: 0 the same, 1 different, 2 there was nothing to compare.",
    )
    parser.add_argument("--source", type=Path, metavar="PATH", help="llama.cpp's source: a directory or an archive")
    parser.add_argument("--build-image", metavar="NAME", help="what to build with; default: made with mmdebstrap")
    parser.add_argument("--runtime-image", metavar="NAME", help="what the image is made on; default: the same way")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="of the first build; the second has one more")
    parser.add_argument("--keep", action="store_true", help=f"leave the images {' and '.join(_IMAGES)}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
