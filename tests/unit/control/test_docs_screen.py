from __future__ import annotations

import io
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from rich.text import Text

from llamarig.control.docs_dashboard import SCREENS
from llamarig.control.docs_screen import screen_picture

SVG = "{http://www.w3.org/2000/svg}"


def picture(*lines: Text) -> ET.Element:
    """What becomes of these lines of a terminal of 20 columns."""
    console = Console(record=True, width=20, force_terminal=True, color_system="truecolor", file=io.StringIO())
    for text in lines:
        console.print(text)
    return ET.fromstring(screen_picture(console.export_svg(title="t"), "A <title>", "What & why"))  # noqa: S314


def test_every_word_has_its_place_and_its_look() -> None:
    root = picture(Text.assemble(("ab  ", "#ff0000"), ("cd", "bold #00ff00"), " e"))
    words = [text for text in root.iter(f"{SVG}text") if text.get("class") != "name"]
    assert [(text.text, text.get("x"), text.get("fill"), text.get("class")) for text in words] == [
        ("ab", "0", "#ff0000", None),
        ("cd", "33.6", "#00ff00", "bold"),
        ("e", "58.8", words[2].get("fill"), None),
    ]
    assert words[0].get("textLength") == "16.8"


def test_bars_and_frames_are_shapes() -> None:
    root = picture(Text("╭──╮"), Text("│██░│", "#123456"), Text("╰──╯"))
    assert [text.text for text in root.iter(f"{SVG}text")] == ["A <title>"]
    bars = [
        (rect.get("width"), rect.get("fill-opacity")) for rect in root.iter(f"{SVG}rect") if rect.get("fill-opacity")
    ]
    assert bars == [("16.8", "1"), ("8.4", "0.3")]
    assert len(list(root.iter(f"{SVG}path"))) == 4


def test_a_background_is_drawn_and_the_title_and_the_words_for_it_are_safe() -> None:
    root = picture(Text("xy", "#ffffff on #102030"))
    assert "#102030" in {rect.get("fill") for rect in root.iter(f"{SVG}rect")}
    assert root.findtext(f"{SVG}title") == "A <title>"
    assert root.findtext(f"{SVG}desc") == "What & why"


@pytest.mark.parametrize("name", SCREENS)
def test_a_picture_is_the_same_each_time_and_wherever_it_is_drawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    once = SCREENS[name]()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert SCREENS[name]() == once
