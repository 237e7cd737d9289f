from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llamarig.config import paths
from llamarig.daemon.chores import Chores
from llamarig.daemon.engines import SERVED, read_engines
from llamarig.runtime.images import Docker, Image
from tests.support import below, make_spec
from tests.unit.daemon.fakes import Host

LABELS = {"llamarig.ref": "v1", "org.opencontainers.image.revision": "c" * 40, "llamarig.backend": "cuda"}


def name(tag: str) -> str:
    return f"llamarig/llama-cpp:{tag}"


@dataclass
class PlayedDocker(Docker):
    """Images by tag, and which of them containers are made of."""

    tags: tuple[str, ...] = ()
    containers: Mapping[str, list[str]] = field(default_factory=dict)

    def images(self, repository: str = "llamarig/llama-cpp") -> list[Image]:
        return [Image(f"{repository}:{tag}", f"sha256:{tag}", 1 << 30, LABELS) for tag in self.tags]

    def in_use(self) -> dict[str, list[str]]:
        return {f"sha256:{tag}": names for tag, names in self.containers.items()}


def host(root: Path) -> Host:
    """A host that was upgraded from old to new, and is planned with the newest."""
    found = Host(root)
    for tag in ("old", "new"):
        found.provision(make_spec("alpha", image=name(tag)), default="alpha")
        found.reconcile()
        Chores(root).run()
    found.provision(make_spec("alpha", image=name("newest")), default="alpha")
    said = {"schema_version": 1, "default_service": "alpha", "engine": {"image": name("newest"), "commit": "c" * 40}}
    below(root, paths.HOST_FILE).write_text(json.dumps(said), encoding="utf-8")
    return found


def test_every_engine_is_told_with_what_it_is_for(tmp_path: Path) -> None:
    host(tmp_path)
    docker = PlayedDocker(tags=("ancient", "new", "newest", "old"), containers={"new": ["llama-alpha"]})
    found = read_engines(tmp_path, docker)
    assert (found.planned, found.current, found.before) == (name("newest"), name("new"), name("old"))
    assert found.engine == {"image": name("newest"), "commit": "c" * 40}
    told = {each["image"].split(":")[1]: each for each in found.to_dict()["images"]}
    marks = {
        tag: [mark for mark in ("planned", "current", "before", "containers") if each[mark]]
        for tag, each in told.items()
    }
    assert marks == {"ancient": [], "new": ["current", "containers"], "newest": ["planned"], "old": ["before"]}
    assert (told["old"]["ref"], told["old"]["commit"], told["old"]["backend"]) == ("v1", "c" * 40, "cuda")
    assert told["old"]["bytes"] == 1 << 30


def test_only_what_nobody_needs_may_go(tmp_path: Path) -> None:
    host(tmp_path)
    below(tmp_path, SERVED).parent.mkdir(parents=True)
    below(tmp_path, SERVED).write_text(json.dumps({"node7": [name("theirs"), name("theirs-before")]}))
    tags = ("ancient", "exited", "new", "newest", "old", "theirs", "theirs-before", "v2-untested")
    docker = PlayedDocker(tags=tags, containers={"exited": ["somebodys"]})
    gone = [each.image.name for each in read_engines(tmp_path, docker).images if not each.needed]
    assert gone == [name("ancient")]


def test_a_host_without_a_plan_needs_what_its_containers_need(tmp_path: Path) -> None:
    found = read_engines(tmp_path, PlayedDocker(tags=("a", "b"), containers={"a": ["x"]}))
    assert (found.planned, found.engine, found.current, found.before) == (None, None, None, None)
    assert [each.needed for each in found.images] == [True, False]


def test_a_torn_note_of_what_is_served_keeps_nothing_from_being_told(tmp_path: Path) -> None:
    host(tmp_path)
    for text in ("{", "[]", '{"node7": 3}'):
        below(tmp_path, SERVED).parent.mkdir(parents=True, exist_ok=True)
        below(tmp_path, SERVED).write_text(text)
        assert read_engines(tmp_path, PlayedDocker(tags=("a",))).images[0].served == ()


def test_a_host_that_runs_nothing_has_an_engine_planned_and_none_that_serves(tmp_path: Path) -> None:
    found = Host(tmp_path)
    said = {"schema_version": 1, "default_service": None, "engine": {"image": name("built")}}
    below(found.root, paths.HOST_FILE).write_text(json.dumps(said), encoding="utf-8")
    engines = read_engines(tmp_path, PlayedDocker(tags=("built",)))
    assert (engines.planned, engines.engine) == (name("built"), None)
    assert [each.needed for each in engines.images] == [True]
