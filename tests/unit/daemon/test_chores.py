"""What root tidies up: versions and keys that nobody may need again, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llamarig.config import paths
from llamarig.config.spec import Spec, SpecFile
from llamarig.daemon.chores import Chores, held
from llamarig.daemon.generation import Generation, GenerationStore, OwnFile
from llamarig.daemon.state import Serving, State, StateStore, Switching
from llamarig.errors import BusyError
from llamarig.runtime.specs import SpecStore
from tests.support import MODEL, below, make_spec, provision

KEY = f"{paths.KEYS}/alpha.key"


def write(root: Path, path: str, text: str) -> None:
    below(root, path).parent.mkdir(parents=True, exist_ok=True)
    below(root, path).write_text(text, encoding="utf-8")


def version(root: Path, spec: Spec) -> str:
    """Keep a version of a spec, and return where it is."""
    place = f"{paths.VERSIONS}/{spec.service}/{spec.spec_sha256}"
    write(root, f"{place}/spec.json", json.dumps(spec.to_dict()))
    write(root, f"{place}/compose.yaml", "# compose")
    return place


def alpha(mib: int = 1024, **changes: Any) -> Spec:
    return make_spec("alpha", memory_mib=mib, **changes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host that serves alpha with its present spec."""
    provision(tmp_path, alpha(), make_spec("beta"), default="alpha")
    StateStore(tmp_path).write(State((Serving("alpha", alpha().spec_sha256, 1.0),)))
    return tmp_path


def generation(root: Path, name: str, spec: Spec) -> None:
    files = {f"{paths.SPECS}/{spec.service}.json": OwnFile(0o644, json.dumps(spec.to_dict()))}
    data = Generation("image", 1, "alpha", files).to_dict()
    text = json.dumps({"target": data, "was": data["files"]} if name == "rollback" else data)
    write(root, f"{paths.STATE}/engine/{name}.json", text)


def switching(root: Path, spec: Spec) -> None:
    StateStore(root).write(State(switching=Switching(spec.service, spec.spec_sha256)))


KEEPERS: dict[str, Callable[[Path, Spec], object]] = {
    "planned": provision,
    "running": lambda root, spec: write(root, f"{paths.RUNNING}/alpha.json", json.dumps(spec.to_dict())),
    "active": lambda root, spec: StateStore(root).write(State((Serving("alpha", spec.spec_sha256),))),
    "switched to": switching,
    "chosen at its gate": lambda root, spec: write(root, f"{paths.GATES}/alpha/version", f"{spec.spec_sha256}\n"),
    "before": lambda root, spec: generation(root, "before", spec),
    "on the way back": lambda root, spec: generation(root, "rollback", spec),
}


@pytest.mark.parametrize("keeper", KEEPERS)
def test_a_version_that_somebody_may_need_stays(root: Path, keeper: str) -> None:
    place = version(root, alpha(2048))
    KEEPERS[keeper](root, alpha(2048))
    assert Chores(root).prune_versions() == []
    assert below(root, f"{place}/compose.yaml").is_file()


def test_what_is_no_file_at_a_gate_is_not_read(root: Path) -> None:
    place = below(root, f"{paths.GATES}/alpha/version")
    place.parent.mkdir(parents=True)
    os.mkfifo(place)
    gone = version(root, alpha(2048))
    assert Chores(root).prune_versions() == [gone]


def test_the_current_generation_is_that_of_what_serves(root: Path) -> None:
    place = version(root, alpha())
    gone = version(root, alpha(2048))
    assert Chores(root, now=lambda: 77.0).run() == [gone]
    current = GenerationStore(root).current()
    assert current is not None
    assert (current.active, current.time) == ("alpha", 77)
    assert below(root, place).is_dir()
    assert not below(root, gone).exists()


def test_versions_of_a_service_that_is_gone_go_with_their_directory(root: Path) -> None:
    gone = version(root, make_spec("gamma"))
    assert Chores(root).run() == [gone]
    assert not below(root, f"{paths.VERSIONS}/gamma").exists()


def test_what_does_not_serve_as_planned_is_no_generation(root: Path) -> None:
    provision(root, alpha(2048))
    Chores(root).run()
    assert GenerationStore(root).current() is None
    StateStore(root).write(State())
    Chores(root).run()
    assert GenerationStore(root).current() is None


def test_a_key_that_no_spec_names_goes(root: Path) -> None:
    write(root, KEY, "secret")
    write(root, f"{paths.KEYS}/README", "no key")
    assert Chores(root).run() == [KEY]
    assert below(root, f"{paths.KEYS}/README").is_file()


@pytest.mark.parametrize("keeper", ["planned", "running", "before"])
def test_a_key_that_a_spec_names_stays(root: Path, keeper: str) -> None:
    write(root, KEY, "secret")
    spec = alpha(2048, api_key_file=KEY)
    version(root, spec)
    KEEPERS[keeper](root, spec)
    assert Chores(root).run() == []


def test_a_key_that_a_version_of_another_agent_names_stays(root: Path) -> None:
    write(root, KEY, "secret")
    spec = alpha(2048)
    place = version(root, spec)
    write(root, f"{place}/spec.json", json.dumps({"schema_version": 99, "api_key_file": KEY}))
    KEEPERS["before"](root, spec)
    assert Chores(root).run() == []
    write(root, f"{place}/spec.json", "{torn")
    assert Chores(root).run() == [KEY]


def test_whoever_holds_the_host_is_waited_for(root: Path) -> None:
    said: list[str] = []
    with ExitStack() as other:
        other.enter_context(StateStore(root).lock())
        Chores(root, said.append, sleep=lambda _: other.close()).run()
    assert said == ["waiting until nobody else changes anything"]


def test_whoever_does_not_let_go_of_the_host_is_not_waited_for_for_ever(root: Path) -> None:
    naps: list[float] = []
    with StateStore(root).lock(), pytest.raises(BusyError), held(StateStore(root), sleep=naps.append):
        pytest.fail("it is held")
    assert 50 < sum(naps) < 70


def replaced(root: Path) -> tuple[Spec, Path]:
    """A host whose model of alpha was replaced since alpha served; returns the version of before, and the file."""
    before = alpha()
    version(root, before)
    files = [SpecFile(before.files[0].path, 5, "b" * 64)]
    provision(root, alpha(files=files), make_spec("beta"), default="alpha")
    place = below(root, before.files[0].path)
    place.write_bytes(b"GGUF2")
    place.with_name(f"{place.name}.previous").write_bytes(MODEL)
    return before, place


def test_model_files_come_back_with_a_version_of_before(root: Path) -> None:
    before, place = replaced(root)
    assert Chores(root).put_models_back("alpha", before.spec_sha256) == [before.files[0].path]
    assert place.read_bytes() == MODEL
    assert Chores(root).put_models_back("alpha", before.spec_sha256) == []


def test_model_files_stay_where_the_version_is_as_planned_or_nobody_has_it(root: Path) -> None:
    _, place = replaced(root)
    for digest in (SpecStore(root).get("alpha").spec_sha256, "f" * 64):
        assert Chores(root).put_models_back("alpha", digest) == []
    assert place.read_bytes() == b"GGUF2"


def test_model_files_of_before_go_when_what_serves_is_as_planned(root: Path) -> None:
    _, place = replaced(root)
    previous = place.with_name(f"{place.name}.previous")
    Chores(root).run_held()
    assert previous.exists()
    StateStore(root).write(State((Serving("alpha", SpecStore(root).get("alpha").spec_sha256, 1.0),)))
    assert "/srv/llamarig/models/alpha.gguf.previous" in Chores(root).run_held()
    assert not previous.exists()
