"""Model files that are pushed: the action asks the real module again and again until nothing is missing."""

from __future__ import annotations

import getpass
import hashlib
import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract.modules import run_module
from tests.contract.tree import ROOT

CONTENT = b"weights" * 100


def action(arguments: dict[str, Any], scratch: Path) -> Any:
    """The action plugin on a host that is this machine; ``pushes`` counts what it sends."""
    found = importlib.util.spec_from_file_location("model_files", ROOT / "plugins/action/model_files.py")
    assert found is not None
    assert found.loader is not None
    plugin = importlib.util.module_from_spec(found)
    found.loader.exec_module(plugin)

    class Here(plugin.ActionModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.pushes: list[str] = []
            self._task = SimpleNamespace(args=arguments, async_val=0, check_mode=False)
            self._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=str(scratch)))

        def _execute_module(self, **_: Any) -> dict[str, Any]:
            return run_module("model_files", arguments, scratch)

        def _push(self, _host: str, name: str, source: str, incoming: str) -> None:
            self.pushes.append(name)
            digest = next(entry["sha256"] for entry in arguments["files"] if entry["name"] == name)
            shutil.copy(source, f"{incoming}/{digest}")

    return Here()


@pytest.mark.parametrize("names", [["one.gguf"], ["one.gguf", "two.gguf"], ["one.gguf", "sub/two.gguf", "three.gguf"]])
def test_names_of_the_same_bytes_all_come_into_place(tmp_path: Path, names: list[str]) -> None:
    source, models = tmp_path / "source.gguf", tmp_path / "models"
    source.write_bytes(CONTENT)
    models.mkdir()
    file = {"bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest(), "path": str(source)}
    files = [{"name": name, **file} for name in names]
    arguments = {"directory": str(models), "files": files, "owner": getpass.getuser()}
    pushing = action(arguments, tmp_path)
    result = pushing.run(task_vars={"inventory_hostname": "gpu01"})
    assert not result.get("failed"), result["msg"]
    assert (result["changed"], sorted(result["fetched"])) == (True, sorted(names))
    assert sorted(pushing.pushes) == sorted(names)
    assert [(models / name).read_bytes() for name in names] == [CONTENT] * len(names)
    again = action(arguments, tmp_path)
    assert again.run()["changed"] is False
    assert again.pushes == []


def test_what_was_pushed_and_is_not_whole_is_not_pushed_for_ever(tmp_path: Path) -> None:
    source, models = tmp_path / "source.gguf", tmp_path / "models"
    source.write_bytes(CONTENT[:-1])
    models.mkdir()
    file = {"name": "one.gguf", "bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    arguments = {"directory": str(models), "files": [file | {"path": str(source)}], "owner": getpass.getuser()}
    pushing = action(arguments, tmp_path)
    result = pushing.run()
    assert result["failed"] is True
    assert result["msg"] == "one.gguf was pushed and did not arrive whole: run it again"
    assert pushing.pushes == ["one.gguf"]
