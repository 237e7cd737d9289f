from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamarig.daemon.memory import Judged, MemoryStore, predicted
from llamarig.daemon.state import StateStore
from llamarig.runtime.fit_params import Answer, Estimate
from tests.support import make_spec
from tests.unit.daemon.judged import PLANNED, keep, parts, planned, record

SPEC = planned()
FULL = record(SPEC, parts(*PLANNED), parts((18000.5, 1000, 200.25), (9000, 800, 100), (400, 0, 64), vision=248.1))


def judged_file(root: Path, service: str = "chat") -> Path:
    return root / f"var/lib/llamarig/memory/{service}.json"


def measured_file(root: Path, service: str = "chat") -> Path:
    return root / f"var/lib/llamarig/daemon/memory/{service}.json"


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    keep(tmp_path, SPEC, FULL)
    assert MemoryStore(tmp_path).read(SPEC) == FULL


def test_roots_and_the_daemons_knowledge_lie_apart(tmp_path: Path) -> None:
    keep(tmp_path, SPEC, FULL)
    assert [item.name for item in judged_file(tmp_path).parent.iterdir()] == ["chat.json"]
    assert [item.name for item in measured_file(tmp_path).parent.iterdir()] == ["chat.json"]
    assert measured_file(tmp_path).parent.parent == StateStore(tmp_path).directory


def test_a_person_can_read_it(tmp_path: Path) -> None:
    keep(tmp_path, SPEC, FULL)
    judged, measured = (json.loads(path(tmp_path).read_text(encoding="utf-8")) for path in (judged_file, measured_file))
    for data in (judged, measured):
        assert data["schema_version"] == 2
        assert (data["service"], data["spec_sha256"], data["image"]) == ("chat", SPEC.spec_sha256, SPEC.image)
    assert judged["known"]["answer"] == "estimated"
    assert measured["known"]["parts"]["devices"][0]["vision"] == 248.1


@pytest.mark.parametrize("changes", [{"argv": ["--ctx-size", "1"]}, {"image": "llamarig/llama-cpp:newer"}])
def test_of_another_spec_or_engine_nothing_counts(tmp_path: Path, changes: dict[str, Any]) -> None:
    keep(tmp_path, SPEC, FULL)
    other = planned(**changes)
    assert MemoryStore(tmp_path).read(other) == record(other)


def test_a_newer_prediction_of_the_same_spec_counts_at_once(tmp_path: Path) -> None:
    keep(tmp_path, SPEC, FULL)
    newer = planned(figures=((17000, 900, 150), *PLANNED[1:]))
    assert newer.spec_sha256 == SPEC.spec_sha256
    found = MemoryStore(tmp_path).read(newer)
    assert found.predicted == predicted(newer) != predicted(SPEC)
    assert found.engine == FULL.engine


def test_a_newer_correction_counts_at_once_too(tmp_path: Path) -> None:
    keep(tmp_path, SPEC, FULL)
    found = MemoryStore(tmp_path).read(planned(logits=60)).engine
    assert found is not None
    assert found.said == parts(*PLANNED)
    assert found.corrected == parts(PLANNED[0], (9000, 800, 40), PLANNED[2])


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"schema_version": 3}', None],
    ids=["empty", "torn", "a list", "no keys", "a newer schema", "a torn engine"],
)
def test_a_file_that_cannot_be_read_is_as_if_nobody_had_looked(tmp_path: Path, content: str | None) -> None:
    keep(tmp_path, SPEC, FULL)
    for path in (judged_file(tmp_path), measured_file(tmp_path)):
        torn = content
        if torn is None:
            torn = json.dumps({**json.loads(path.read_text(encoding="utf-8")), "known": {"time": 1}})
        path.write_text(torn, encoding="utf-8")
    assert MemoryStore(tmp_path).read(SPEC) == record(SPEC)


def test_a_measurement_leaves_the_engines_word_alone(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    keep(tmp_path, SPEC, record(SPEC, parts(*PLANNED)))
    store.keep_measured(SPEC, parts(*PLANNED), 20.4)
    assert store.read(SPEC) == record(SPEC, parts(*PLANNED), parts(*PLANNED))


def test_services_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    store.prune({"chat"})
    for name in ("chat", "code", "old"):
        keep(tmp_path, planned(name), record(planned(name), parts(*PLANNED)))
    store.prune({"chat", "code", "new"})
    assert sorted(item.name for item in judged_file(tmp_path).parent.iterdir()) == ["chat.json", "code.json"]


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


def test_a_disk_that_refuses_to_forget_keeps_nobody_from_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    store = MemoryStore(tmp_path)
    store.measured.mkdir(parents=True)
    (store.measured / "chat.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(Path, "unlink", read_only)
    store.forget_measured(set())
    assert "could not be removed" in caplog.text
