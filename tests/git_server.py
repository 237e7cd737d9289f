"""Real git repositories, and servers that speak git's protocols on loopback, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

GIT = shutil.which("git") or "git"
WHEN = 1_790_000_000
_ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    **{f"GIT_{who}_{what}": "tester" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


def git(directory: Path, *arguments: str, text: str | bytes = b"", when: int = WHEN) -> str:
    """Run git in a repository of a test, at a fixed time and as nobody in particular."""
    dates = {f"GIT_{who}_DATE": f"{when} +0000" for who in ("AUTHOR", "COMMITTER")}
    done = subprocess.run(
        [GIT, "-C", str(directory), *arguments],
        input=text.encode() if isinstance(text, str) else text,
        env={**_ENVIRONMENT, **dates},
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


def cmake_lists(version: str | None) -> str:
    """The beginning of llama.cpp's CMakeLists.txt, of a release or of a tree older than releases."""
    head = 'cmake_minimum_required(VERSION 3.14)\nproject("llama.cpp" C CXX)\n'
    if version is None:
        return head
    parts = zip(("MAJOR", "MINOR", "PATCH"), version.split("."), strict=True)
    return head + "".join(f"set(LLAMA_VERSION_{part} {number})\n" for part, number in parts)


# Some of everything: what a build needs, what it does not, and names that file systems and locales disagree on.
TREE = {
    "CMakeLists.txt": cmake_lists("0.7.0"),
    "LICENSE": "MIT\n",
    "README.md": "read me\n",
    "convert_hf_to_gguf.py": "print()\n",
    "convert_lora_to_gguf.py": "print()\n",
    "flake.nix": "{}\n",
    ".github/workflows/build.yml": "on: push\n",
    ".devops/cuda.Dockerfile": "FROM scratch\n",
    "cmake/common.cmake": "# flags\n",
    "common/arg.cpp": "int arg;\n",
    "docs/build.md": "# Build\n",
    "examples/simple/simple.cpp": "int main() {}\n",
    "ggml/include/ggml-vulkan.h": "#pragma once\n",
    "ggml/src/ggml-cpu/ops.cpp": "int ops;\n",
    "ggml/src/ggml-cuda/mmq.cu": "__global__ void k() {}\n",
    "ggml/src/ggml-cuda/template-instances/mmq.cu": "#include <mmq>\n",
    "ggml/src/ggml-metal/ggml-metal.m": "@end\n",
    "ggml/src/ggml-rpc/ggml-rpc.cpp": "int rpc;\n",
    "ggml/src/ggml-vulkan/ggml-vulkan.cpp": "int vulkan;\n",
    "gguf-py/gguf/constants.py": "A = 1\n",
    "media/llama.png": "PNG\n",
    "models/ggml-vocab-gpt-2.gguf": "GGUF\n",
    "scripts/sync-ggml.sh": "#!/bin/sh\n",
    "scripts/ui-assets.cmake": "# assets\n",
    "src/llama.cpp": "int llama;\r\n",
    "src/möbel.cpp": "int möbel;\n",
    "tests/CMakeLists.txt": "# tests\n",
    "tests/snapshots/quant.txt": "snapshot\n",
    "tests/test-backend-ops.cpp": "int main() {}\n",
    "tools/mtmd/mtmd.cpp": "int mtmd;\n",
    "tools/mtmd/test-1.jpeg": "JPEG\n",
    "tools/server/server.cpp": "int server;\n",
    "tools/server/tests/test.py": "pass\n",
    "tools/ui/CMakeLists.txt": "# page\n",
    "tools/ui/src/app.html": "<html>\n",
    "tools/ui/ui.cpp.in": "// page\n",
}
PRUNED = {
    ".devops/cuda.Dockerfile",
    ".github/workflows/build.yml",
    "convert_lora_to_gguf.py",
    "docs/build.md",
    "examples/simple/simple.cpp",
    "flake.nix",
    "ggml/src/ggml-metal/ggml-metal.m",
    "ggml/src/ggml-vulkan/ggml-vulkan.cpp",
    "gguf-py/gguf/constants.py",
    "media/llama.png",
    "models/ggml-vocab-gpt-2.gguf",
    "scripts/sync-ggml.sh",
    "tests/snapshots/quant.txt",
    "tools/mtmd/test-1.jpeg",
    "tools/server/tests/test.py",
    "tools/ui/src/app.html",
}


class Repository:
    """A bare repository like llama.cpp's: releases, builds, a branch, and one name that is two things."""

    def __init__(self, place: Path) -> None:
        self.path = place
        place.mkdir(parents=True)
        git(place, "init", "--quiet", "--bare", "--initial-branch=master")
        self.old = self.commit({"CMakeLists.txt": cmake_lists(None), "LICENSE": "MIT\n"}, "before releases")
        git(place, "tag", "b8000", self.old)
        self.before = self.commit(TREE | {"CMakeLists.txt": cmake_lists("0.6.0")}, "0.6.0", self.old)
        git(place, "tag", "-a", "-m", "release", "v0.6.0", self.before)
        # No branch and no tag names this one.
        self.between = self.commit(TREE | {"CMakeLists.txt": cmake_lists("0.6.1")}, "after 0.6.0", self.before)
        self.release = self.commit(TREE, "0.7.0", self.between)
        git(place, "tag", "-a", "-m", "release", "v0.7.0", self.release)
        self.tip = self.commit(TREE | {"src/new.cpp": "int after;\n"}, "after 0.7.0", self.release)
        self.branch("master", self.tip)
        git(place, "tag", "twin", self.before)
        self.branch("twin", self.release)

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def commit(self, files: Mapping[str, str], message: str, *parents: str, when: int = WHEN) -> str:
        """Make a commit of these files; one script more can be run, and one link leads to a file."""
        stream = f"commit refs/made\ncommitter tester <tester> {when} +0000\n{_data(message)}"
        stream += "".join(f"{'merge' if number else 'from'} {parent}\n" for number, parent in enumerate(parents))
        stream += "deleteall\n"
        everything = {**files, "tools/run.sh": "#!/bin/sh\n", "src/link.cpp": "llama.cpp"}
        for name, content in everything.items():
            mode = {"tools/run.sh": "100755", "src/link.cpp": "120000"}.get(name, "100644")
            stream += f"M {mode} inline {name}\n{_data(content)}"
        git(self.path, "fast-import", "--quiet", "--force", text=stream)
        commit = git(self.path, "rev-parse", "refs/made")
        git(self.path, "update-ref", "-d", "refs/made")
        return commit

    def branch(self, name: str, commit: str) -> None:
        git(self.path, "update-ref", f"refs/heads/{name}", commit)

    def move_tag(self, name: str, commit: str) -> None:
        git(self.path, "tag", "--force", "-a", "-m", "moved", name, commit)


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}\n"


class Server:
    """Where a repository is served, and what was asked of it."""

    def __init__(self, url: str, asked: list[str]) -> None:
        self.url = url
        self.asked = asked


@contextmanager
def smart(repository: Repository, *, modern: bool = True, gate: threading.Event | None = None) -> Iterator[Server]:
    """Serve over smart HTTP with git's own http-backend.

    Without ``modern`` it speaks the first protocol alone, and gives out nothing but the tips of branches and tags.
    Packs are sent once the ``gate`` is open.
    """
    git(repository.path, "config", "uploadpack.allowFilter", "true" if modern else "false")
    git(repository.path, "config", "uploadpack.allowReachableSHA1InWant", "false")

    class Handler(_Handler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            if gate is not None:
                gate.wait(60)
            self._answer()

        def _answer(self) -> None:
            self.server.asked.append(self.path)  # type: ignore[attr-defined]
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            environment = {
                **_ENVIRONMENT,
                "GIT_PROJECT_ROOT": str(repository.path.parent),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type") or "",
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
                "REMOTE_ADDR": "127.0.0.1",
            }
            if modern:
                environment["GIT_PROTOCOL"] = self.headers.get("Git-Protocol") or ""
            done = subprocess.run([GIT, "http-backend"], input=body, env=environment, capture_output=True, check=False)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            lines = [line.split(": ", 1) for line in head.decode().splitlines()]
            status = next((int(value.split()[0]) for name, value in lines if name == "Status"), 200)
            self.send_response(status)
            for name, value in lines:
                if name != "Status":
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    with _serving(Handler, repository.path.name) as server:
        yield server


@contextmanager
def dumb(repository: Repository) -> Iterator[Server]:
    """Serve a repository's files, as a web server that knows nothing of git does."""
    git(repository.path, "repack", "-a", "-d", "--quiet")
    git(repository.path, "update-server-info")

    class Handler(_Handler):
        def do_GET(self) -> None:
            self.server.asked.append(self.path)  # type: ignore[attr-defined]
            super().do_GET()

    with _serving(partial(Handler, directory=str(repository.path.parent)), repository.path.name) as server:
        yield server


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name in the base
        """Say nothing."""

    def copyfile(self, source: IO[bytes], outputfile: IO[bytes]) -> None:  # type: ignore[override]
        outputfile.write(source.read())


@contextmanager
def _serving(handler: Any, name: str) -> Iterator[Server]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        asked: list[str] = []
        server.asked = asked  # type: ignore[attr-defined]
        server.daemon_threads = True
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{server.server_port}/{name}", asked)
        finally:
            server.shutdown()
            thread.join()
