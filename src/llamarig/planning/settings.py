"""What of a server's settings decides memory, read from the merged settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from llamarig.config.records import ServerValue
from llamarig.config.shape import TYPE_BLOCKS, Shape
from llamarig.planning.devices import MIB
from llamarig.planning.layers import Setting
from llamarig.planning.layout import Settings

# llama-server without --parallel: four slots over one cache (llamacpp.md section 1).
_AUTO_SLOTS: Final = 4
_UNSAID_CONTEXT: Final = 4096
# A server with a model of 1 MB holds this much of the host's memory (VmRSS, engine 0.7.0 on the CPU, measured).
PROCESS_MIB: Final = 64
_CHECKPOINTS: Final = 32
_CHECKPOINT_STEP: Final = 8192


def memory_settings(settings: Mapping[str, Setting], shape: Shape | None) -> Settings:
    """Read merged settings; what nobody set is llama-server's own default, a context of 0 the model's own."""
    context = number(settings, "ctx_size", 0)
    if context <= 0:
        trained = shape.metadata.get("context_length") if shape else None
        context = trained if isinstance(trained, int) and trained > 0 else _UNSAID_CONTEXT
    parallel = number(settings, "parallel", -1)
    batch = number(settings, "batch_size", 2048)
    ubatch = number(settings, "ubatch_size", 512)
    return Settings(
        context=context,
        parallel=parallel if parallel > 0 else _AUTO_SLOTS,
        unified=_yes(settings, "kv_unified", default=parallel <= 0),
        batch=batch,
        ubatch=min(ubatch, batch) if ubatch > 0 else batch,  # 0 is batch_size to the engine, and so is what is below
        type_k=_type(settings, "cache_type_k"),
        type_v=_type(settings, "cache_type_v"),
        flash_attention=_value(settings, "flash_attn") not in (False, "off", "0", "false", "disabled"),
        swa_full=_yes(settings, "swa_full", default=False),
        kv_offload=_yes(settings, "kv_offload", default=True),
        op_offload=_yes(settings, "op_offload", default=True),
        mtp="draft-mtp" in str(_value(settings, "spec_type") or ""),
    )


def host_extra(settings: Mapping[str, Setting], memory: Settings, state: int) -> int:
    """Return bytes of the host's memory that are neither weights, cache nor buffers.

    The process itself, the prompt cache up to its limit, and each slot's checkpoints: copies of the ``state`` bytes
    that a sequence has in recurrent layers and sliding windows, every 8192 tokens (``--ctx-checkpoints``).
    """
    cache = max(number(settings, "cache_ram", 8192), 0) * MIB
    most = max(number(settings, "ctx_checkpoints", _CHECKPOINTS), 0)
    apart = max(number(settings, "checkpoint_min_step", _CHECKPOINT_STEP), 1)
    each = memory.context if memory.unified else memory.context // memory.parallel
    return PROCESS_MIB * MIB + cache + memory.parallel * min(most, each // apart) * state


def number(settings: Mapping[str, Setting], key: str, default: int) -> int:
    """Return a setting as a whole number; the default where it is unset or no number."""
    value = _value(settings, key)
    try:
        return default if value is None or isinstance(value, (bool, list)) else int(value)
    except ValueError:
        return default


def _value(settings: Mapping[str, Setting], key: str) -> ServerValue:
    setting = settings.get(key)
    return setting.value if setting else None


def _yes(settings: Mapping[str, Setting], key: str, *, default: bool) -> bool:
    value = _value(settings, key)
    return value if isinstance(value, bool) else default


def _type(settings: Mapping[str, Setting], key: str) -> str:
    value = str(_value(settings, key) or "f16")
    return value if value in TYPE_BLOCKS else "f16"
