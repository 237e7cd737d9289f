"""From settings to llama-server's argv. Knows the grammar of options, not their meaning."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Final

from llamarig.config.engine_options import Option
from llamarig.config.owned import OWNED
from llamarig.config.records import ServerValue
from llamarig.planning.layers import Setting

# Options of earlier engines that people still know, and what replaced them.
_RENAMED: Final[Mapping[str, str]] = {
    "mmap": "load_mode: mmap",
    "no_mmap": "load_mode: none",
    "mlock": "load_mode: mlock",
    "system_prompt": "a system message in the request (llama-server has no system prompt any more)",
    "draft_max": "spec_draft_n_max",
    "draft_min": "spec_draft_n_min",
    "log_format": "nothing: the log is always JSON lines",
    "defrag_thold": "nothing: the engine ignores it",
}


class BadOptionError(ValueError):
    """A setting that this engine would not take: the message says why, ``remedy`` what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def canonical(key: str, options: Mapping[str, Option]) -> str:
    """Return the engine's canonical name of a setting in snake_case, e.g. ``c`` -> ``ctx_size``.

    Raises:
        BadOptionError: unknown, removed, or owned by the planner.

    """
    if key in _RENAMED:
        msg = f"{key} is no option of this engine any more"
        raise BadOptionError(msg, f"say {_RENAMED[key]}")
    dashed = key.replace("_", "-")
    option = options.get(dashed)
    if option is None:
        near = difflib.get_close_matches(dashed, options, n=3, cutoff=0.6)
        hint = f"did you mean {', '.join(n.replace('-', '_') for n in near)}?" if near else "see llama-server --help"
        msg = f"llama-server has no option --{dashed}"
        raise BadOptionError(msg, hint)
    name = option.name.lstrip("-")
    if name in OWNED:
        msg = f"--{name} cannot be set here: it {OWNED[name]}"
        raise BadOptionError(msg, f"remove {key} from server")
    if option.removed:
        msg = f"--{dashed} has been removed from llama-server"
        raise BadOptionError(msg, "see llama-server --help")
    if {f"-{dashed}", f"--{dashed}"} & set(option.negations):
        msg = f"{key} says a negation as a name"
        raise BadOptionError(msg, f"say {name.replace('-', '_')}: false")
    return name.replace("-", "_")


def argv(settings: Mapping[str, Setting], options: Mapping[str, Option]) -> list[str]:
    """Write the settings as llama-server arguments, in the order given.

    Raises:
        BadOptionError: a value that the option cannot take.

    """
    result: list[str] = []
    for key, setting in settings.items():
        result += _one(key, setting.value, options[key.replace("_", "-")])
    return result


def check_value(key: str, value: ServerValue, option: Option) -> None:
    """Refuse a value that llama-server could not receive.

    Raises:
        BadOptionError: wrong type, or characters no argument can carry.

    """
    if value is not None:
        _one(key, value, option)


def _one(key: str, value: ServerValue, option: Option) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if any("\0" in v for v in values if isinstance(v, str)):
        msg = f"{key} holds a NUL character"
        raise BadOptionError(msg, "no program argument can carry one: remove it")
    if any(not math.isfinite(v) for v in values if isinstance(v, float)):
        msg = f"{key} is no number that can be written down: {value!r}"
        raise BadOptionError(msg, "give a finite number")
    if option.is_switch:
        if not isinstance(value, bool):
            msg = f"{key} is a switch and takes true or false, not {value!r}"
            raise BadOptionError(msg, f"say {key}: true or {key}: false")
        if value:
            return [option.name]
        return [option.negation] if option.negation else []
    if isinstance(value, bool):
        if not option.has_words:
            msg = f"{key} takes a value ({option.metavar}), not {str(value).lower()}"
            raise BadOptionError(msg, f"give a value, or {key}: null to leave it out")
        return [option.name, "on" if value else "off"]
    return [word for v in values for word in (option.name, _text(v))]


def _text(value: str | float | None) -> str:
    return repr(value) if isinstance(value, float) else str(value)
