"""llama.cpp's source without GitHub: the tree that the sdist of the Python package llama-cpp-python carries.

``pip download`` of an sdist runs its build to ask for its metadata, so the one file is fetched from the index that pip
is set up with, checked against its pinned sha256, and the tree in it unpacked.
"""

from __future__ import annotations

import ast
import hashlib
import re
import ssl
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, Final
from urllib.error import URLError
from urllib.parse import urljoin
from urllib.request import urlopen

from llamarig.lab.machine import LabError
from llamarig.lab.models import Say

VERSION: Final = "0.5.0"  # what llama-server of this tree says it is
_PACKAGE: Final = "llama_cpp_python-0.3.36"
_SHA256: Final = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
_TREE: Final = f"{_PACKAGE}/vendor/llama.cpp/"
_SECONDS: Final = 60  # that the index may be silent
_SETTING: Final = re.compile(r"^(\S+)=('.*')$", re.MULTILINE)

# The sdist does not say which commit its tree is: the digits of its checksum stand in, so that they name the bytes.
COMMIT: Final = _SHA256[:40]
# Every time in an image that is built of it; the day on which the lab took to it.
EPOCH: Final = 1_790_000_000


def ensure_source(cache: Path, say: Say) -> Path:
    """Return the tree below a cache directory; fetched and unpacked where it is not there (90 MB, about 10 s).

    Raises:
        LabError: the index does not answer, does not have the file, or has another of the same name.

    """
    tree = cache / f"llama.cpp-{VERSION}-{_SHA256[:12]}"
    if tree.is_dir():
        return tree
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="llama.cpp-", dir=cache) as name:
        sdist = Path(name) / f"{_PACKAGE}.tar.gz"
        _fetch(sdist, say)
        unpacked = Path(name) / "tree"
        _unpack(sdist, unpacked)
        unpacked.rename(tree)
    return tree


@dataclass(frozen=True, slots=True)
class Index:
    """A package index as pip is set up with it.

    Attributes:
        url: its address, with a slash at the end.
        certificates: file with the authorities that it is checked against; the system's where empty.

    """

    url: str
    certificates: str

    def find(self, project: str, file: str) -> str:
        """Return the address of one of a project's files.

        Raises:
            LabError: the index does not answer, or does not have it.

        """
        page = urljoin(self.url, f"{project}/")
        links = _Links()
        with self.open(page) as answer:
            links.feed(answer.read().decode("utf-8"))
        for link in links.found:
            address = urljoin(page, link).partition("#")[0]
            if address.rsplit("/", 1)[-1] == file:
                return address
        raise LabError(f"the index at {self.url} has no {file}", "name one that has it: PIP_INDEX_URL")

    def open(self, address: str) -> IO[bytes]:
        """Open an address of the index, or one that it names.

        Raises:
            LabError: it does not answer.

        """
        if not address.startswith(("https://", "http://", "file://")):
            raise LabError(f"{address} is no address of an index", "check pip config list")
        context = ssl.create_default_context(cafile=self.certificates or None)
        try:
            answer: IO[bytes] = urlopen(address, timeout=_SECONDS, context=context)  # noqa: S310  checked above
        except (URLError, OSError) as error:
            raise LabError(f"{address} does not answer: {error}", "check the network and pip config list") from error
        return answer


def pips_index() -> Index:
    """Return the index that pip takes packages from."""
    # `pip config get` knows neither the environment nor PIP_CONFIG_FILE; `list` has all, the stronger last.
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = {key: ast.literal_eval(value) for key, value in _SETTING.findall(listed)}

    def setting(name: str) -> str:
        return str(found.get(f":env:.{name}") or found.get(f"global.{name}") or "")

    return Index((setting("index-url") or "https://pypi.org/simple").rstrip("/") + "/", setting("cert"))


class _Links(HTMLParser):
    """The files of a page of an index (PEP 503)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if tag == "a" and target:
            self.found.append(target)


def _fetch(goal: Path, say: Say) -> None:
    index = pips_index()
    say(f"fetching {goal.name} for llama.cpp's source, once")
    digest = hashlib.sha256()
    with index.open(index.find("llama-cpp-python", goal.name)) as answer, goal.open("wb") as file:
        while piece := answer.read(1 << 20):
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != _SHA256:
        raise LabError(
            f"{goal.name} from {index.url} has sha256 {digest.hexdigest()}, and {_SHA256} is pinned",
            "the index has another file of that name: take one that has PyPI's, by PIP_INDEX_URL",
        )


def _unpack(sdist: Path, goal: Path) -> None:
    """Unpack the tree of the sdist; its .git, a file that leads nowhere, stays out."""
    with tarfile.open(sdist) as archive:
        members = [one for one in archive if one.name.startswith(_TREE) and one.name != f"{_TREE}.git"]
        for member in members:
            member.name = member.name.removeprefix(_TREE)
        archive.extractall(goal, members, filter="data")
    if not (goal / "CMakeLists.txt").is_file():
        raise LabError(f"{sdist.name} has no llama.cpp", "the pin and the layout of the sdist have moved apart")
