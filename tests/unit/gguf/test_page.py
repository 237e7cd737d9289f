"""The limits that docs/explanation/gguf.md states are those of the code."""

from __future__ import annotations

import inspect
import re

import pytest

from llamarig.gguf import header, model, remote
from tests.support import ROOT

PAGE = (ROOT / "docs/explanation/gguf.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([^|]+) \| (\d+(?: MiB)?) \|$", PAGE, re.MULTILINE))


@pytest.mark.parametrize(
    ("row", "limit"),
    [
        ("bytes of the header", f"{header._MOST_BYTES >> 20} MiB"),
        ("keys", header._MOST_KEYS),
        ("tensors, in all parts", header.MOST_TENSORS),
        ("entries of a list", header._MOST_ENTRIES),
        ("numbers kept of one list", header._LONGEST_LIST),
        ("bytes kept of a text", header._LONGEST_TEXT),
        ("parts", model._MOST_PARTS),
    ],
)
def test_a_limit_on_the_page_is_the_codes(row: str, limit: int | str) -> None:
    assert ROWS[row] == str(limit)


def test_the_page_says_how_long_a_server_may_take() -> None:
    patience = inspect.signature(remote.HttpSource).parameters["patience"].default
    assert f"may take {patience} seconds" in " ".join(PAGE.split())
    assert f"Ranges of {remote._FIRST_RANGE >> 20} MiB" in PAGE
    assert f"up to {remote._LARGEST_RANGE >> 20} MiB" in PAGE
    assert f"versions {header._VERSIONS[0]} and {header._VERSIONS[1]}" in PAGE
