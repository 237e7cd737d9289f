"""The options of the pinned llama-server, read from its own recorded ``--help``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

RECORDED: Final = "0.7.0"
_NAMES = re.compile(r"(?P<name>-{1,2}[A-Za-z0-9][A-Za-z0-9.-]*)(?P<more>,\s*)?")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its canonical long name, all its names, and what may follow it."""

    name: str
    names: frozenset[str]
    negations: tuple[str, ...]
    metavar: str
    removed: bool

    @property
    def negation(self) -> str | None:
        """The long name that says no, None where there is none."""
        return next((name for name in self.negations if name.startswith("--no-")), None)

    @property
    def is_switch(self) -> bool:
        """Whether the option takes no value."""
        return not self.metavar

    @property
    def has_words(self) -> bool:
        """Whether ``on`` and ``off`` are values of the option, so that true and false can be said."""
        return "on|off" in self.metavar or "on,off" in self.metavar


def parse_help(text: str) -> dict[str, Option]:
    """Read ``llama-server --help``: every long name without its dashes leads to its option."""
    options: dict[str, Option] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("-") or line.startswith("-----"):
            continue
        names: list[str] = []
        position = 0
        while match := _NAMES.match(line, position):
            names.append(match["name"])
            position = match.end()
            if not match["more"]:
                break
        rest = line[position:]
        metavar = "" if rest.startswith("  ") or not rest.strip() else re.split(r"\s{2,}", rest.strip(), maxsplit=1)[0]
        following = (
            line
            if lines[number + 1 : number + 2] and lines[number + 1].startswith("-")
            else " ".join(lines[number : number + 2])
        )
        long_names = [name for name in names if name.startswith("--")]
        positive = [name for name in long_names if not name.startswith("--no-")]
        canonical = (positive or long_names)[0] if long_names else names[0]
        # The help lists what says no, long and short, after the last long name that says yes.
        tail = names[names.index(positive[-1]) + 1 :] if positive else []
        negations = tuple(tail) if any(name.startswith("--no-") for name in tail) else ()
        option = Option(
            name=canonical,
            names=frozenset(names),
            negations=negations,
            metavar=metavar,
            removed="has been removed" in following,
        )
        for name in names:
            options[name.lstrip("-")] = option
    return options


@cache
def recorded_options(version: str = RECORDED) -> dict[str, Option]:
    """Return the options of an engine whose help is kept in ``data/llama-server-help``."""
    text = files("llamarig").joinpath("data", "llama-server-help", f"{version}.txt").read_text(encoding="utf-8")
    return parse_help(text)


@cache
def recorded_versions() -> frozenset[str]:
    """Return the versions of the engines whose help is kept."""
    kept = files("llamarig").joinpath("data", "llama-server-help")
    return frozenset(item.name.removesuffix(".txt") for item in kept.iterdir())
