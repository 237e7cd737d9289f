from __future__ import annotations

from typing import Any

import pytest

from llamarig.config.address import Address, read_address

USUAL = Address("127.0.0.1", 8081)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "no JSON object"),
        ({"port": "8081"}, "port is '8081'"),
        ({"port": 70000}, "port is 70000"),
        ({"port": True}, "port is True"),
        ({"bind": "gpu01"}, "gpu01"),
        ({"bind": None}, "None"),
        ({"hosts": "gpu01"}, "no list of names"),
        ({"hosts": [1]}, "no list of names"),
    ],
)
def test_a_configuration_that_is_none_is_refused(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_address(data, USUAL)


def test_a_configuration_says_where_and_by_which_names() -> None:
    found = read_address({"bind": "::1", "port": 9, "hosts": ["gpu01.example.com"]}, USUAL)
    assert (str(found), found.is_loopback, found.hosts) == ("[::1]:9", True, ("gpu01.example.com",))
    usual = read_address({}, USUAL)
    assert (str(usual), usual.is_loopback) == ("127.0.0.1:8081", True)
    assert not read_address({"bind": "192.0.2.1"}, USUAL).is_loopback


@pytest.mark.parametrize(
    ("bind", "near"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.1", "192.0.2.1"), ("::1", "::1")],  # noqa: S104  as it is said
)
def test_this_host_reaches_what_listens_everywhere_on_loopback(bind: str, near: str) -> None:
    assert Address(bind, 1).near == near
