from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamarig.daemon.memory import Judged, MemoryStore, Record, predicted
from llamarig.daemon.state import StateStore
from llamarig.runtime.fit_params import Answer, Estimate
from tests.support import make_spec
from tests.unit.daemon.judged import PLANNED, parts, planned, record

SPEC = planned()
FULL = record(SPEC, parts(*PLANNED), parts((18000.5, 1000, 200.25), (9000, 800, 100), (400, 0, 64), vision=248.1))


def path(root: Path, service: str = "chat") -> Path:
    return root / f"var/lib/llamarig/memory/{service}.json"


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    MemoryStore(tmp_path).write(FULL)
    assert MemoryStore(tmp_path).read(SPEC) == FULL


def test_it_is_beside_the_state(tmp_path: Path) -> None:
    MemoryStore(tmp_path).write(FULL)
    assert path(tmp_path).parent.parent == StateStore(tmp_path).directory
    assert [item.name for item in path(tmp_path).parent.iterdir()] == ["chat.json"]


def test_a_person_can_read_it(tmp_path: Path) -> None:
    MemoryStore(tmp_path).write(FULL)
    data = json.loads(path(tmp_path).read_text(encoding="utf-8"))
    assert data["schema_version"] == 1
    assert (data["service"], data["spec_sha256"], data["image"]) == ("chat", SPEC.spec_sha256, SPEC.image)
    assert data["predicted"]["devices"][0]["name"] == "rtx4090"
    assert data["engine"]["answer"] == "estimated"
    assert data["measured"]["parts"]["devices"][0]["vision"] == 248.1


@pytest.mark.parametrize("changes", [{"port": 9000}, {"image": "llamarig/llama-cpp:newer"}])
def test_of_another_spec_or_engine_nothing_counts(tmp_path: Path, changes: dict[str, Any]) -> None:
    MemoryStore(tmp_path).write(FULL)
    other = planned(**changes)
    assert MemoryStore(tmp_path).read(other) == record(other)


def test_a_newer_prediction_of_the_same_spec_counts_at_once(tmp_path: Path) -> None:
    MemoryStore(tmp_path).write(FULL)
    newer = planned(figures=((17000, 900, 150), *PLANNED[1:]))
    assert newer.spec_sha256 == SPEC.spec_sha256
    found = MemoryStore(tmp_path).read(newer)
    assert found.predicted == predicted(newer) != predicted(SPEC)
    assert found.engine == FULL.engine


def test_a_newer_correction_counts_at_once_too(tmp_path: Path) -> None:
    MemoryStore(tmp_path).write(FULL)
    found = MemoryStore(tmp_path).read(planned(logits=60)).engine
    assert found is not None
    assert found.said == parts(*PLANNED)
    assert found.corrected == parts(PLANNED[0], (9000, 800, 40), PLANNED[2])


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"schema_version": 2}', None],
    ids=["empty", "torn", "a list", "no keys", "a newer schema", "a torn engine"],
)
def test_a_file_that_cannot_be_read_is_as_if_nobody_had_looked(tmp_path: Path, content: str | None) -> None:
    MemoryStore(tmp_path).write(FULL)
    if content is None:
        content = json.dumps({**FULL.to_dict(), "engine": {"time": 1}})
    path(tmp_path).write_text(content, encoding="utf-8")
    assert MemoryStore(tmp_path).read(SPEC) == record(SPEC)


def test_a_measurement_leaves_the_engines_word_alone(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    store.write(record(SPEC, parts(*PLANNED)))
    store.keep_measured(SPEC, parts(*PLANNED), 20.4)
    assert store.read(SPEC) == record(SPEC, parts(*PLANNED), parts(*PLANNED))


def test_services_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    store.prune({"chat"})
    for name in ("chat", "code", "old"):
        store.write(Record(name, "a", "b", None))
    store.prune({"chat", "code", "new"})
    assert sorted(item.name for item in path(tmp_path).parent.iterdir()) == ["chat.json", "code.json"]


def test_nothing_is_predicted_without_a_memory_model() -> None:
    assert predicted(make_spec()) is None
    assert SPEC.memory is not None
    SPEC.memory.unknown.append("architecture 'new': its cache and compute buffers")
    try:
        assert predicted(SPEC) is None
    finally:
        SPEC.memory.unknown.clear()


def test_an_estimate_is_kept_as_it_was_said_and_as_a_server_would_have_it() -> None:
    said = parts((18000, 1000, 200), (9000, 800, 400), (400, 0, 64))
    estimate = Estimate(Answer.ESTIMATED, said, "", ["--tensor-split", "34,14"], ["--kv-unified"], 1.2)
    judged = Judged.of(planned(logits=300), estimate, 10.6)
    assert judged.time == 11
    assert judged.said == said
    assert judged.corrected == parts(*PLANNED)
    assert judged.unseen == ["--kv-unified"]
    assert judged.words == ["--tensor-split", "34,14"]
