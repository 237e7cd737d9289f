"""Whether a candidate takes every option of the host's services: by its own ``--help``, and by its own parser."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Final

from llamarig.config.engine_options import Option
from llamarig.config.spec import Spec

# The key's file is the service's own and no trial's.
_LEFT_OUT: Final = {"--api-key-file"}
_NEAR: Final = 2


def unknown_options(spec: Spec, old: Mapping[str, Option], new: Mapping[str, Option]) -> list[str]:
    """Say which options of a spec a candidate does not take as the old engine does, each with what comes near it.

    Args:
        spec: of the service.
        old: options of the engine that serves, which say what has a value.
        new: options of the candidate.

    """
    found = []
    for word in dict.fromkeys(option[0] for option in pairs(spec.argv, old)):
        known = new.get(word.lstrip("-"))
        if known is None:
            found.append(f"{spec.service}: {word} is unknown to the candidate{_near(word, new)}")
        elif known.removed:
            found.append(f"{spec.service}: {word} was removed from the candidate")
        elif word.lstrip("-") in old and old[word.lstrip("-")].is_switch != known.is_switch:
            now = "takes no value any more" if known.is_switch else "takes a value now"
            found.append(f"{spec.service}: {word} {now}")
    return found


def parse_words(spec: Spec, old: Mapping[str, Option]) -> list[str]:
    """Return arguments with which a server reads every option and value of a spec, and ends without loading."""
    kept = [word for option in pairs(spec.argv, old) if option[0] not in _LEFT_OUT for word in option]
    return [*kept, "--version"]


def pairs(argv: Sequence[str], known: Mapping[str, Option]) -> list[list[str]]:
    """Return each option with its value, as an engine with these options reads them."""
    found: list[list[str]] = []
    words = iter(argv)
    for word in words:
        option = known.get(word.lstrip("-"))
        value = None if option is not None and option.is_switch else next(words, None)
        found.append([word] if value is None else [word, value])
    return found


def parser_said(text: str) -> str:
    """Return the parser's own word on what it refuses: its first line that speaks of an error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error")]
    return (errors or lines[-1:] or ["it says nothing"])[0]


def _near(word: str, new: Mapping[str, Option]) -> str:
    names = sorted({name for option in new.values() for name in option.names if name.startswith("--")})
    close = difflib.get_close_matches(word, names, n=_NEAR, cutoff=0.7)
    return f"; near it is {' or '.join(close)}" if close else ""
