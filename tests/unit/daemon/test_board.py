from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llamarig import __version__
from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.board import Board
from llamarig.daemon.job import LaterError
from llamarig.daemon.jobs import Jobs
from llamarig.daemon.memory import MemoryStore
from llamarig.daemon.request import Kind, Outcome, Reporter, Request
from llamarig.daemon.state import GivenUp, Serving, State, StateStore, read_file
from llamarig.daemon.supervisor import View
from llamarig.errors import NotFoundError
from llamarig.runtime.door import LinkDoor
from llamarig.runtime.specs import SpecStore
from tests.support import below, make_spec, provision
from tests.unit.daemon.acting import SECONDS, Acting

BEGAN = 1000.0


@dataclass
class Played:
    """A board, and what it says it of."""

    root: Path
    acting: Acting = field(default_factory=Acting)
    views: dict[str, View] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    specs: dict[str, Spec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = StateStore(self.root)
        self.door = LinkDoor(self.root)
        self.jobs = Jobs(self.acting.perform, self.root)
        self.board = Board(
            specs=SpecStore(self.root),
            state=self.state,
            memory=MemoryStore(self.root),
            jobs=self.jobs,
            door=self.door,
            views=self,
            warnings=lambda: self.warnings,
            now=lambda: BEGAN,
        )

    def view(self) -> Mapping[str, View]:
        return self.views

    def plan(self, *specs: Spec, **policy: Any) -> None:
        """Write what the playbook leaves."""
        provision(self.root, *specs)
        self.specs |= {spec.service: spec for spec in specs}
        host = {"policy": {"default_service": specs[0].service, **policy}}
        below(self.root, paths.HOST_FILE).write_text(json.dumps(host), encoding="utf-8")

    def serve(self, *services: str, since: float = 0.0, **more: Any) -> None:
        """Write down that these should be serving, and open their doors."""
        active = tuple(Serving(name, self.specs[name].spec_sha256, since) for name in services)
        self.state.write(State(active, **more))
        for name in services:
            self.door.open(self.specs[name].port, name)

    def run(self, request: Request, phase: str = "") -> None:
        """Let a job be in a phase."""
        self.jobs.start()
        job = self.jobs.submit(request)
        if phase:
            self.acting.end(lambda reporter: self._pause(reporter, phase))
        self.acting.wait_for_start()
        listener = self.jobs.subscribe(after=0)
        while phase and self.jobs.get(job.id).phase != phase:
            assert listener.get(SECONDS)

    def _pause(self, reporter: Reporter, phase: str) -> Outcome:
        reporter.phase(phase)
        return self.acting._scripts.get(timeout=SECONDS)(reporter)

    @property
    def active(self) -> dict[str, Any]:
        """The first active service as the status says it."""
        found: dict[str, Any] = self.board.status()["active"][0]
        return found


CHAT = make_spec("chat", title="Chat 8B", speed="40 tokens/s")
CODE = make_spec("code", bench=True, origins={"ctx_size": {"value": "fit", "layer": "profile"}})
EYES = make_spec("eyes", port=8090)


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    found = Played(tmp_path)
    found.plan(CHAT, CODE, EYES)
    yield found
    found.acting.end()
    assert found.jobs.close(SECONDS)


def test_a_host_that_never_served_says_so(played: Played) -> None:
    status = played.board.status()
    assert {key: status[key] for key in ("model", "model_name", "state", "status", "active", "job", "queue")} == {
        "model": None,
        "model_name": "",
        "state": "idle",
        "status": "nothing serves",
        "active": [],
        "job": None,
        "queue": [],
    }
    assert status["default"] == "chat"
    assert status["agent"] == {"version": __version__, "release": None, "host": socket.gethostname()}


def test_a_host_without_a_plan_says_so(tmp_path: Path) -> None:
    played = Played(tmp_path)
    assert played.board.status()["status"] == "this host runs no service"
    assert played.board.models() == {"models": []}
    assert played.board.services() == {"services": []}
    assert played.board.history(5) == []


def test_what_serves_is_said_with_how_it_is(played: Played) -> None:
    played.plan(CHAT, CODE, EYES, services={"chat": {"pinned": True}, "code": {"idle_seconds": 600}})
    played.serve("chat", since=500.0)
    played.views = {"chat": View("ok", "", 2, 1, 3.5)}
    status = played.board.status()
    assert (status["model"], status["model_name"], status["state"]) == ("chat", "Chat 8B", "running")
    assert status["status"] == "chat serves at http://127.0.0.1:8080"
    assert played.active == {
        "service": "chat",
        "profile": "small",
        "name": "Chat 8B",
        "url": "http://127.0.0.1:8080",
        "port": 8080,
        "health": "ok",
        "reason": "",
        "since": 500.0,
        "pinned": True,
        "idle_seconds": None,
        "in_flight": 1,
        "restarts": 2,
        "version": CHAT.spec_sha256,
        "planned": True,
    }


def test_what_is_not_well_is_said_with_the_reason(played: Played) -> None:
    played.serve("chat")
    played.views = {"chat": View("hung", "no token for 120 s", 0, 1, 0.0)}
    assert played.board.status()["status"] == "chat is hung: no token for 120 s"


@pytest.mark.parametrize(
    ("since", "is_open", "health"),
    [(BEGAN + 1, True, "ok"), (BEGAN + 1, False, "unknown"), (BEGAN - 1, True, "unknown")],
)
def test_what_was_switched_to_just_now_has_answered_and_nothing_else_is_known(
    played: Played, since: float, is_open: bool, health: str
) -> None:
    played.serve("chat", since=since)
    if not is_open:
        played.door.close(8080)
    assert played.active["health"] == health


def test_while_a_job_changes_what_serves_the_door_says_how_it_is(played: Played) -> None:
    played.serve("chat")
    played.views = {"chat": View("ok")}
    played.run(Request(Kind.SWITCH, "code"))
    assert played.active["health"] == "ok"
    played.door.close(8080)
    assert played.active["health"] == "down", "it was seen before that"


def test_a_service_that_is_started_anew_is_loading(played: Played) -> None:
    played.serve("chat")
    played.views = {"chat": View("ok")}
    played.run(Request(Kind.RECONCILE, "chat"), "load")
    played.door.close(8080)
    assert played.active["health"] == "loading"


@pytest.mark.parametrize(
    ("kind", "phase", "state"),
    [
        (Kind.SWITCH, "", "starting"),
        (Kind.SWITCH, "validate", "starting"),
        (Kind.SWITCH, "drain", "stopping"),
        (Kind.SWITCH, "stop", "stopping"),
        (Kind.SWITCH, "load", "starting"),
        (Kind.SWITCH, "commit", "starting"),
        (Kind.STOP, "", "stopping"),
        (Kind.RECONCILE, "", "running"),
        (Kind.RECONCILE, "load", "starting"),
    ],
)
def test_a_job_is_said_in_the_seeds_words(played: Played, kind: Kind, phase: str, state: str) -> None:
    played.serve("chat")
    played.run(Request(kind, "code" if kind is Kind.SWITCH else None), phase)
    status = played.board.status()
    assert status["state"] == state
    assert status["job"]["phase"] == phase
    assert status["model"] == "chat", "what serves, not what comes"
    assert "is under way" in status["status"]


def test_what_waits_is_in_the_queue(played: Played) -> None:
    played.run(Request(Kind.SWITCH, "code"))
    played.jobs.submit(Request(Kind.SWITCH, "chat"))
    assert [job["service"] for job in played.board.status()["queue"]] == ["chat"]


def test_why_nothing_serves_is_said(played: Played) -> None:
    played.state.write(State(stopped=True))
    assert played.board.status()["status"] == "nothing serves: the last service was stopped on purpose"
    played.state.write(State(given_up={"chat": GivenUp(5.0, "it ended 5 times")}))
    status = played.board.status()
    assert status["status"] == "nothing serves: chat was given up (it ended 5 times)"
    assert status["given_up"] == {"chat": {"time": 5.0, "reason": "it ended 5 times"}}


def test_changes_of_files_are_seen_and_nothing_else_is_read(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read_text = Path.read_text

    def counted(path: Path, *arguments: Any, **options: Any) -> str:
        reads.append(path.name)
        return read_text(path, *arguments, **options)

    def counted_state(path: Path) -> str:
        reads.append(path.name)
        return read_file(path)

    monkeypatch.setattr(Path, "read_text", counted)
    monkeypatch.setattr("llamarig.daemon.state.read_file", counted_state)
    played.serve("chat")
    first = played.board.status()
    assert {"state.json", "host.json", "chat.json"} <= set(reads)
    reads.clear()
    assert played.board.status() == first
    assert reads == [], "the second time nothing is read"
    played.serve("eyes")
    assert played.board.status()["model"] == "eyes"
    assert set(reads) == {"state.json"}
    played.plan(make_spec("chat"), make_spec("new"))
    assert played.board.status()["default"] == "chat"
    assert "new" in played.board.known()


def test_a_service_that_serves_with_a_spec_of_before_says_so(played: Played) -> None:
    played.serve("chat")
    before = below(played.root, f"{paths.VERSIONS}/chat/{CHAT.spec_sha256}/spec.json")
    before.parent.mkdir(parents=True)
    before.write_text(json.dumps(CHAT.to_dict()), encoding="utf-8")
    played.plan(make_spec("chat", memory_mib=2048, title="Chat 9B"))
    assert (played.active["planned"], played.active["name"]) == (False, "Chat 8B")


def test_a_port_that_is_planned_anew_is_the_url_of_one_that_serves_with_a_spec_of_before(played: Played) -> None:
    played.serve("chat")
    before = below(played.root, f"{paths.VERSIONS}/chat/{CHAT.spec_sha256}/spec.json")
    before.parent.mkdir(parents=True)
    before.write_text(json.dumps(CHAT.to_dict()), encoding="utf-8")
    played.plan(make_spec("chat", memory_mib=2048, port=8080))
    assert played.active["url"] == "http://127.0.0.1:8080"
    played.plan(make_spec("chat", memory_mib=2048, port=8085))
    assert (played.active["planned"], played.active["url"]) == (False, "http://127.0.0.1:8085")


def test_one_that_stands_aside_is_in_the_queue_and_nothing_is_under_way(played: Played) -> None:
    played.serve("chat")
    played.jobs.start()
    played.acting.end(LaterError("chat serves for its minimum first", 3600, ["chat"]))
    listener = played.jobs.subscribe()
    played.jobs.submit(Request(Kind.SWITCH, "code"))
    while (event := listener.get(SECONDS)) is not None and event.data["phase"] != "wait":
        pass
    status = played.board.status()
    assert (status["job"], status["state"], status["status"].startswith("chat serves")) == (None, "running", True)
    assert [(job["service"], job["phase"]) for job in status["queue"]] == [("code", "wait")]
    assert played.jobs.close(SECONDS)


def test_a_service_that_is_planned_no_more_is_still_said(played: Played) -> None:
    played.serve("eyes")
    below(played.root, f"{paths.SPECS}/eyes.json").unlink()
    assert (played.active["service"], played.active["planned"], played.active["url"]) == ("eyes", False, "")


def test_a_spec_that_cannot_be_read_is_a_warning_and_what_was_known_stays(played: Played) -> None:
    played.serve("chat")
    played.warnings = ["the API does not listen on 127.0.0.1:8081: Address already in use"]
    played.board.status()
    below(played.root, f"{paths.SPECS}/code.json").write_text("{", encoding="utf-8")
    status = played.board.status()
    assert status["model_name"] == "Chat 8B"
    assert len(status["warnings"]) == 2
    assert "code.json cannot be read" in status["warnings"][1]
    provision(played.root, CODE)
    assert played.board.status()["warnings"] == played.warnings


def test_models_are_said_as_the_seeds_said_them(played: Played) -> None:
    played.serve("chat")
    assert played.board.models()["models"][:2] == [
        {
            "id": "chat",
            "name": "Chat 8B",
            "speed": "40 tokens/s",
            "ctx_size": "4096",
            "is_bench": False,
            "active": True,
        },
        {"id": "code", "name": "small", "speed": "", "ctx_size": "", "is_bench": True, "active": False},
    ]


def test_services_are_said_with_who_leaves_for_them(played: Played) -> None:
    played.serve("chat")
    played.views = {"chat": View("ok")}
    services = {item["service"]: item for item in played.board.services()["services"]}
    assert services["chat"]["leaves"] == []
    assert services["code"]["leaves"] == ["chat"]
    assert (services["chat"]["active"], services["chat"]["default"], services["chat"]["state"]) == (True, True, "ok")
    assert (services["code"]["context"], services["chat"]["context"]) == (None, 4096)
    played.state.write(State(given_up={"code": GivenUp(1.0, "")}))
    played.run(Request(Kind.SWITCH, "eyes"))
    states = {item["service"]: item["state"] for item in played.board.services()["services"]}
    assert states == {"chat": "stopped", "code": "given up", "eyes": "starting"}


def test_a_plan_says_who_leaves_who_stays_and_what_speaks_against_it(played: Played) -> None:
    played.serve("chat")
    plan = played.board.plan("code")
    assert (plan["active"], plan["leaves"], plan["stays"], plan["refused"]) == (False, ["chat"], [], None)
    assert played.board.plan("chat")["active"]
    below(played.root, CODE.files[0].path).unlink()
    plan = played.board.plan("code")
    assert plan["refused"] == f"code: model file {CODE.files[0].path} is missing"
    assert plan["remedy"] == "run playbooks/site.yml"
    with pytest.raises(NotFoundError, match="no service 'nothing'") as caught:
        played.board.plan("nothing")
    assert "chat" in caught.value.remedy


def test_a_pinned_service_is_not_made_to_leave(played: Played) -> None:
    played.plan(CHAT, CODE, services={"chat": {"pinned": True}})
    played.serve("chat")
    assert "pinned" in played.board.plan("code")["refused"]


def test_a_file_of_another_size_speaks_against_it(played: Played) -> None:
    below(played.root, CODE.files[0].path).write_bytes(b"short")
    assert "has 5 bytes" in played.board.plan("code")["refused"]


def test_the_last_events_are_said_and_lines_that_are_none_are_left_out(played: Played) -> None:
    played.serve("chat")
    mark = played.board.history_mark()
    played.state.record({"time": 1.0, "kind": "switch", "outcome": "ok", "service": "chat"})
    assert played.board.history_mark() != mark
    with (played.state.directory / "history.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('3\n{"strange": true}\n{torn\n')
    played.state.record({"time": 2.0, "kind": "stop", "outcome": "ok"})
    events = played.board.history(2)
    assert events[0] == {"time": 0.0, "kind": "", "outcome": "", "strange": True}
    assert events[1]["kind"] == "stop"
    assert len(played.board.history(50)) == 3
