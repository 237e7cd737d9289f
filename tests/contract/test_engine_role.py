"""How an engine image comes about and goes from host to host, as far as that needs neither Docker nor hosts."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamarig.control import rsync
from llamarig.control.engine_job import ARCHIVE, Job, job_for, pull_job, remote_name, room_for
from llamarig.control.engine_shelf import Handed, Shelf, ShelfError, key
from llamarig.control.rsync import TransferError
from tests.contract.modules import run_module
from tests.contract.tree import ROOT, load

IMAGE = "llamarig/llama-cpp:v0.7.0-cuda-0123456789ab"
COMMIT = "f" * 40
FILES = {"Dockerfile": "FROM scratch\n", "entrypoint.sh": "#!/bin/sh\n"}
# Every character that bash could take for its own, though no validated input has them.
ODD = "a $HOME `id` \"q\" 'p' \\ ; | & * é"
RECORDER = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["RECORD"], "a") as stream:
    print(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]), file=stream)
"""


def engine(recipe: str, **more: Any) -> dict[str, Any]:
    return {"recipe": recipe, "image": IMAGE, "says": " 0.7.0 ", "backend": "cuda", "architectures": [], **more}


def source() -> dict[str, Any]:
    arguments = {
        "BACKEND": "cuda",
        "ARCHITECTURES": "89-real;120a-real",
        "REF": "v0.7.0",
        "COMMIT": COMMIT,
        "VERSION": "0.7.0",
        "SOURCE_HASH": "0" * 64,
        "BUILD_IMAGE": ODD,
    }
    architectures = ["89-real", "120a-real"]
    return engine("source", says=COMMIT[:9], arguments=arguments, architectures=architectures)


def package() -> dict[str, Any]:
    return engine("debian-package", package={"suite": "sid", "version": "0.7.0", "packages": ["one", "two"]})


def job(wanted: dict[str, Any]) -> Job:
    return job_for(wanted, FILES, "http://mirror.example/debian", ["debian-archive-keyring"])


def run(script: str, directory: Path) -> list[list[str]]:
    """Run a script with stand-ins that write down what they are given; return their command lines."""
    programs = directory / "programs"
    programs.mkdir()
    for name in ("docker", "mmdebstrap"):
        (programs / name).write_text(RECORDER, encoding="utf-8")
        (programs / name).chmod(0o755)
    record = directory / "record"
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "RECORD": str(record)}
    command = ["bash", "-c", script]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]


def test_a_source_is_built_with_exactly_the_arguments_of_the_plan(tmp_path: Path) -> None:
    """From exactly the archive's bytes, beside Dockerfile and entrypoint."""
    made = job(source())
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "CMakeLists.txt").write_text("project(llama.cpp)\n", encoding="utf-8")
    with tarfile.open(tmp_path / ARCHIVE, "w:bz2") as tar:
        tar.add(tree, ".")
    for name, text in made.files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "left-by-a-power-cut").touch()
    ((program, verb, *rest),) = run(made.script, tmp_path)
    assert (program, verb, rest[-1]) == ("docker", "build", "context")
    given = [rest[at + 1] for at, word in enumerate(rest) if word == "--build-arg"]
    expected = [f"{name}={value}" for name, value in source()["arguments"].items()]
    # How many compilers run is the host's to say, and no part of the image.
    assert given == [*expected, "JOBS", "CCACHE=ON"]
    assert f"--tag={IMAGE}-untested" in rest
    assert sorted(path.name for path in (tmp_path / "context").iterdir()) == ["Dockerfile", "entrypoint.sh", "source"]
    assert (tmp_path / "context/source/CMakeLists.txt").read_text(encoding="utf-8") == "project(llama.cpp)\n"


def test_the_image_of_a_source_must_say_what_it_was_built_from() -> None:
    made = job(source())
    assert made.source
    assert made.says == COMMIT[:9]
    assert made.version_file == {
        "ref": "v0.7.0",
        "commit": COMMIT,
        "version": "0.7.0",
        "source": "0" * 64,
        "backend": "cuda",
        "architectures": ["89-real", "120a-real"],
    }


def test_the_dockerfile_writes_everything_that_the_image_must_say() -> None:
    dockerfile = (ROOT / "templates/llama_image/Dockerfile").read_text(encoding="utf-8")
    assert [name for name in job(source()).version_file if f'"{name}": ' not in dockerfile] == []


def test_debians_package_is_unpacked_from_the_mirror_that_was_named(tmp_path: Path) -> None:
    bootstrap, take = run(job(package()).script, tmp_path)
    assert bootstrap[-3:] == ["sid", "root.tar", "http://mirror.example/debian"]
    assert "--include=one,two" in bootstrap
    assert take[:2] == ["docker", "import"]
    assert take[-2:] == ["root.tar", f"{IMAGE}-untested"]


@pytest.mark.parametrize("pulled", ["prebuilt", "pushed"])
def test_what_was_pulled_stays_by_our_name_alone(tmp_path: Path, pulled: str) -> None:
    reference = "registry.example:5000/engine@sha256:" + "1" * 64
    prebuilt = engine("prebuilt", prebuilt={"image": reference, "version": "0.7.0"})
    made = job(prebuilt) if pulled == "prebuilt" else pull_job(IMAGE, reference)
    assert run(made.script, tmp_path) == [
        ["docker", "pull", reference],
        ["docker", "tag", reference, f"{IMAGE}-untested"],
        ["docker", "image", "rm", reference],
    ]


def test_a_registrys_name_has_the_repositorys_last_part() -> None:
    assert remote_name("registry.example:5000/a/b/", IMAGE) == f"registry.example:5000/a/b/{IMAGE.split('/')[1]}"


def test_every_kind_of_work_has_its_room() -> None:
    room = load(ROOT / "roles/llama_image/defaults/main.yml")["llama_image_room"]
    kinds = {job(source()).room, job(package()).room, pull_job(IMAGE, "a@b").room, "prebuilt"}
    for kind in kinds:
        for backend in ("cuda", "cpu"):
            assert "docker" in room_for(room, kind, backend), kind
    assert room_for(room, "source", "cuda") != room_for(room, "source", "cpu")
    assert room_for({}, "source", "cpu") == {}


@pytest.fixture
def handed(tmp_path: Path) -> Handed:
    """An archive that came in whole."""
    shelf = Shelf(tmp_path)
    shelf.directory.mkdir(parents=True)
    shelf.part(IMAGE).write_bytes(b"archive")
    digest = "bb35e3e21e0b0c9d6b22f5f0da8b7b3b5b0f1cd2a0d50a5ba5fd2a5c0cb3e0a1"
    return Handed(IMAGE, "fingerprint", sha256=digest, bytes=7)


def whole(handed: Handed) -> Handed:
    return replace(handed, sha256=hashlib.sha256(b"archive").hexdigest())


def test_an_archive_is_kept_once_its_checksum_was_right(tmp_path: Path, handed: Handed) -> None:
    shelf = Shelf(tmp_path)
    assert shelf.ready(IMAGE, "") is None
    shelf.receive(whole(handed))
    assert shelf.ready(IMAGE, "") == whole(handed)
    assert shelf.archive(IMAGE).read_bytes() == b"archive"
    assert not shelf.part(IMAGE).exists()
    # Where a registry is named, an archive is no help.
    assert shelf.ready(IMAGE, "registry.example/llamarig") is None


def test_another_archive_is_refused_and_removed(tmp_path: Path, handed: Handed) -> None:
    shelf = Shelf(tmp_path)
    with pytest.raises(ShelfError) as caught:
        shelf.receive(handed)
    assert handed.sha256 in caught.value.message
    assert "nothing was loaded" in caught.value.message
    assert not shelf.part(IMAGE).exists()
    assert shelf.ready(IMAGE, "") is None


@pytest.mark.parametrize("damage", [b"", b"archivE", b"archive and more"])
def test_an_archive_that_changed_since_is_not_handed_on(tmp_path: Path, handed: Handed, damage: bytes) -> None:
    shelf = Shelf(tmp_path)
    shelf.receive(whole(handed))
    shelf.archive(IMAGE).write_bytes(damage)
    assert shelf.ready(IMAGE, "") is None
    assert not shelf.archive(IMAGE).exists()


def test_a_record_that_was_cut_short_is_none(tmp_path: Path, handed: Handed) -> None:
    shelf = Shelf(tmp_path)
    shelf.receive(whole(handed))
    (shelf.directory / f"{key(IMAGE)}.json").write_text('{"image": ', encoding="utf-8")
    assert shelf.ready(IMAGE, "") is None


def test_what_was_pushed_is_known_until_it_is_forgotten(tmp_path: Path, handed: Handed) -> None:
    shelf = Shelf(tmp_path)
    pushed = replace(handed, sha256="", bytes=0, pushed="registry.example/llamarig/llama-cpp@sha256:" + "1" * 64)
    shelf.note(pushed)
    assert shelf.ready(IMAGE, "registry.example/llamarig/") == pushed
    assert shelf.ready(IMAGE, "another.example/llamarig") is None
    assert shelf.ready(IMAGE, "") is None
    shelf.forget(IMAGE)
    assert shelf.ready(IMAGE, "registry.example/llamarig") is None


def test_only_the_newest_archives_are_kept(tmp_path: Path, handed: Handed) -> None:
    shelf = Shelf(tmp_path)
    names = [f"llamarig/llama-cpp:{number}" for number in range(6)]
    for age, name in enumerate(reversed(names)):
        shelf.part(name).write_bytes(b"archive")
        os.utime(shelf.part(name), (1_700_000_000 - age, 1_700_000_000 - age))
        shelf.part(name).replace(shelf.archive(name))
    shelf.receive(whole(handed))
    kept = {path.name for path in shelf.directory.glob("*.tar.zst")}
    assert kept == {f"{key(IMAGE)}.tar.zst", "5.tar.zst", "4.tar.zst", "3.tar.zst"}


def test_a_control_node_without_room_fetches_nothing(tmp_path: Path, handed: Handed) -> None:
    with pytest.raises(ShelfError) as caught:
        Shelf(tmp_path).make_room(replace(handed, bytes=2**62))
    assert [words for words in (str(tmp_path), "MiB free", IMAGE) if words not in caught.value.message] == []
    assert "llama_image_registry" in caught.value.remedy


def test_one_of_many_speaks(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    with shelf.first("progress") as one, shelf.first("progress") as other:
        assert (one, other) == (True, False)
    with shelf.first("progress") as later:
        assert later


def test_control_node_and_host_name_files_alike(tmp_path: Path) -> None:
    """The module runs on hosts as a single file, so it has the rule once more."""
    source_of_module = (ROOT / "plugins/modules/engine_image.py").read_text(encoding="utf-8")
    scope: dict[str, Any] = {}
    exec(compile(source_of_module, "engine_image", "exec"), scope)  # noqa: S102  as Ansible runs it
    for image in (IMAGE, "fleet/llama-cpp:v0.7.0-cpu-0123456789ab", "site.example:5000/a/b:tag"):
        assert scope["_key"](image) == key(image)
        assert Shelf(tmp_path).archive(image).name == f"{key(image)}.tar.zst"


def test_a_builder_without_docker_says_what_to_do_and_check_mode_foresees_a_change(tmp_path: Path) -> None:
    wish = {"state": "built", "image": IMAGE, "inventory_name": "forge"}
    result = run_module("engine_image", wish, tmp_path, PATH=str(tmp_path))
    assert result["failed"]
    assert result["msg"] == "forge has no Docker\n    remedy: run playbooks/site.yml on it first: it builds for others"
    foreseen = run_module("engine_image", wish, tmp_path, check=True, PATH=str(tmp_path))
    assert foreseen["changed"]


class Ending:
    """A host whose job ends in the moment in which somebody asks systemd for it."""

    check_mode = False

    def __init__(self, params: dict[str, Any], made: dict[Path, str]) -> None:
        self.params = params
        self.made = made

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        if command[0] == "systemctl":
            for path, text in self.made.items():
                path.write_text(text, encoding="utf-8")
            return 0, "ActiveState=inactive\nDescription=\nActiveEnterTimestamp=\n", ""
        if command[:3] == ["docker", "image", "inspect"]:
            return 0, json.dumps([{"RootFS": {"Layers": []}, "Config": {}, "Size": 1}]), ""
        assert command[:3] == ["docker", "image", "ls"]
        return 0, "", ""

    def fail_json(self, msg: str) -> None:
        raise AssertionError(msg)


@pytest.mark.parametrize(("step", "verb"), [("_archived", "archive"), ("_pushed", "push")])
def test_a_job_that_ends_while_it_is_looked_for_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, verb: str
) -> None:
    scope: dict[str, Any] = {}
    exec(compile((ROOT / "plugins/modules/engine_image.py").read_text(encoding="utf-8"), "engine_image", "exec"), scope)  # noqa: S102
    images = tmp_path / "images"
    images.mkdir()
    for name, place in (("_CACHE", tmp_path), ("_WORK", tmp_path / "engine"), ("_IMAGES", images), ("_LOGS", tmp_path)):
        monkeypatch.setitem(scope, name, str(place))
    archive = images / f"{key(IMAGE)}.tar.zst"
    pushed = f"registry.example/llama-cpp@sha256:{'1' * 64}"
    made = {
        "archive": {archive: "whole", archive.with_name(f"{archive.name}.sha256"): f"{'2' * 64}  {archive.name}\n"},
        "push": {images / f"{key(IMAGE)}.pushed": pushed},
    }[verb]
    params = {"state": f"{verb}d" if verb == "archive" else "pushed", "image": IMAGE, "inventory_name": "forge"}
    wish = {"run": "this", "remote": "registry.example/llama-cpp:tag", "served_host": "", "packages": [], "room": {}}
    host = scope["Engine"](Ending(params | wish, made))
    host._mark(verb)
    result = getattr(host, step)()
    assert not result["unfinished"]
    assert (result["archive"].get("sha256"), result["pushed"]) == (
        ("2" * 64, "") if verb == "archive" else (None, pushed)
    )


class Here:
    """This machine, as Ansible's connection of a host that is the control node itself."""

    transport = "local"


def test_a_transfer_that_broke_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 4096)
    target.write_bytes(source.read_bytes()[:100_000])
    rsync.push(Here(), source, str(target), print)
    assert target.read_bytes() == source.read_bytes()
    # What lies there of another file does not end up in it.
    target.write_bytes(b"another" * 1000)
    rsync.fetch(Here(), str(source), target, print)
    assert target.read_bytes() == source.read_bytes()


def test_a_transfer_that_fails_says_what_did_not_arrive_where(tmp_path: Path) -> None:
    with pytest.raises(TransferError) as caught:
        rsync.fetch(Here(), str(tmp_path / "nowhere"), tmp_path / "target", print)
    assert [
        words for words in (str(tmp_path / "nowhere"), str(tmp_path / "target")) if words not in str(caught.value)
    ] == []
    assert "run again" in caught.value.remedy


def test_a_connection_that_rsync_cannot_use_is_named(tmp_path: Path) -> None:
    class Elsewhere(Here):
        transport = "winrm"

    with pytest.raises(TransferError) as caught:
        rsync.push(Elsewhere(), tmp_path / "source", "/target", print)
    assert "winrm" in caught.value.message
