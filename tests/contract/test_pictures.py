"""Pictures in the documents are those that the command and the dashboard draw today."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from llamarig.control.docs_pictures import PICTURES, pictures
from llamarig.control.generated import outdated
from tests.contract.tree import ROOT
from tests.unit.api.page_picture import PATH

# What a browser shows is drawn by one, and not compared.
PAGE = str(PATH.relative_to(ROOT))


def test_every_picture_is_up_to_date() -> None:
    assert outdated(pictures()) == [], "run: .venv/bin/python -m llamarig.control.docs_pictures"


def test_no_picture_is_left_over() -> None:
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "docs/pictures").iterdir()} == {*PICTURES, PAGE}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_needs_nothing_from_elsewhere_and_has_words(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    root = ET.fromstring(text)  # noqa: S314  its own file
    assert root.findtext("{http://www.w3.org/2000/svg}desc")
    # Words may name an address; nothing may lead to one.
    assert [value for element in root.iter() for value in element.attrib.values() if "//" in value] == []
    assert not re.search(r"<(script|image|use|foreignObject)\b|@import|url\((?!#)", text)


@pytest.mark.parametrize("name", [*PICTURES, PAGE])
def test_a_picture_is_shown_with_words_in_its_place(name: str) -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    shown = re.findall(rf"!\[([^\]]*)\]\([./]*{re.escape(name.removeprefix('docs/'))}\)", pages)
    assert shown
    assert all(len(words.split()) > 3 for words in shown)
