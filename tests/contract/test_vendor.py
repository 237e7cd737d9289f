"""playbooks/lock.yml and playbooks/vendor.yml, run as an operator runs them, on a git server and a registry here."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamarig.control.engine_lock import read_lock, write_lock
from llamarig.control.engine_source import ensure_archive
from tests.contract.tree import ROOT
from tests.git_server import PRUNED, TREE, WHEN, Repository, Server, smart
from tests.registry_server import Registry, serving

PROGRAM = str(Path(sys.executable).with_name("ansible-playbook"))
HOSTS = """\
gpu_hosts:
  hosts:
    one: {ansible_host: 127.0.0.1, ansible_port: 1}
    two: {ansible_host: 127.0.0.1, ansible_port: 1}
"""


@dataclass
class Site:
    """A checkout of its own with an inventory whose hosts cannot be reached, and the two servers."""

    root: Path
    upstream: Repository
    git: Server
    registry: Registry

    @property
    def lock_file(self) -> Path:
        return self.root / "group_vars/all/engine.yml"

    @property
    def lock(self) -> dict[str, Any]:
        return read_lock(self.lock_file)

    @property
    def source(self) -> dict[str, Any]:
        found: dict[str, Any] = self.lock["llama_image_source"]
        return found

    @property
    def archives(self) -> list[str]:
        return sorted(path.name for path in (self.root / "vendor").glob("*.tar.bz2"))

    @property
    def bases(self) -> dict[str, str]:
        """What the registry has for each base."""
        return {
            f"{self.registry.address}/{repository}:{tag}": f"sha256:{hashlib.sha256(manifest).hexdigest()}"
            for (repository, tag), manifest in self.registry.manifests.items()
        }

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name, *arguments),
            cwd=self.root,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def command(self, name: str, *arguments: str) -> list[str]:
        return [PROGRAM, "-i", "inventories/site", f"playbooks/{name}.yml", *arguments]

    def say(self, **values: Any) -> None:
        """Write the site's own ref or repository into the lock, as people do."""
        write_lock(self.lock_file, self.lock | {"llama_image_source": self.source | values})


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "GIT_"))}
    return kept | {"ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8", "DOCKER_CONFIG": "/nowhere"}


def changed(done: subprocess.CompletedProcess[str]) -> bool:
    """Tell whether a run that went well changed anything."""
    assert done.returncode == 0, done.stdout + done.stderr
    recap = re.findall(r"ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", done.stdout)
    assert [row[2:] for row in recap] == [("0", "0")]
    return bool(recap[0][1] != "0")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    root = tmp_path / "checkout"
    root.mkdir()
    for name in ("playbooks", "plugins", "group_vars"):
        shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "ansible.cfg", root)
    (root / "src").symlink_to(ROOT / "src")
    inventory = root / "inventories/site"
    inventory.mkdir(parents=True)
    (inventory / "group_vars").symlink_to("../../group_vars")
    upstream = Repository(tmp_path / "upstream/llama.cpp")
    with smart(upstream) as git, serving(Registry(wants_token=True)) as registry:
        for repository, tag in (("library/ubuntu", "24.04"), ("nvidia/cuda", "devel"), ("nvidia/cuda", "base")):
            registry.put(repository, tag, tag)
        here = registry.address
        bases = {
            "cpu": {"build": f"{here}/library/ubuntu:24.04", "runtime": f"{here}/library/ubuntu:24.04"},
            "cuda": {"build": f"{here}/nvidia/cuda:devel", "runtime": f"{here}/nvidia/cuda:base"},
        }
        (inventory / "hosts.yml").write_text(HOSTS, encoding="utf-8")
        mirror = yaml.safe_dump({"llama_image_bases": bases})
        (root / "group_vars/gpu_hosts/mirror.yml").write_text(mirror, encoding="utf-8")
        site = Site(root, upstream, git, registry)
        # A lock as it is before anybody locked.
        source = site.source | {"ref": "v0.7.0", "version": "0.7.0"} | dict.fromkeys(("commit", "committed", "build"))
        write_lock(site.lock_file, {"llama_image_source": source | {"archive": None}, "llama_image_digests": {}})
        site.say(repository=git.url)
        yield site


def stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_a_lock_knows_commit_version_time_and_digests_and_the_next_changes_nothing(site: Site) -> None:
    text = site.lock_file.read_text(encoding="utf-8")
    assert changed(site.run("lock")) is True
    assert site.source == {
        "repository": site.git.url,
        "ref": "v0.7.0",
        "version": "0.7.0",
        "commit": site.upstream.release,
        "committed": WHEN,
        "build": None,
        "archive": None,
    }
    assert site.lock["llama_image_digests"] == site.bases
    assert len(site.bases) == 3
    comments = [line for line in text.splitlines() if "#" in line]
    assert comments
    assert [line for line in site.lock_file.read_text(encoding="utf-8").splitlines() if "#" in line] == comments
    before = stamp(site.lock_file)
    assert changed(site.run("lock")) is False
    assert stamp(site.lock_file) == before
    assert changed(site.run("lock", "-e", "count=true")) is True
    assert site.source["build"] == 4
    assert changed(site.run("lock", "--limit", "two")) is False
    assert site.source["build"] == 4


def test_a_tag_that_moved_is_an_error_with_both_commits_unless_it_is_asked_for(site: Site) -> None:
    assert changed(site.run("vendor")) is True
    before = site.lock_file.read_text(encoding="utf-8")
    site.upstream.move_tag("v0.7.0", site.upstream.tip)
    done = site.run("lock")
    assert done.returncode != 0
    for word in (site.upstream.release, site.upstream.tip, "the tag moved", "-e llama_cpp_ref=v0.7.0"):
        assert word in done.stdout
    assert site.lock_file.read_text(encoding="utf-8") == before
    # What is vendored does not move.
    assert changed(site.run("vendor")) is False
    assert changed(site.run("lock", "-e", "llama_cpp_ref=v0.7.0")) is True
    assert (site.source["commit"], site.source["archive"]) == (site.upstream.tip, None)
    assert site.archives == [f"llama.cpp-{site.upstream.release[:12]}.tar.bz2"]


def test_another_ref_is_locked_with_what_the_engine_will_say_it_is(site: Site) -> None:
    assert changed(site.run("lock", "-e", "llama_cpp_ref=master")) is True
    tip = site.upstream.tip
    assert {key: site.source[key] for key in ("ref", "commit", "version")} == {
        "ref": "master",
        "commit": tip,
        "version": f"0.7.0-dev-{tip[:9]}",
    }
    done = site.run("lock", "-e", "llama_cpp_ref=v0.7.1")
    assert done.returncode != 0
    assert "has no tag, branch or commit v0.7.1" in done.stdout
    assert "near it are v0.7.0" in done.stdout
    done = site.run("lock", "-e", "llama_cpp_ref=--upload-pack=touch")
    assert done.returncode != 0
    assert "llama_image_source.ref: " in done.stdout
    assert site.source["ref"] == "master"


def test_a_registry_that_nobody_reaches_is_a_warning_and_what_is_known_stays(site: Site) -> None:
    assert changed(site.run("lock")) is True
    known = site.lock["llama_image_digests"]
    gone, new = f"{site.registry.address}/nvidia/cuda:base", "127.0.0.1:9/mirror/ubuntu:24.04"
    inventory = site.root / "inventories/site/hosts.yml"
    hosts = yaml.safe_load(inventory.read_text(encoding="utf-8"))
    # Only one host has a base of its own, and only its own.
    hosts["gpu_hosts"]["hosts"]["two"]["llama_image_bases"] = {"cpu": {"build": new, "runtime": new}}
    inventory.write_text(yaml.safe_dump(hosts), encoding="utf-8")
    del site.registry.manifests["nvidia/cuda", "base"]
    done = site.run("lock")
    assert changed(done) is False
    said = " ".join((done.stdout + done.stderr).split())
    assert f"its digest stays {known[gone]}" in said
    assert "its digest stays unknown" in said
    assert site.lock["llama_image_digests"] == known
    moved = site.registry.put("library/ubuntu", "24.04", "an update")
    assert changed(site.run("lock")) is True
    assert site.lock["llama_image_digests"][f"{site.registry.address}/library/ubuntu:24.04"] == moved


def test_a_snapshot_is_vendored_and_then_needs_no_network(site: Site) -> None:
    assert changed(site.run("vendor")) is True
    name = f"llama.cpp-{site.upstream.release[:12]}.tar.bz2"
    archive = site.root / "vendor" / name
    content = archive.read_bytes()
    entry = site.source["archive"]
    assert entry == {
        "file": f"vendor/{name}",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "pruned": True,
    }
    with tarfile.open(archive) as tar:
        names = {member.name for member in tar if not member.isdir()}
    assert names == set(TREE) - PRUNED | {"version.json", "src/link.cpp", "tools/run.sh"}
    described = json.loads((site.root / "vendor/version.json").read_text(encoding="utf-8"))
    assert {key: described[key] for key in ("ref", "commit", "version", "committed", "repository", "pruned")} == {
        "ref": "v0.7.0",
        "commit": site.upstream.release,
        "version": "0.7.0",
        "committed": WHEN,
        "repository": site.git.url,
        "pruned": True,
    }
    assert described["sha256"] == entry["sha256"]

    site.say(repository="http://127.0.0.1:9/gone")
    shutil.rmtree(site.root / ".cache")
    (site.root / "vendor/version.json").unlink()
    # What an interrupted run did not come to is done without the network too.
    assert changed(site.run("vendor")) is True
    assert changed(site.run("vendor")) is False
    assert ensure_archive(site.root, site.source, print).path == archive


def test_a_lost_or_damaged_snapshot_is_made_again_to_the_same_bytes(site: Site) -> None:
    assert changed(site.run("vendor")) is True
    archive = site.root / site.source["archive"]["file"]
    content, lock = archive.read_bytes(), site.lock
    for spoil in (archive.unlink, lambda: archive.write_bytes(content[:-1])):
        spoil()
        assert changed(site.run("vendor")) is True
        assert archive.read_bytes() == content
        assert site.lock == lock
    # Somebody else's idea of what to leave out would be other bytes of the same commit.
    site.say(archive=site.source["archive"] | {"sha256": "0" * 64})
    done = site.run("vendor")
    assert done.returncode != 0
    assert "locked is " + "0" * 64 in done.stdout
    assert archive.read_bytes() == content


def test_the_whole_tree_is_kept_where_that_is_asked_for(site: Site) -> None:
    assert changed(site.run("vendor")) is True
    pruned = site.source["archive"]
    assert changed(site.run("vendor", "-e", "vendor_prune=false")) is True
    whole = site.source["archive"]
    assert (whole["pruned"], whole["bytes"] > pruned["bytes"]) == (False, True)
    with tarfile.open(site.root / whole["file"]) as tar:
        assert set(TREE) <= {member.name for member in tar}
    assert changed(site.run("vendor")) is False
    assert changed(site.run("vendor", "-e", "vendor_prune=true")) is True
    assert site.source["archive"] == pruned


def test_check_mode_says_what_would_be_and_changes_neither_lock_nor_archive(site: Site) -> None:
    before = site.lock_file.read_text(encoding="utf-8")
    done = site.run("vendor", "--check", "--diff")
    assert changed(done) is True
    assert f"+  commit: {site.upstream.release}" in done.stdout
    assert site.lock_file.read_text(encoding="utf-8") == before
    assert not (site.root / "vendor").exists()
    assert changed(site.run("vendor")) is True
    assert changed(site.run("vendor", "--check")) is False


def test_a_repository_that_cannot_be_reached_is_an_error_with_a_remedy(site: Site) -> None:
    site.say(repository="http://127.0.0.1:9/llama.cpp")
    done = site.run("vendor")
    assert done.returncode != 0
    assert "git ls-remote failed" in done.stdout
    assert "remedy: check that this control node reaches it" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert site.source["commit"] is None


def test_a_run_that_is_killed_leaves_nothing_half_and_the_next_one_goes_through(site: Site) -> None:
    gate = threading.Event()
    before = site.lock_file.read_text(encoding="utf-8")
    with smart(site.upstream, gate=gate) as slow:
        site.say(repository=slow.url, commit=site.upstream.release)
        held = site.lock_file.read_text(encoding="utf-8")
        with subprocess.Popen(
            site.command("vendor"),
            cwd=site.root,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            deadline = time.monotonic() + 60
            while not list((site.root).rglob(".part-*")) and time.monotonic() < deadline:
                time.sleep(0.05)
            children = [int(line) for line in descendants(process.pid)]
            os.kill(process.pid, signal.SIGKILL)
            for pid in children:
                with contextlib.suppress(ProcessLookupError):  # it ended by itself
                    os.kill(pid, signal.SIGKILL)
        assert list(site.root.rglob(".part-*"))
        assert site.lock_file.read_text(encoding="utf-8") == held
        assert site.archives == []
        gate.set()
        assert changed(site.run("vendor")) is True
    assert site.archives == [f"llama.cpp-{site.upstream.release[:12]}.tar.bz2"]
    assert list(site.root.rglob(".part-*")) == []
    assert before != held


def descendants(pid: int) -> list[int]:
    """Return the processes below one, those that lead sessions of their own too."""
    found = []
    for child in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((child / "stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += [int(child.name), *descendants(int(child.name))]
    return found
