from __future__ import annotations

import pytest

from llamarig.dashboard import palette

# Names of colours that the terminal itself has, and how letters may look.
OWN = {"default", "dim", "bold", "reverse", "underline", "red", "green", "yellow", "blue", "magenta", "cyan"}


def test_every_style_is_there_for_few_colours_too_and_uses_only_the_terminal_s_own() -> None:
    assert palette._FEW.keys() == palette._RICH.keys()
    assert {word for look in palette._FEW.values() for word in look.split()} <= OWN
    for name in palette.NAMES:
        assert palette.style(name, few=True) is not None
        assert palette.style(name, few=False) is not None


@pytest.mark.parametrize(
    ("system", "environment", "few"),
    [
        ("truecolor", {}, False),
        ("256", {}, False),
        ("standard", {}, True),
        (None, {}, True),
        ("truecolor", {"NO_COLOR": "1"}, True),
    ],
)
def test_terminals_without_many_colours_get_their_own(
    system: str | None, environment: dict[str, str], few: bool
) -> None:
    assert palette.few_colours(system, environment) is few
