"""Keys of archives over HTTP, files that a program judges first, and the border to the decisions on the GPU stack."""

from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llamarig.lab.silicon.debs import Keyring
from tests.contract.modules import run_module
from tests.contract.tree import ansible
from tests.unit.planning.boxes import NEW, OLD, driver, facts, ubuntu_driver, wanted

Played = tuple[dict[str, dict[str, Any]], str]


@dataclass
class Keys:
    """A web server with keys, their fingerprints, and what it was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)
    content: dict[str, bytes] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Two real keys; together in one file as well."""
    keys = Keys("")
    with Keyring(tmp_path_factory.mktemp("keys")) as keyring:
        for name in ("docker", "other"):
            keys.content[f"/{name}"] = keyring.make(name).encode()
    for name, content in keys.content.items():
        command = ["gpg", "--batch", "--with-colons", "--show-keys"]
        rows = subprocess.run(command, input=content, capture_output=True, check=True).stdout.decode().splitlines()
        keys.fingerprints[name.lstrip("/")] = next(row.split(":")[9] for row in rows if row.startswith("fpr:"))
    keys.content["/both"] = keys.content["/docker"] + keys.content["/other"]
    keys.content["/page"] = b"<html>sign in first</html>"
    return keys


@pytest.fixture
def keys(made: Keys) -> Iterator[Keys]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = made.content.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing on the tests' own output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Keys(f"http://127.0.0.1:{server.server_port}", asked, made.content, made.fingerprints)
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(keys: Keys, directory: Path, name: str = "docker", *, check: bool = False, **changes: str) -> dict[str, Any]:
    key = {
        "path": f"{directory}/keyrings/a.asc",
        "url": f"{keys.url}/{name}",
        "fingerprint": keys.fingerprints["docker"],
        **changes,
    }
    return run_module("apt_keys", {"keys": [key]}, directory, check=check)


def test_the_declared_key_is_written_and_never_asked_for_again(keys: Keys, tmp_path: Path) -> None:
    place = tmp_path / "keyrings/a.asc"
    first = fetch(keys, tmp_path)
    assert (first["changed"], first["fetched"]) == (True, [str(place)])
    assert place.read_text(encoding="ascii").startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    second = fetch(keys, tmp_path, fingerprint=keys.fingerprints["docker"].lower())
    assert (second["changed"], second["fetched"]) == (False, [])
    assert keys.asked == ["/docker"]


def test_what_is_no_key_is_refused_and_not_written(keys: Keys, tmp_path: Path) -> None:
    result = fetch(keys, tmp_path, "page")
    assert result["failed"]
    assert [words for words in (f"{keys.url}/page", "found no key", "remedy: ") if words not in result["msg"]] == []
    assert not (tmp_path / "keyrings").exists()


def test_what_comes_along_with_the_declared_key_is_not_written(keys: Keys, tmp_path: Path) -> None:
    """apt takes every armoured block of a file; gpg shows the keys alone, so the file must hold nothing else."""
    command = ["gpg", "--batch", "--dearmor"]
    other = subprocess.run(command, input=keys.content["/other"], capture_output=True, check=True).stdout
    stowaway = base64.encodebytes(other).decode()
    keys.content["/page"] = keys.content["/docker"] + f"\n-----BEGIN FOO-----\n\n{stowaway}-----END FOO-----\n".encode()
    result = fetch(keys, tmp_path, "page")
    written = (tmp_path / "keyrings/a.asc").read_text(encoding="ascii")
    assert result["changed"]
    assert written.count("-----BEGIN") == 1
    assert stowaway.splitlines()[0] not in written


@pytest.mark.parametrize("name", ["other", "both"])
def test_any_other_key_is_refused_and_not_written(keys: Keys, tmp_path: Path, name: str) -> None:
    result = fetch(keys, tmp_path, name)
    assert result["failed"]
    found = {"other": keys.fingerprints["other"]}.get(name, ", ".join(keys.fingerprints.values()))
    expected = (f"{keys.url}/{name}", f"wanted {keys.fingerprints['docker']}", f"found {found}", "remedy: ", "owner")
    assert [words for words in expected if words not in result["msg"]] == []
    assert not (tmp_path / "keyrings").exists()


def test_a_wrong_key_leaves_the_one_that_is_there(keys: Keys, tmp_path: Path) -> None:
    fetch(keys, tmp_path)
    result = fetch(keys, tmp_path, "page", fingerprint=keys.fingerprints["other"])
    assert result["failed"]
    (place,) = (tmp_path / "keyrings").iterdir()
    assert place.read_text(encoding="ascii").startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----")


def test_a_key_that_changed_hands_is_fetched_anew(keys: Keys, tmp_path: Path) -> None:
    fetch(keys, tmp_path, "other", fingerprint=keys.fingerprints["other"])
    assert fetch(keys, tmp_path)["changed"] is True
    assert (tmp_path / "keyrings/a.asc").read_bytes() == keys.content["/docker"]


@pytest.mark.parametrize(("url", "said"), [("{}/nowhere", "404"), ("http://127.0.0.1:1/key", "refused")])
def test_a_key_that_cannot_be_had_names_its_address(keys: Keys, tmp_path: Path, url: str, said: str) -> None:
    result = fetch(keys, tmp_path, url=url.format(keys.url))
    assert result["failed"]
    expected = (url.format(keys.url), said, "remedy: ", "key_url")
    assert [words for words in expected if words not in result["msg"]] == []
    assert not (tmp_path / "keyrings").exists()


def test_check_mode_asks_nobody_and_writes_nothing(keys: Keys, tmp_path: Path) -> None:
    result = fetch(keys, tmp_path, check=True)
    assert (result["changed"], keys.asked, (tmp_path / "keyrings").exists()) == (True, [], False)


@dataclass(frozen=True)
class Judged:
    """A file of a manifest that a program judges before it is put in place."""

    path: Path
    judge: Path

    def write(self, content: str, *, check: bool = False) -> dict[str, Any]:
        account = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
        entry = {"path": str(self.path), "content": content, "validate": f"{self.judge} --file %s", **account}
        return run_module("manifest", {"files": [entry]}, self.judge.parent, check=check)


@pytest.fixture
def judged(tmp_path: Path) -> Judged:
    judge = tmp_path / "judge"
    judge.write_text('#!/bin/sh\necho "$2" >>"$0.asked"\ngrep -q good "$2" || { echo "$2: not good" >&2; exit 1; }\n')
    judge.chmod(0o755)
    return Judged(tmp_path / "etc" / "daemon.json", judge)


def test_a_file_that_is_accepted_is_put_in_place_and_not_judged_again(judged: Judged) -> None:
    assert judged.write("good 1")["changed_paths"] == [str(judged.path)]
    assert judged.path.read_text() == "good 1"
    assert judged.write("good 1")["changed"] is False
    (asked,) = Path(f"{judged.judge}.asked").read_text().splitlines()
    assert (Path(asked).parent, asked != str(judged.path)) == (judged.path.parent, True)


def test_a_file_that_is_refused_leaves_the_one_that_is_there(judged: Judged) -> None:
    judged.write("good 1")
    result = judged.write("bad")
    assert result["failed"]
    assert f"{judged.path} would not be accepted and was left as it is: {judged.path}: not good" in result["msg"]
    assert [path.name for path in judged.path.parent.iterdir()] == ["daemon.json"]
    assert judged.path.read_text() == "good 1"


def test_check_mode_writes_nothing_that_could_be_judged(judged: Judged) -> None:
    assert judged.write("bad", check=True)["changed"] is True
    assert not judged.path.parent.exists()


RIGHT = facts(ubuntu_driver(), driver=driver(NEW))
HALF = facts(ubuntu_driver(), driver=driver(OLD, userspace=NEW))
UNLOADED = facts(ubuntu_driver(), driver=driver(NEW, loaded=None))
STALE = facts(ubuntu_driver(), driver=driver(NEW, loaded=OLD))
CASES = {
    "right": {"facts": RIGHT, "wanted": wanted(gpus=[])},
    "right, done": {"facts": RIGHT, "wanted": wanted(), "expect": "done"},
    "wrong": {"facts": facts(driver=driver("570.133.20", run_file=True), snap_docker=True), "wanted": wanted()},
    "half upgraded": {"facts": HALF, "wanted": wanted(), "expect": "done"},
    "not loaded": {"facts": UNLOADED, "wanted": wanted(), "expect": "done"},
    "another loaded": {"facts": STALE, "wanted": wanted(), "expect": "done"},
    "another loaded, to go on": {"facts": STALE, "wanted": wanted()},
    "to be maintained": {"facts": RIGHT, "wanted": wanted(), "maintain": True},
}
PLAYBOOK = """\
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - stack: "{{ item.value }}"
      loop: "{{ cases | dict2items }}"
      register: decisions
      ignore_errors: true
    - copy:
        content: "{{ decisions.results | to_json }}"
        dest: "{{ output }}"
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Decide every case in one play; return the results by the name of the case, and what was said."""
    directory = tmp_path_factory.mktemp("play")
    (directory / "play.yml").write_text(PLAYBOOK, encoding="utf-8")
    output = directory / "decisions.json"
    (directory / "vars.json").write_text(json.dumps({"cases": CASES, "output": str(output)}), encoding="utf-8")
    play = (str(directory / "play.yml"), "--inventory", "localhost,", "--extra-vars", f"@{directory}/vars.json")
    done = ansible("ansible-playbook", *play)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text(encoding="utf-8"))
    return {result["item"]["key"]: result for result in results}, done.stdout + done.stderr


def test_what_is_decided_comes_back_as_plain_types(played: Played) -> None:
    result = played[0]["right"]
    assert (result["failed"], result["changed"], result["gpu"]) == (False, False, True)
    assert result["driver"]["packages"]["install"] == []
    assert [path["path"] for path in result["archives"]] == [
        "/etc/apt/sources.list.d/llamarig-docker.sources",
        "/etc/apt/sources.list.d/llamarig-nvidia-container-toolkit.sources",
    ]
    assert "llamarig detect" in played[1]


def test_every_problem_is_said_and_counted(played: Played) -> None:
    results, said = played
    assert results["wrong"]["msg"] == "2 problems with localhost, said above; nothing was changed"
    assert [
        words for words in ("localhost: nvidia_driver", "nvidia-uninstall", "snap remove docker") if words not in said
    ] == []


@pytest.mark.parametrize(
    ("case", "left"),
    [
        ("half upgraded", "it still wants linux-modules-nvidia-580-server-open-generic, nvidia-headless-no-dkms"),
        ("not loaded", "its module is not loaded"),
        ("another loaded", f"the module {OLD} is loaded"),
    ],
)
def test_a_driver_that_still_needs_something_is_not_done(played: Played, case: str, left: str) -> None:
    result = played[0][case]
    assert result["failed"]
    assert [words for words in ("localhost: the driver", left, "remedy: ", "dmesg") if words not in result["msg"]] == []


@pytest.mark.parametrize("case", ["right, done", "another loaded, to go on"])
def test_a_driver_that_needs_nothing_is_done_and_another_is_gone_on_with(played: Played, case: str) -> None:
    assert played[0][case]["failed"] is False


def test_maintenance_is_asked_for_by_an_argument(played: Played) -> None:
    assert "nvidia-utils-580-server" in played[0]["to be maintained"]["driver"]["packages"]["install"]
