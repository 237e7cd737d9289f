"""Settings in layers: built-in < profile < strategy < fleet < service, each value remembering where it came from.

The merge law: a later layer replaces the whole value, ``null`` removes it, names are the engine's
canonical long option in snake_case so that ``c`` and ``ctx_size`` are the same setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from llamarig.config.records import ServerValue

# Every option that decides speed, memory or safety is said, because llama-server's defaults move between
# builds and a stray config.ini fills what is left unsaid (shared facts, llamacpp.md section 1).
BUILT_IN: Final[Mapping[str, ServerValue]] = {
    "batch_size": 2048,
    "cache_ram": 1024,
    "cache_type_k": "f16",
    "cache_type_v": "f16",
    "cont_batching": True,
    "context_shift": False,
    "cors_credentials": False,
    "cors_origins": "localhost",
    "ctx_size": 8192,
    "flash_attn": "auto",
    "jinja": True,
    "kv_unified": False,
    "load_mode": "mmap",
    "metrics": True,
    "offline": True,
    "parallel": 1,
    "slots": True,
    "timeout": 3600,
    "ubatch_size": 512,
    "ui": True,
    "verbosity": 4,
    "warmup": True,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, the layer that had the last word, and what weaker layers had said, the strongest of them first."""

    value: ServerValue
    layer: str
    over: tuple[tuple[str, ServerValue], ...] = ()


def merge(layers: Sequence[tuple[str, Mapping[str, ServerValue]]]) -> dict[str, Setting]:
    """Lay the layers over each other, first the weakest."""
    result: dict[str, Setting] = {}
    for name, values in layers:
        for key, value in values.items():
            before = result.get(key)
            over = ((before.layer, before.value), *before.over) if before else ()
            result[key] = Setting(value, name, over)
    return {key: setting for key, setting in sorted(result.items()) if setting.value is not None}
