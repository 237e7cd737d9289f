"""Generations: what a host last served with, on a host whose units and engine are played and whose files are real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamarig.config import paths
from llamarig.daemon import generation
from llamarig.daemon.generation import MARK, Generation
from llamarig.errors import SwitchError
from llamarig.planning import host_files
from tests.support import make_spec
from tests.unit.daemon.fakes import Fault
from tests.unit.daemon.upgraded import NEW, NEWEST, OLD, Box

pytestmark = pytest.mark.usefixtures("quick_disk")


def test_the_mark_is_the_one_that_the_role_writes() -> None:
    assert host_files.MARK == MARK


def test_the_first_converge_keeps_everything_of_llamarigs_own_as_a_generation(tmp_path: Path) -> None:
    host = Box(tmp_path)
    host.write(f"{paths.UNITS}/llama-farm.service", "[Unit]\nDescription=somebody else's animals\n")
    host.write(f"{paths.KEYS}/alpha.key", "secret")
    assert host.store.current() is None
    host.converge(OLD)
    found = host.store.current()
    assert found is not None
    assert (found.image, found.active, found.time, found.services) == (OLD, "alpha", 1000, ["alpha", "beta"])
    assert sorted(found.files) == [
        "/etc/llamarig/compose/alpha/compose.yaml",
        "/etc/llamarig/compose/beta/compose.yaml",
        "/etc/llamarig/host.json",
        "/etc/llamarig/services.d/alpha.json",
        "/etc/llamarig/services.d/beta.json",
        "/etc/systemd/system/llama-alpha.service",
        "/etc/systemd/system/llama-alpha.slice",
        "/etc/systemd/system/llama-beta.service",
        "/etc/systemd/system/llama-beta.slice",
    ]
    assert host.store.before() is None
    assert Generation.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_same_engine_with_other_options_renews_the_generation_and_nothing_is_before(tmp_path: Path) -> None:
    host = Box(tmp_path)
    host.converge(OLD)
    host.clock.seconds += 5
    host.converge(OLD, memory_mib=2048)
    found = host.store.current()
    assert found is not None
    assert '"memory_mib": 2048' in found.files[f"{paths.SPECS}/alpha.json"].text
    assert found.time > 1000
    assert host.store.before() is None


def test_a_second_converge_that_changes_nothing_writes_nothing(box: Box) -> None:
    before = box.files()
    box.clock.seconds += 100
    box.adopt()
    assert box.files() == before


def test_another_engine_makes_the_generation_the_one_before(box: Box) -> None:
    current, before = box.store.current(), box.store.before()
    assert current is not None
    assert before is not None
    assert (current.image, before.image) == (NEW, OLD)
    assert before.files[f"{paths.SPECS}/alpha.json"].text == json.dumps(make_spec("alpha", image=OLD).to_dict())


def test_an_engine_that_does_not_come_to_serve_is_no_generation(box: Box) -> None:
    box.plan(NEWEST)
    box.faults[make_spec("alpha", image=NEWEST).spec_sha256] = Fault.EXITS
    with pytest.raises(SwitchError):
        box.adopt()
    current = box.store.current()
    assert current is not None
    assert current.image == NEW


def test_a_torn_or_foreign_generation_is_as_none(tmp_path: Path) -> None:
    host = Box(tmp_path)
    host.converge(OLD)
    store = host.store
    for text in ("{", "[]", '{"schema_version": 2}', '{"schema_version": 1, "image": "x"}'):
        host.write(f"{generation.DIRECTORY}/current.json", text)
        host.write(f"{generation.DIRECTORY}/rollback.json", text)
        assert store.current() is None
        assert store.pending() is None
    assert host.state.read().names == ("alpha",)
