from __future__ import annotations

import os

import pytest

from llamarig.config import paths
from llamarig.errors import ExitCode
from tests.support import below
from tests.unit.cli.conftest import Shell


def test_a_key_is_shown_once_and_kept_as_a_hash(shell: Shell) -> None:
    result = shell("keys", "add", "ci", "--scope", "manage")
    assert result.exit_code == ExitCode.OK
    key = result.stdout.splitlines()[0]
    assert key.startswith("llamarig_")
    assert "ci may manage with it; it is shown now and never again" in result.stdout
    kept = below(shell.host.root, paths.API_KEYS_FILE).read_text(encoding="utf-8")
    assert key not in kept
    listed = shell("keys", "list")
    assert listed.stdout.splitlines()[1].split()[:2] == ["ci", "manage"]
    assert key not in listed.stdout


def test_keys_as_json(shell: Shell) -> None:
    data = shell.json("keys", "add", "wall")["data"]
    assert (data["name"], data["scope"], data["changed"]) == ("wall", "read", True)
    assert data["key"].startswith("llamarig_")
    (key,) = shell.json("keys", "list")["data"]["keys"]
    assert (key["name"], key["scope"], set(key)) == ("wall", "read", {"name", "scope", "created"})
    assert shell.json("keys", "revoke", "wall")["data"]["changed"] is True
    assert shell("keys", "list").stdout == "there is no key: the API is on loopback only\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("add", "a b"), ExitCode.FAILED),
        (("add", "twice"), ExitCode.FAILED),
        (("add", "x", "--scope", "all"), ExitCode.USAGE),
        (("revoke", "nobody"), ExitCode.NOT_FOUND),
    ],
)
def test_what_cannot_be_done_is_refused(shell: Shell, words: tuple[str, ...], code: ExitCode) -> None:
    shell("keys", "add", "twice")
    assert shell("keys", *words).exit_code == code


@pytest.mark.parametrize("words", [("add", "x"), ("list",), ("revoke", "x")], ids=lambda words: words[0])
def test_keys_are_roots(shell: Shell, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert shell("keys", *words).exit_code == ExitCode.NOT_ALLOWED
