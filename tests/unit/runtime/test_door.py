from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llamarig.config import paths
from llamarig.runtime.door import DoorError, LinkDoor, Traffic
from tests.support import below

# HAProxy 2.6's own, but for the columns behind those that are read.
STAT = """\
# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,lastsess,
port-8080,FRONTEND,,,3,4,2000,19,1000,2000,0,0,0,,,,,OPEN,,
port-8080,engine,0,0,2,3,,17,1000,2000,,0,,0,0,0,0,no check,5,
port-8080,BACKEND,0,0,2,3,200,18,1000,2000,0,0,,0,0,0,0,UP,5,
port-8090,engine,0,0,0,0,,0,0,0,,0,,0,0,0,0,no check,-1,

"""


@pytest.fixture
def door(tmp_path: Path) -> LinkDoor:
    return LinkDoor(tmp_path)


@contextmanager
def stats(root: Path, answer: str) -> Iterator[list[bytes]]:
    """HAProxy's socket: one command, its answer, and the connection is closed."""
    asked: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline())
            self.wfile.write(answer.encode())

    place = below(root, paths.DOOR_STATS)
    place.parent.mkdir(parents=True)
    with socketserver.UnixStreamServer(str(place), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def test_an_open_port_leads_to_the_engines_socket(door: LinkDoor) -> None:
    door.open(8080, "chat")
    link = below(door.root, "/run/llamarig/door/8080.sock")
    assert str(link.readlink()) == "/run/llamarig/engines/chat/server.sock"
    assert (door.behind(8080), door.ports()) == ("chat", [8080])


def test_a_port_leads_elsewhere_without_a_moment_in_between(door: LinkDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    door.open(8080, "chat")
    removed: list[str] = []
    unlink = Path.unlink

    def noting(self: Path, *, missing_ok: bool = False) -> None:
        removed.append(self.name)
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", noting)
    door.open(8080, "code")
    assert door.behind(8080) == "code"
    assert "8080.sock" not in removed


def test_what_a_killed_daemon_left_half_made_is_no_trouble(door: LinkDoor) -> None:
    below(door.root, paths.DOOR).mkdir(parents=True)
    below(door.root, f"{paths.DOOR}/.8080.sock.new").symlink_to("/nowhere")
    assert door.ports() == []
    door.open(8080, "chat")
    assert door.ports() == [8080]


def test_a_closed_port_leads_nowhere_and_may_be_closed_again(door: LinkDoor) -> None:
    door.open(8080, "chat")
    door.close(8080)
    door.close(8080)
    assert (door.behind(8080), door.ports()) == (None, [])


def test_traffic_is_what_haproxy_counts_for_the_engine(door: LinkDoor) -> None:
    with stats(door.root, STAT) as asked:
        assert door.traffic(8080) == Traffic(in_flight=2, total=17, idle_seconds=5)
        assert door.traffic(8090) == Traffic(in_flight=0, total=0, idle_seconds=None)
        assert door.traffic(9999) == Traffic()
    assert asked == [b"show stat\n"] * 3


def test_a_door_that_is_down_says_how_to_look_at_it(door: LinkDoor) -> None:
    with pytest.raises(DoorError) as caught:
        door.traffic(8080)
    assert caught.value.remedy == "systemctl status llamarig-door"
