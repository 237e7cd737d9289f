"""The door's configuration, in a real HAProxy before engines that the test plays."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llamarig.config import paths
from llamarig.planning.intent import plan_host
from llamarig.runtime.door import LinkDoor
from tests.contract.tree import ROOT, load
from tests.support import HOST, KEY, below, render, variables

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
UNTIL = 30.0
CHAT = variables()["llm_services"][0]
UNIT = ROOT / "templates/door/llamarig-door.service.j2"

needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="there is no haproxy here")


def until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + UNTIL
    while not ready():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def configuration(*services: dict[str, Any]) -> str:
    answers = load(ROOT / "roles/door/vars/main.yml")["door_answers"]
    ports = plan_host(HOST, variables(llm_services=list(services)))["ports"]
    return render({"template": "door.cfg.j2", "vars": {"ports": ports, "answers": answers}}, "door")


def judged(text: str, place: Path) -> str:
    place.write_text(text, encoding="utf-8")
    done = subprocess.run([str(HAPROXY), "-c", "-f", str(place)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode or "warning" in done.stderr.lower() else ""


@needs_haproxy
@pytest.mark.parametrize(
    "services",
    [
        [],
        [CHAT, CHAT | {"name": "code"}, CHAT | {"name": "long", "port": 8090}],
        [CHAT | {"bind": bind, "port": 9000 + number, "name": f"at-{number}", "api_key": KEY} for number, bind in
         enumerate(["0.0.0.0", "::", "::1", "127.0.0.53", "192.0.2.10", "2001:db8::10", "fe80::1"])],  # noqa: S104
        [CHAT | {"name": f"{'long-' * 8}{number}"} for number in range(60)],
    ],
    ids=["none", "shared", "addresses", "many"],
)  # fmt: skip
def test_haproxy_takes_it_without_a_warning(services: list[dict[str, Any]], tmp_path: Path) -> None:
    assert judged(configuration(*services), tmp_path / "door.cfg") == ""


def test_every_port_leads_to_the_link_that_the_daemon_makes() -> None:
    text = configuration(CHAT, CHAT | {"name": "long", "port": 8090})
    assert re.findall(r"server engine unix@(\S+)", text) == [paths.door_link(8080), paths.door_link(8090)]
    assert re.findall(r"^listen (\S+)$", text, re.MULTILINE) == ["port-8080", "port-8090"]
    assert f"stats socket {paths.DOOR_STATS} " in text


def test_the_unit_runs_that_configuration_as_the_doors_account() -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert f"ExecStart=/usr/sbin/haproxy -Ws -f {paths.DOOR_FILE}\n" in text
    assert f"User={paths.DOOR_USER}\n" in text
    assert f"RuntimeDirectory={Path(paths.DOOR_STATS).parent.name}\n" in text
    assert "\nCapabilityBoundingSet=\n" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_the_unit_is_confined(tmp_path: Path) -> None:
    unit = tmp_path / "llamarig-door.service"
    unit.write_text(UNIT.read_text(encoding="utf-8"), encoding="utf-8")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()


@dataclass
class Engine:
    """A server on a socket that begins each answer, and goes on when it is told to."""

    name: str
    place: Path
    go_on: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    listener: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX))

    def serve(self) -> None:
        self.place.parent.mkdir(parents=True, exist_ok=True)
        self.listener.bind(str(self.place))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            asked = connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")
            self.begun.release()
            if b"/stream" in asked:
                self.go_on.wait(UNTIL)
            name = self.name.encode()
            connection.sendall(f"{len(name):x}\r\n".encode() + name + b"\r\n0\r\n\r\n")

    def end(self) -> None:
        self.go_on.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@dataclass
class Door:
    """HAProxy with the configuration of one host, whose directories are below ``root``."""

    root: Path
    port: int
    links: LinkDoor
    process: subprocess.Popen[bytes] | None = None
    connections: list[http.client.HTTPConnection] = field(default_factory=list)

    def write(self, *services: dict[str, Any]) -> None:
        text = configuration(*services)
        for place in (paths.DOOR, str(Path(paths.DOOR_STATS).parent)):
            text = text.replace(f"{place}/", f"{below(self.root, place)}/")
        (self.root / "door.cfg").write_text(text, encoding="utf-8")

    def start(self) -> None:
        command = [str(HAPROXY), "-W", "-db", "-f", str(self.root / "door.cfg")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self.answers)

    def answers(self, port: int | None = None) -> bool:
        try:
            self.get("/health", port).read()
        except OSError:
            return False
        return True

    def get(self, path: str, port: int | None = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=UNTIL)
        self.connections.append(connection)
        connection.request("GET", path)
        return connection.getresponse()

    def engine(self, name: str) -> Engine:
        engine = Engine(name, below(self.root, paths.engine_socket(name)))
        engine.serve()
        return engine

    def open(self, name: str) -> None:
        self.links.open(self.port, name)
        # The daemon's links are absolute, and the test's host is below a directory.
        link = below(self.root, paths.door_link(self.port))
        link.unlink()
        link.symlink_to(below(self.root, paths.engine_socket(name)))


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
def door() -> Iterator[Door]:
    if HAPROXY is None:
        pytest.skip("there is no haproxy here")
    # A path of a socket has 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="door-") as directory:
        root = Path(directory)
        for place in (paths.DOOR, str(Path(paths.DOOR_STATS).parent)):
            below(root, place).mkdir(parents=True)
        found = Door(root, free_ports(1)[0], LinkDoor(root))
        found.write(CHAT | {"port": found.port})
        found.start()
        yield found
        for connection in found.connections:
            connection.close()
        assert found.process is not None
        found.process.terminate()
        found.process.wait(UNTIL)


def test_a_closed_port_answers_as_an_engine_would_and_says_when_to_come_back(door: Door) -> None:
    response = door.get("/v1/models")
    assert (response.status, response.getheader("Retry-After")) == (503, "5")
    assert response.getheader("Content-Type") == "application/json"
    error = json.loads(response.read())["error"]
    assert (error["code"], error["type"]) == (503, "unavailable_error")


def test_requests_under_way_go_on_when_the_port_closes_and_the_next_ones_are_refused(door: Door) -> None:
    chat, code = door.engine("chat"), door.engine("code")
    door.open("chat")
    assert door.get("/").read() == b"begunchat"
    stream = door.get("/stream")
    assert stream.read(5) == b"begun"
    assert door.links.traffic(door.port).in_flight == 1
    door.links.close(door.port)
    assert door.get("/").status == 503
    door.open("code")
    assert door.get("/").read() == b"beguncode"
    until(lambda: door.links.traffic(door.port).in_flight == 1)
    chat.go_on.set()
    assert stream.read() == b"chat"
    until(lambda: door.links.traffic(door.port).in_flight == 0)
    for engine in (chat, code):
        engine.end()


def test_a_connection_that_is_kept_open_is_led_to_whoever_serves_now(door: Door) -> None:
    engines = [door.engine(name) for name in ("chat", "code")]
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=UNTIL)
    for engine in engines:
        door.open(engine.name)
        connection.request("GET", "/")
        assert connection.getresponse().read() == f"begun{engine.name}".encode()
    connection.close()
    for engine in engines:
        engine.end()


def test_an_engine_that_ends_without_an_answer_is_an_error_in_the_engines_form(door: Door) -> None:
    place = below(door.root, paths.engine_socket("chat"))
    place.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        door.open("chat")
        threading.Thread(target=_close_next, args=(listener,), daemon=True).start()
        response = door.get("/")
        assert (response.status, json.loads(response.read())["error"]["code"]) == (502, 502)


def _close_next(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    connection.recv(1 << 16)
    connection.close()


def test_a_new_configuration_is_read_and_requests_under_way_go_on(door: Door) -> None:
    chat = door.engine("chat")
    door.open("chat")
    stream = door.get("/stream")
    assert stream.read(5) == b"begun"
    assert door.process is not None
    (other,) = free_ports(1)
    door.write(CHAT | {"port": door.port}, CHAT | {"name": "long", "port": other})
    door.process.send_signal(signal.SIGUSR2)
    until(lambda: door.answers(other))
    assert door.get("/", other).status == 503
    assert door.get("/").status == 200
    chat.go_on.set()
    assert stream.read() == b"chat"
    chat.end()
