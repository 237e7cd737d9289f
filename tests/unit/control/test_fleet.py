from __future__ import annotations

import json
import shlex
import socketserver
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from llamarig.config import paths
from llamarig.control.fleet import NoWay, Tunnel, fleet
from llamarig.control.inventory import connections
from llamarig.errors import LlamarigError

# Plays ssh: brings what it is told to bring here, and runs the command as a host whose files are below a directory.
_SSH = """\
#!{python}
import os, subprocess, sys
from pathlib import Path
remote, words = {remote!r}, sys.argv[1:]
Path({log!r}).write_text("\\n".join(words))
if Path(remote, "refuses").exists():
    sys.exit("ssh: connect to host gpu01 port 22: No route to host")
for word, following in zip(words, words[1:]):
    if word == "-L":
        here, there = following.split(":")
        os.symlink(remote + there, here)
print("Welcome to this box", flush=True)
sys.exit(subprocess.run(["/bin/sh", "-c", words[-1].replace("/run/llamarig", remote + "/run/llamarig")]).returncode)
"""


class _Answers(BaseHTTPRequestHandler):
    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_arguments: object) -> None:
        """A test has no log."""

    def do_GET(self) -> None:
        body = json.dumps({"socket": Path(str(self.server.server_address)).name, "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Box:
    """A host as ssh would show it."""

    def __init__(self, directory: Path) -> None:
        self.remote = directory / "remote"
        self.log = directory / "typed"
        self.ssh = directory / "ssh"
        self.sockets = {name: self.remote / name.lstrip("/") for name in (paths.MANAGE_SOCKET, paths.READ_SOCKET)}
        self.sockets[paths.READ_SOCKET].parent.mkdir(parents=True)
        self.servers: list[socketserver.ThreadingUnixStreamServer] = []
        self.ssh.write_text(_SSH.format(python=sys.executable, remote=str(self.remote), log=str(self.log)))
        self.ssh.chmod(0o755)

    def serve(self, name: str) -> None:
        server = socketserver.ThreadingUnixStreamServer(str(self.sockets[name]), _Answers)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.servers.append(server)

    def close(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    one = Box(tmp_path)
    yield one
    one.close()


@pytest.fixture
def tunnel(box: Box, tmp_path: Path) -> Iterator[Tunnel]:
    here = tmp_path / "here"
    here.mkdir()
    one = Tunnel("gpu01", [str(box.ssh), "-F", "config"], "me@gpu01", here)
    yield one
    one.close()


def test_who_may_manage_is_brought_to_the_socket_for_everything(box: Box, tunnel: Tunnel) -> None:
    box.serve(paths.MANAGE_SOCKET)
    box.serve(paths.READ_SOCKET)
    link = tunnel.connect()
    assert link.read_only == ""
    assert link.client.get("/status") == {"socket": "manage.sock", "path": "/status"}
    typed = box.log.read_text().splitlines()
    assert typed[:4] == ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
    assert typed[typed.index("-F") :][:2] == ["-F", "config"]
    assert "BatchMode=yes" in typed
    assert typed[-2] == "me@gpu01"


def test_who_may_not_is_brought_to_the_one_that_only_reads_and_told_why(box: Box, tunnel: Tunnel) -> None:
    box.serve(paths.READ_SOCKET)
    link = tunnel.connect()
    assert link.read_only == "the user that ssh logs in as on gpu01 is not in the group llamarig"
    assert link.client.get("/status")["socket"] == "read.sock"


def test_a_host_where_no_daemon_runs_is_asked_again_over_the_same_connection(box: Box, tunnel: Tunnel) -> None:
    with pytest.raises(LlamarigError, match="llamarigd does not run there"):
        tunnel.connect()
    first = tunnel._process
    box.serve(paths.MANAGE_SOCKET)
    assert tunnel.connect().client.get("/")["socket"] == "manage.sock"
    assert tunnel._process is first


def test_a_host_that_cannot_be_reached_says_why_in_ssh_s_words(box: Box, tunnel: Tunnel) -> None:
    (box.remote / "refuses").touch()
    with pytest.raises(LlamarigError, match="ssh: connect to host gpu01 port 22: No route to host") as caught:
        tunnel.connect()
    assert caught.value.remedy == "try it by hand: ssh me@gpu01"
    (box.remote / "refuses").unlink()
    box.serve(paths.READ_SOCKET)
    assert tunnel.connect().client.get("/")["socket"] == "read.sock"


def test_a_connection_that_broke_is_opened_again(box: Box, tunnel: Tunnel) -> None:
    box.serve(paths.MANAGE_SOCKET)
    tunnel.connect()
    assert tunnel._process is not None
    tunnel._process.kill()
    tunnel._process.wait()
    assert tunnel.connect().client.get("/")["socket"] == "manage.sock"


def test_nothing_is_left_and_nothing_is_opened_after_the_end(box: Box, tunnel: Tunnel) -> None:
    box.serve(paths.MANAGE_SOCKET)
    tunnel.connect()
    process = tunnel._process
    tunnel.close()
    assert process is not None
    assert process.poll() is not None
    with pytest.raises(LlamarigError, match="left"):
        tunnel.connect()


def site(directory: Path, hosts: str) -> Path:
    path = directory / "hosts.yml"
    path.write_text(f"gpu_hosts:\n  hosts:\n{hosts}")
    return path


def test_hosts_are_reached_as_ansible_reaches_them(box: Box, tmp_path: Path) -> None:
    box.serve(paths.READ_SOCKET)
    inventory = site(
        tmp_path,
        f"""\
    gpu02: {{ansible_host: 192.0.2.2, ansible_user: ops, ansible_port: 2222, ansible_ssh_executable: {box.ssh},
            ansible_ssh_common_args: "-J jump.example.com", ansible_ssh_private_key_file: /keys/one}}
    gpu01: {{ansible_connection: local}}
    gpu03: {{ansible_connection: community.docker.docker}}
    gpu04: {{ansible_host: "{{{{ nothing_of_that_name }}}}"}}
""",
    )
    with fleet(inventory) as hosts:
        assert [host.name for host in hosts] == ["gpu01", "gpu02", "gpu03", "gpu04"]
        assert hosts[1].connect().client.get("/")["socket"] == "read.sock"
        typed = box.log.read_text().splitlines()
        assert typed[-2] == "ops@192.0.2.2"
        for pair in (["-J", "jump.example.com"], ["-p", "2222"], ["-i", "/keys/one"]):
            assert pair in [typed[at : at + 2] for at in range(len(typed))]
        assert hosts[0].connect().client is not None
        for host, why in zip(hosts[2:], ("docker", "nothing_of_that_name"), strict=True):
            with pytest.raises(LlamarigError, match=why):
                host.connect()


def test_a_limit_is_minded_and_an_inventory_without_hosts_is_refused(tmp_path: Path) -> None:
    inventory = site(tmp_path, "    gpu01: {}\n    gpu02: {}\n")
    assert list(connections(inventory, "gpu02")) == ["gpu02"]
    with pytest.raises(LlamarigError, match="cannot be read"):
        connections(inventory, "other")
    (tmp_path / "hosts.yml").write_text("{")
    with pytest.raises(LlamarigError, match="cannot be read"):
        connections(inventory)


def test_a_host_without_a_way_says_so_each_time() -> None:
    way = NoWay(LlamarigError("its connection is winrm"))
    for _ in range(2):
        with pytest.raises(LlamarigError, match="winrm"):
            way.connect()
    way.close()


def test_what_the_shell_over_there_is_told_is_one_word() -> None:
    tunnel = Tunnel("a", ["ssh"], "a", Path("/nowhere"))
    assert shlex.split(tunnel._command[-1])[:2] == ["/bin/sh", "-c"]
    assert len(shlex.split(tunnel._command[-1])) == 3
