"""The engine's source, from real git repositories over the protocols that servers speak."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llamarig.control.engine_archive import ArchiveError, about, needed, pack
from llamarig.control.engine_source import (
    Commit,
    SourceError,
    ensure_archive,
    new_archive,
    read_commit,
    resolve,
    version_of,
)
from llamarig.control.engine_steps import Asked, lock_engine
from llamarig.control.git import GitError, fetch, shown
from tests.git_server import PRUNED, TREE, WHEN, Repository, Server, dumb, git, smart
from tests.support import ROOT

Open = Callable[[Repository], Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("made") / "llama.cpp")


@pytest.fixture
def upstream(made: Repository, tmp_path: Path) -> Repository:
    """A repository that a test may change."""
    copy = Repository.__new__(Repository)
    copy.__dict__ |= made.__dict__ | {"path": tmp_path / "upstream/llama.cpp"}
    shutil.copytree(made.path, copy.path)
    return copy


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "checkout"
    path.mkdir()
    return path


def quiet(_text: str) -> None:
    """Say nothing."""


def source(repository: str, commit: str | None, archive: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"repository": repository, "ref": "v0.7.0", "commit": commit, "archive": archive}


def left_over(root: Path) -> list[str]:
    return [path.name for path in root.rglob(".part-*")]


def modern(repository: Repository) -> Any:
    return smart(repository)


def first_protocol(repository: Repository) -> Any:
    return smart(repository, modern=False)


@contextmanager
def by_path(repository: Repository) -> Iterator[Server]:
    yield Server(repository.url, [])


SERVERS = [modern, first_protocol, dumb, by_path]


@pytest.mark.parametrize("server", SERVERS)
def test_an_annotated_tag_is_the_commit_that_it_is_of(made: Repository, root: Path, server: Open) -> None:
    with server(made) as served:
        found = resolve(root, served.url, "v0.7.0", quiet)
    assert (found.commit, found.kind) == (made.release, "tag")


@pytest.mark.parametrize(
    ("ref", "commit", "kind"),
    [
        ("b8000", "old", "tag"),
        ("master", "tip", "branch"),
        ("tags/v0.6.0", "before", "tag"),
        ("refs/tags/v0.6.0", "before", "tag"),
        ("refs/heads/master", "tip", "branch"),
        ("tags/twin", "before", "tag"),
        ("heads/twin", "release", "branch"),
    ],
)
def test_a_ref_may_be_said_in_every_way_of_git(made: Repository, root: Path, ref: str, commit: str, kind: str) -> None:
    found = resolve(root, made.url, ref, quiet)
    assert (found.commit, found.kind) == (getattr(made, commit), kind)


def test_a_whole_commit_is_itself_and_nobody_is_asked(made: Repository, root: Path) -> None:
    found = resolve(root, "http://127.0.0.1:9/gone", made.release, quiet)
    assert (found.commit, found.kind) == (made.release, "commit")


@pytest.mark.parametrize("server", SERVERS)
def test_the_beginning_of_a_commit_is_looked_up_in_the_history(made: Repository, root: Path, server: Open) -> None:
    with server(made) as served:
        found = resolve(root, served.url, made.between[:9], quiet)
    assert (found.commit, found.kind) == (made.between, "commit")
    assert left_over(root) == []


def test_the_beginning_of_the_known_commit_takes_no_history(made: Repository, root: Path) -> None:
    said: list[str] = []
    assert resolve(root, made.url, made.between[:9], said.append, known=made.between).commit == made.between
    assert not [text for text in said if "history" in text]


def test_the_beginning_of_two_commits_is_an_error_that_names_both(upstream: Repository, root: Path) -> None:
    ours = two_alike(upstream)
    with pytest.raises(SourceError) as caught:
        resolve(root, upstream.url, ours[0][:7], quiet)
    assert sorted(ours) == sorted(word for word in caught.value.message.replace(",", "").split() if len(word) == 40)
    assert caught.value.remedy == "say more of it"


def two_alike(repository: Repository) -> list[str]:
    """Make two commits whose names begin with the same seven digits, and branches that reach them."""
    tree = git(repository.path, "rev-parse", f"{repository.tip}^{{tree}}")
    seen: dict[str, bytes] = {}
    for number in range(1 << 20):
        text = f"tree {tree}\nauthor t <t> {WHEN} +0000\ncommitter t <t> {WHEN} +0000\n\n{number}\n".encode()
        name = hashlib.sha1(b"commit %d\0" % len(text) + text, usedforsecurity=False).hexdigest()
        if name[:7] in seen:
            names = [
                git(repository.path, "hash-object", "-t", "commit", "-w", "--stdin", text=body)
                for body in (seen[name[:7]], text)
            ]
            for index, made in enumerate(names):
                repository.branch(f"alike-{index}", made)
            return names
        seen[name[:7]] = text
    msg = "no two alike"
    raise AssertionError(msg)


def test_a_name_goes_before_the_beginning_of_a_commit(upstream: Repository, root: Path) -> None:
    upstream.branch(upstream.before[:8], upstream.tip)
    assert resolve(root, upstream.url, upstream.before[:8], quiet).commit == upstream.tip


def test_a_name_that_is_two_things_is_an_error_that_says_how_to_say_either(made: Repository, root: Path) -> None:
    with pytest.raises(SourceError) as caught:
        resolve(root, made.url, "twin", quiet)
    assert made.before in caught.value.message
    assert made.release in caught.value.message
    assert caught.value.remedy == "say which: tags/twin or heads/twin"


def test_a_tag_and_a_branch_at_the_same_commit_are_no_question(upstream: Repository, root: Path) -> None:
    upstream.branch("twin", upstream.before)
    assert resolve(root, upstream.url, "twin", quiet).commit == upstream.before


def test_a_ref_that_is_not_there_is_told_with_what_is_near_it(made: Repository, root: Path) -> None:
    with pytest.raises(SourceError, match=r"no tag, branch or commit v0\.7\.1") as caught:
        resolve(root, made.url, "v0.7.1", quiet)
    assert caught.value.remedy == "near it are v0.7.0, v0.6.0"
    with pytest.raises(SourceError, match="no tag, branch or commit 0123456789"):
        resolve(root, made.url, "0123456789", quiet)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://127.0.0.1:9/llama.cpp", "this control node reaches it"),
        ("http://nowhere.invalid/llama.cpp", "DNS"),
        ("file:///nowhere/llama.cpp", "check the address"),
    ],
)
def test_a_repository_that_cannot_be_reached_is_an_error_with_a_remedy(root: Path, url: str, remedy: str) -> None:
    with pytest.raises(GitError) as caught:
        resolve(root, url, "v0.7.0", quiet)
    assert remedy in caught.value.remedy


def test_a_web_server_without_the_repository_is_an_error(made: Repository, root: Path) -> None:
    with smart(made) as served, pytest.raises(GitError, match="not found") as caught:
        resolve(root, served.url + "-elsewhere", "v0.7.0", quiet)
    assert "check the address" in caught.value.remedy


def test_a_login_in_an_address_is_never_shown() -> None:
    assert shown("https://me:secret@example.com/llama.cpp") == "https://example.com/llama.cpp"


def test_without_git_the_remedy_is_to_install_it(
    made: Repository, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitError, match="git is not installed") as caught:
        resolve(root, made.url, "v0.7.0", quiet)
    assert caught.value.remedy == "apt-get install git"


def test_another_repository_in_the_environment_does_not_get_in_the_way(
    made: Repository, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "hook"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "objects"))
    assert read_commit(root, made.url, made.release, quiet).tree_version == "0.7.0"


@pytest.mark.parametrize("server", SERVERS)
def test_a_commit_is_fetched_from_every_kind_of_server(made: Repository, root: Path, server: Open) -> None:
    """Also one that no branch and no tag names, from servers that give out nothing but tips."""
    with server(made) as served:
        read = read_commit(root, served.url, made.between, quiet)
    assert (read.commit, read.committed, read.tree_version) == (made.between, WHEN, "0.6.1")
    assert left_over(root) == []


def test_a_server_that_refuses_single_commits_gives_its_whole_history(made: Repository, root: Path) -> None:
    said: list[str] = []
    with smart(made, modern=False) as served:
        read = read_commit(root, served.url, made.between, said.append)
    assert [text for text in said if "fetching the whole history" in text]
    # With the history here, its length is known without being asked for.
    assert (read.commit, read.tree_version, read.build) == (made.between, "0.6.1", 3)


def test_the_number_of_commits_is_counted_where_it_is_asked_for(made: Repository, root: Path) -> None:
    with smart(made) as served:
        assert read_commit(root, served.url, made.release, quiet).build is None
        assert read_commit(root, served.url, made.release, quiet, count=True).build == 4


def test_a_commit_is_fetched_once(made: Repository, root: Path) -> None:
    with smart(made) as served:
        read_commit(root, served.url, made.release, quiet)
    again = read_commit(root, served.url, made.release, quiet)
    assert again.commit == made.release


@pytest.mark.parametrize("server", SERVERS)
def test_a_commit_that_the_repository_lacks_is_an_error(made: Repository, root: Path, server: Open) -> None:
    with server(made) as served, pytest.raises(SourceError, match=f"does not have commit {'ab' * 20}"):
        read_commit(root, served.url, "ab" * 20, quiet)
    assert left_over(root) == []


def test_the_name_of_a_tag_is_not_taken_for_a_commit(made: Repository, root: Path) -> None:
    tag = git(made.path, "rev-parse", "refs/tags/v0.7.0")
    assert tag != made.release
    with pytest.raises(SourceError, match="is no commit but a tag") as caught:
        read_commit(root, made.url, tag, quiet)
    assert made.release in caught.value.remedy


def test_a_repository_of_something_else_is_an_error(upstream: Repository, root: Path) -> None:
    other = upstream.commit({"README.md": "a cake\n"}, "bake")
    upstream.branch("cake", other)
    with pytest.raises(SourceError, match=r"has no CMakeLists\.txt"):
        read_commit(root, upstream.url, other, quiet)


@pytest.mark.parametrize(
    ("ref", "kind", "tree_version", "version"),
    [
        ("v0.7.0", "tag", "0.7.0", "0.7.0"),
        ("master", "branch", "0.7.0", "0.7.0-dev-abababaf0"),
        ("b11669", "tag", "0.7.0", "0.7.0-dev-abababaf0"),
        ("abababaf0", "commit", "0.7.0", "0.7.0-dev-abababaf0"),
        ("b8000", "tag", None, "b8000"),
        ("odd/tag", "tag", None, "dev-abababaf0"),
        ("master", "branch", None, "dev-abababaf0"),
    ],
)
def test_the_version_is_what_the_server_will_say(ref: str, kind: Any, tree_version: str | None, version: str) -> None:
    commit = Commit("abababaf0" + "1" * 31, WHEN, tree_version)
    assert version_of(ref, kind, commit) == version


def test_a_release_whose_tree_says_another_version_is_locked_as_what_it_says(upstream: Repository, root: Path) -> None:
    upstream.move_tag("v0.9.0", upstream.release)
    lock = {"llama_image_source": {"repository": upstream.url, "ref": "v0.7.0", "version": "0.7.0"}}
    said: list[str] = []
    found, warnings = lock_engine(root, root / "engine.yml", lock, Asked("v0.9.0"), said.append)
    assert found["llama_image_source"]["version"] == "0.7.0"
    assert "v0.9.0 says of itself that it is 0.7.0; that is what is locked" in said
    assert warnings == []


def test_a_killed_fetch_leaves_nothing_that_the_next_would_take(upstream: Repository, root: Path) -> None:
    gate = threading.Event()
    code = (
        "import sys; from pathlib import Path; from llamarig.control.engine_source import read_commit;"
        f" read_commit(Path({str(root)!r}), sys.argv[1], {upstream.release!r}, print)"
    )
    with smart(upstream, gate=gate) as served:
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        with subprocess.Popen(
            [sys.executable, "-c", code, served.url], env=environment, stdout=subprocess.DEVNULL, start_new_session=True
        ) as process:
            deadline = time.monotonic() + 30
            while not any(path.endswith("git-upload-pack") for path in served.asked) and time.monotonic() < deadline:
                time.sleep(0.05)
                if left_over(root):
                    break
            os.killpg(process.pid, signal.SIGKILL)
        assert left_over(root)
        assert not list(root.rglob("*.git"))
        gate.set()
        assert read_commit(root, served.url, upstream.release, quiet).tree_version == "0.7.0"
    assert left_over(root) == []


def test_two_runs_at_once_fetch_one_after_the_other(made: Repository, root: Path) -> None:
    gate = threading.Event()
    said: list[str] = []
    with smart(made, gate=gate) as served:
        results: list[Commit] = []

        def work() -> None:
            results.append(read_commit(root, served.url, made.release, said.append))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while not any("waiting for another run" in text for text in said) and time.monotonic() < deadline:
            time.sleep(0.02)
        gate.set()
        for thread in threads:
            thread.join()
    assert [read.commit for read in results] == [made.release] * 2
    assert len([text for text in said if text.startswith("fetching commit")]) == 1


def names_of(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return [member.name for member in tar if not member.isdir()]


def test_an_archive_holds_what_a_build_needs(made: Repository, root: Path) -> None:
    archive = ensure_archive(root, source(made.url, made.release), quiet)
    kept = set(TREE) - PRUNED
    assert set(names_of(archive.path)) == kept | {"version.json", "src/link.cpp", "tools/run.sh"}
    assert archive.bytes == archive.path.stat().st_size
    assert archive.sha256 == hashlib.sha256(archive.path.read_bytes()).hexdigest()
    assert {name for name in TREE if not needed(name)} == PRUNED


def test_an_unpruned_archive_holds_everything(made: Repository, root: Path) -> None:
    with new_archive(root, made.url, made.release, quiet, pruned=False) as archive:
        assert set(names_of(archive.path)) == {*TREE, "version.json", "src/link.cpp", "tools/run.sh"}
        assert about(archive.path)["pruned"] is False
    assert not archive.path.exists()


def test_everything_in_an_archive_is_as_git_has_it_and_nobody_elses(made: Repository, root: Path) -> None:
    archive = ensure_archive(root, source(made.url, made.release), quiet)
    with tarfile.open(archive.path) as tar:
        members = tar.getmembers()
        for member in members:
            assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", WHEN)
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is not None and member.name in TREE:
                assert stream.read() == TREE[member.name].encode(), member.name
    modes = {member.name: member.mode for member in members}
    assert (modes["src/llama.cpp"], modes["tools/run.sh"], modes["src"]) == (0o644, 0o755, 0o755)
    assert next(member.linkname for member in members if member.issym()) == "llama.cpp"
    names = [member.name for member in members if not member.isdir()]
    assert names[0] == "version.json"
    assert names[1:] == sorted(names[1:], key=str.encode)


def test_an_archive_says_what_it_is(made: Repository, root: Path) -> None:
    archive = ensure_archive(root, source(made.url, made.release), quiet)
    listing = [
        line
        for line in git(made.path, "ls-tree", "-r", "-z", "--full-tree", made.release).split("\0")[:-1]
        if needed(line.split("\t")[1])
    ]
    text = "".join(f"{line.replace(' blob ', ' ')}\0" for line in sorted(listing, key=lambda x: x.split("\t")[1]))
    assert about(archive.path) == {
        "commit": made.release,
        "committed": WHEN,
        "tree_version": "0.7.0",
        "pruned": True,
        "files": len(listing),
        "listing_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def test_the_same_commit_is_the_same_bytes_whatever_machine(made: Repository, root: Path, tmp_path: Path) -> None:
    """Another umask, another locale, another address, another order of packing, settings that change files."""
    first = ensure_archive(root, source(made.url, made.release), quiet)
    settings = tmp_path / "gitconfig"
    settings.write_text("[core]\nautocrlf = true\nquotePath = true\n[tar]\numask = 0077\n", encoding="utf-8")
    code = (
        "import os, sys; os.umask(0o077); from pathlib import Path;"
        " from llamarig.control.engine_source import ensure_archive;"
        " made = ensure_archive(Path(sys.argv[1]), {'repository': sys.argv[2], 'commit': sys.argv[3]}, print);"
        " print(made.sha256)"
    )
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
        "GIT_CONFIG_GLOBAL": str(settings),
    }
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with dumb(made) as served:
        done = subprocess.run(
            [sys.executable, "-c", code, str(elsewhere), served.url, made.release],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.split()[-1] == first.sha256


def test_an_archive_once_made_needs_no_network_and_is_looked_at_each_time(made: Repository, root: Path) -> None:
    first = ensure_archive(root, source(made.url, made.release), quiet)
    shutil.rmtree(root / ".cache/engine" / f"{made.release}.git")
    gone = source("http://127.0.0.1:9/gone", made.release)
    assert ensure_archive(root, gone, quiet) == first
    with first.path.open("r+b") as stream:
        stream.write(b"damaged")
    with pytest.raises(GitError):
        ensure_archive(root, gone, quiet)
    assert ensure_archive(root, source(made.url, made.release), quiet) == first


def test_nothing_is_made_of_a_ref_that_nobody_looked_up(root: Path) -> None:
    with pytest.raises(SourceError) as caught:
        ensure_archive(root, source("http://127.0.0.1:9/gone", None), quiet)
    assert caught.value.remedy == "ansible-playbook playbooks/lock.yml"


@pytest.fixture
def vendored(made: Repository, root: Path) -> dict[str, Any]:
    """A checkout with a vendored archive, as a plan has its source."""
    place = root / "vendor/llama.cpp.tar.bz2"
    place.parent.mkdir()
    with new_archive(root, made.url, made.release, quiet, pruned=True) as archive:
        archive.path.replace(place)
    entry = {"file": "vendor/llama.cpp.tar.bz2", "sha256": archive.sha256, "bytes": archive.bytes, "pruned": True}
    shutil.rmtree(root / ".cache")
    return source("http://127.0.0.1:9/gone", made.release, entry)


def test_the_vendored_archive_is_what_hosts_get(vendored: dict[str, Any], root: Path) -> None:
    found = ensure_archive(root, vendored, quiet)
    assert found.path == root / "vendor/llama.cpp.tar.bz2"
    assert (found.sha256, found.bytes) == (vendored["archive"]["sha256"], vendored["archive"]["bytes"])


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", encoding="ascii")


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "says", "remedy"),
    [
        (Path.unlink, "is locked and not there", "vendor.yml"),
        (damaged, "and sha256", "vendor.yml"),
        (pointer, "has 64 bytes and sha256", "git lfs pull"),
    ],
)
def test_a_vendored_archive_that_is_not_the_locked_one_is_an_error(
    vendored: dict[str, Any], root: Path, spoil: Callable[[Path], None], says: str, remedy: str
) -> None:
    spoil(root / "vendor/llama.cpp.tar.bz2")
    with pytest.raises(SourceError) as caught:
        ensure_archive(root, vendored, quiet)
    assert says in caught.value.message
    assert remedy in caught.value.remedy


def test_a_vendored_archive_of_another_commit_is_an_error_that_names_both(
    vendored: dict[str, Any], root: Path, made: Repository
) -> None:
    with pytest.raises(SourceError) as caught:
        ensure_archive(root, vendored | {"commit": made.tip}, quiet)
    assert made.release in caught.value.message
    assert made.tip in caught.value.message


def test_a_file_that_is_no_archive_of_ours_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "other.tar.bz2"
    with tarfile.open(path, "w:bz2") as tar:
        tar.add(ROOT / "README.md", "README.md")
    with pytest.raises(ArchiveError, match=r"does not begin with version\.json"):
        about(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArchiveError, match="cannot be read"):
        about(path)


def test_a_clone_that_is_damaged_on_disk_makes_no_archive(made: Repository, tmp_path: Path) -> None:
    """Git does not look again at what it once fetched."""
    clone = tmp_path / "clone.git"
    clone.mkdir()
    git(clone, "init", "--bare", "--quiet")
    fetch(clone, made.url, [f"{made.release}:refs/made"], say=quiet)
    for path in (clone / "objects/pack").glob("*.pack"):
        content = path.read_bytes()
        for part in (clone / "objects/pack").glob(f"{path.stem}.*"):
            part.unlink()
        git(clone, "unpack-objects", "-q", text=content)
    blob = git(clone, "rev-parse", f"{made.release}:src/llama.cpp")
    other = git(clone, "rev-parse", f"{made.release}:LICENSE")
    place, bad = (clone / "objects" / name[:2] / name[2:] for name in (blob, other))
    place.chmod(0o644)
    place.write_bytes(bad.read_bytes())
    with pytest.raises(ArchiveError, match=r"src/llama\.cpp is not what the commit says") as caught:
        pack(clone, {"commit": made.release, "committed": WHEN}, tmp_path / "a.tar.bz2", pruned=True)
    assert ".cache/engine" in caught.value.remedy


def test_a_tree_with_a_version_file_of_its_own_is_refused(upstream: Repository, root: Path) -> None:
    odd = upstream.commit({**TREE, "version.json": "{}\n"}, "odd")
    upstream.branch("odd", odd)
    with pytest.raises(ArchiveError, match=r"has a file version\.json of its own"):
        ensure_archive(root, source(upstream.url, odd), quiet)
    assert left_over(root) == []


def test_a_full_disk_is_said_in_words(made: Repository, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written goes to a device that is always full; nothing half made stays."""

    def to_full_device(repository: Path, said: dict[str, Any], _target: Path, *, pruned: bool) -> Any:
        return pack(repository, said, Path("/dev/full"), pruned=pruned)

    monkeypatch.setattr("llamarig.control.engine_source.pack", to_full_device)
    with pytest.raises(SourceError, match="No space left on device") as caught:
        ensure_archive(root, source(made.url, made.release), quiet)
    assert caught.value.remedy == "make room there, and run it again"
    assert left_over(root) == []
    assert not list(root.rglob("*.tar.bz2"))


def test_a_repository_may_not_be_a_command(root: Path) -> None:
    with pytest.raises(GitError, match="transport 'ext' not allowed"):
        resolve(root, "ext::touch% touched", "v0.7.0", quiet)
