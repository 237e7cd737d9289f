"""Which dashboard the verb opens, and with whom it speaks; what it shows is the dashboard's own matter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llamarig.errors import ExitCode, LlamarigError
from llamarig.runtime.management import Management
from tests.unit.cli.conftest import Shell


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was shown, in the place of a screen."""
    found: list[Any] = []
    monkeypatch.setattr("llamarig.dashboard.app.run", lambda client, host="": found.append((client, host)))
    monkeypatch.setattr("llamarig.dashboard.app.run_fleet", found.append)
    return found


def test_it_shows_this_host(shell: Shell, shown: list[Any]) -> None:
    assert shell("dashboard").exit_code == ExitCode.OK
    ((client, host),) = shown
    assert isinstance(client, Management)
    assert (client.root, host, client.get("/healthz")) == (shell.host.root, "", {"ok": True})


def test_it_shows_the_host_that_the_environment_names(
    shell: Shell, shown: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMARIG_URL", "http://gpu01.example.com:8081")
    shell("dashboard")
    assert shown[0][1] == "http://gpu01.example.com:8081"
    monkeypatch.setenv("LLAMARIG_URL", "gpu01")
    result = shell("dashboard")
    assert result.exit_code == ExitCode.FAILED
    assert "'gpu01' is no address of a daemon" in result.stderr


def test_it_shows_a_fleet(shell: Shell, shown: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @contextmanager
    def played(inventory: Path) -> Iterator[list[str]]:
        yield [inventory.name]

    monkeypatch.setattr("llamarig.control.fleet.fleet", played)
    site = tmp_path / "site"
    site.mkdir()
    assert shell("dashboard", "--fleet", "-i", str(site)).exit_code == ExitCode.OK
    assert shown == [["site"]]


def test_a_fleet_is_the_control_nodes(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llamarig.control.fleet", None)
    result = shell("dashboard", "--fleet", "-i", str(tmp_path))
    assert result.exit_code == ExitCode.FAILED
    assert "a fleet is shown on the control node" in result.stderr


def test_an_inventory_that_cannot_be_read_is_told(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(_: Path) -> None:
        raise LlamarigError("it names no host", "look at it")

    monkeypatch.setattr("llamarig.control.fleet.fleet", unread)
    assert "it names no host" in shell("dashboard", "--fleet", "-i", str(tmp_path)).stderr


@pytest.mark.parametrize("words", [("--fleet",), ("-i", ".")])
def test_a_fleet_needs_an_inventory_and_an_inventory_a_fleet(shell: Shell, words: tuple[str, ...]) -> None:
    assert shell("dashboard", *words).exit_code == ExitCode.USAGE
