from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.api import keys
from llamarig.api.grants import GRANT, STANDS, Granted, Keyed
from llamarig.api.keys import KeyRing
from tests.unit.web.asking import Behind, ask


def granted(root: Path, headers: dict[str, str], *, always: bool = False) -> str:
    behind = Behind()
    ask(Keyed(behind, KeyRing(root), always=always), headers)
    grant: str = behind.scopes[0][GRANT]
    return grant


def test_without_keys_loopback_may_everything_and_the_network_nothing(tmp_path: Path) -> None:
    assert granted(tmp_path, {}) == "manage"
    assert granted(tmp_path, {}, always=True) == "none"
    assert granted(tmp_path, {"X-Api-Key": "llamarig_x"}, always=True) == "wrong"


@pytest.mark.parametrize("scope", ["read", "manage"])
def test_with_keys_a_key_says_what_may_be_done(tmp_path: Path, scope: str) -> None:
    text = keys.add(tmp_path, "it", scope)
    for headers in (
        {"Authorization": f"Bearer {text}"},
        {"Authorization": f"bearer  {text} "},
        {"X-Api-Key": text},
        {"X-Api-Key": text, "Authorization": "Basic eHg6eXk="},
    ):
        assert granted(tmp_path, headers) == scope
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Basic {text}"}, {"X-Api-Key": " "}):
        assert granted(tmp_path, headers) == "none"
    for headers in ({"X-Api-Key": f"{text}x"}, {"Authorization": "Bearer \xff"}):
        assert granted(tmp_path, headers) == "wrong"


def test_what_a_key_may_stands_until_it_is_taken_back(tmp_path: Path) -> None:
    behind = Behind()
    ask(Keyed(behind, KeyRing(tmp_path), always=False))
    text = keys.add(tmp_path, "it", "manage")
    ask(Keyed(behind, KeyRing(tmp_path), always=False), {"X-Api-Key": text})
    stand = [scope[STANDS] for scope in behind.scopes]
    assert [stands() for stands in stand] == [False, True], "with the first key, nobody goes on without one"
    keys.revoke(tmp_path, "it")
    keys.add(tmp_path, "other", "read")
    assert [stands() for stands in stand] == [False, False]


def test_a_socket_says_by_itself_what_may_be_done() -> None:
    behind = Behind()
    ask(Granted(behind, "read"), {"X-Api-Key": "llamarig_x"})
    assert behind.scopes[0][GRANT] == "read"
