from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.config import paths
from llamarig.errors import LlamarigError, NotFoundError
from llamarig.runtime.specs import SpecStore
from tests.support import below, make_spec, provision

CHAT = make_spec("chat")
CODE = make_spec("code", port=8090)


def test_all_specs_come_by_name(tmp_path: Path) -> None:
    provision(tmp_path, CODE, CHAT)
    assert SpecStore(tmp_path).all() == [CHAT, CODE]


def test_a_host_without_llamarig_runs_nothing(tmp_path: Path) -> None:
    store = SpecStore(tmp_path)
    assert (store.all(), store.default_service(), store.running("chat")) == ([], None, None)


def test_one_spec_comes_by_its_name(tmp_path: Path) -> None:
    provision(tmp_path, CODE, CHAT)
    assert SpecStore(tmp_path).get("code") == CODE


@pytest.mark.parametrize("name", ["draft", "../services.d/chat", "", "."])
def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path, name: str) -> None:
    provision(tmp_path, CHAT, CODE)
    with pytest.raises(NotFoundError) as caught:
        SpecStore(tmp_path).get(name)
    assert caught.value.message == f"this host runs no service {name!r}"
    assert caught.value.remedy == "choose one of: chat, code"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"schema_version": 9}', '{"schema_version": 1}'])
def test_a_damaged_spec_is_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    provision(tmp_path, CHAT)
    path = below(tmp_path, f"{paths.SPECS}/chat.json")
    path.write_text(content, encoding="utf-8")
    with pytest.raises(LlamarigError, match="cannot be read") as caught:
        SpecStore(tmp_path).all()
    assert str(path) in caught.value.message
    assert "playbooks/site.yml" in caught.value.remedy


def test_the_running_spec_is_the_one_the_unit_copied(tmp_path: Path) -> None:
    provision(tmp_path, CHAT)
    running = below(tmp_path, paths.RUNNING)
    running.mkdir(parents=True)
    (running / "chat.json").write_bytes(below(tmp_path, f"{paths.SPECS}/chat.json").read_bytes())
    provision(tmp_path, make_spec("chat", port=8090))
    assert SpecStore(tmp_path).running("chat") == CHAT
    assert SpecStore(tmp_path).get("chat").port == 8090


def test_a_damaged_running_spec_counts_as_none(tmp_path: Path) -> None:
    below(tmp_path, paths.RUNNING).mkdir(parents=True)
    below(tmp_path, f"{paths.RUNNING}/chat.json").write_text("{", encoding="utf-8")
    assert SpecStore(tmp_path).running("chat") is None


def test_the_default_service_is_the_host_files(tmp_path: Path) -> None:
    provision(tmp_path, CHAT, CODE, default="code")
    assert SpecStore(tmp_path).default_service() == "code"


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_host_file_is_an_error_without_a_traceback(tmp_path: Path, content: str) -> None:
    provision(tmp_path, CHAT)
    below(tmp_path, paths.HOST_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(LlamarigError, match="cannot be read"):
        SpecStore(tmp_path).default_service()
