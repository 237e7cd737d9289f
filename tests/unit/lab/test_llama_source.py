from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llamarig.lab import llama_source
from llamarig.lab.llama_source import Index, ensure_source, pips_index
from llamarig.lab.machine import LabError

SDIST = "llama_cpp_python-0.3.36.tar.gz"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "index"
    (directory / "simple/llama-cpp-python").mkdir(parents=True)
    (directory / "packages").mkdir()
    return directory


@pytest.fixture
def index(files: Path) -> Iterator[str]:
    """An index that speaks HTTP, as mirrors do."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(files)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    thread.join()
    server.server_close()


def publish(files: Path, content: bytes) -> None:
    page = files / "simple/llama-cpp-python/index.html"
    page.write_text(
        f'<a href="../../packages/older.tar.gz">older.tar.gz</a><a href="../../packages/{SDIST}#sha256=1">{SDIST}</a>',
        encoding="utf-8",
    )
    (files / "packages" / SDIST).write_bytes(content)


def sdist(**members: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(f"llama_cpp_python-0.3.36/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_a_file_is_found_where_its_page_leads(files: Path, index: str) -> None:
    publish(files, b"content")
    found = Index(index + "/", "").find("llama-cpp-python", SDIST)
    assert found == index.replace("/simple", f"/packages/{SDIST}")
    with Index(index + "/", "").open(found) as answer:
        assert answer.read() == b"content"


def test_an_index_without_the_file_is_named(files: Path, index: str) -> None:
    publish(files, b"")
    with pytest.raises(LabError, match=r"has no other\.tar\.gz"):
        Index(index + "/", "").find("llama-cpp-python", "other.tar.gz")


def test_an_index_that_does_not_answer_is_named() -> None:
    with pytest.raises(LabError, match=r"127\.0\.0\.1:1/llama-cpp-python/ does not answer"):
        Index("http://127.0.0.1:1/", "").find("llama-cpp-python", SDIST)
    with pytest.raises(LabError, match="is no address of an index"):
        Index("gopher://index/", "").find("llama-cpp-python", SDIST)


def test_the_index_is_pips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configuration = tmp_path / "pip.conf"
    configuration.write_text("[global]\nindex-url = https://mirror.test/simple\n", encoding="utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    assert pips_index().url == "https://mirror.test/simple/"
    monkeypatch.setenv("PIP_INDEX_URL", "https://other.test/simple/")
    assert pips_index().url == "https://other.test/simple/"


def test_another_file_of_that_name_is_refused_and_leaves_nothing(
    files: Path, index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(files, sdist(**{"vendor/llama.cpp/CMakeLists.txt": "x"}))
    monkeypatch.setenv("PIP_INDEX_URL", index)
    with pytest.raises(LabError, match="is pinned"):
        ensure_source(tmp_path / "cache", print)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_tree_comes_out_of_the_sdist_alone_and_once(
    files: Path, index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = sdist(
        **{
            "setup.py": "no",
            "vendor/llama.cpp/.git": "gitdir: nowhere",
            "vendor/llama.cpp/CMakeLists.txt": "x",
            "vendor/llama.cpp/src/llama.cpp": "y",
        }
    )
    publish(files, content)
    monkeypatch.setenv("PIP_INDEX_URL", index)
    monkeypatch.setattr(llama_source, "_SHA256", hashlib.sha256(content).hexdigest())
    said: list[str] = []
    tree = ensure_source(tmp_path / "cache", said.append)
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == ["CMakeLists.txt", "src", "src/llama.cpp"]
    assert ensure_source(tmp_path / "cache", said.append) == tree
    assert len(said) == 1
