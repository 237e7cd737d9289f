"""How many cells a cache has, and how many bytes a row of it: the engine's arithmetic that caches and buffers share."""

from __future__ import annotations

from typing import Final

from llamarig.config.shape import TYPE_BLOCKS
from llamarig.planning.layout import Settings

# Tokens that MTP layers predict at once (--spec-draft-n-max): each keeps a recurrent state of its own to go back to.
DRAFTED: Final = 3
_PAD: Final = 256  # llama_kv_cache::get_padding


def slots(settings: Settings) -> int:
    """Return how many sequences the engine serves side by side."""
    return max(settings.parallel, 1)


def streams(settings: Settings) -> int:
    """Return how many caches stand side by side: one for all slots where it is unified, else one for each."""
    return 1 if settings.unified else slots(settings)


def states(settings: Settings) -> int:
    """Return how many recurrent states, and rows of logits, the slots have: with MTP, also one for each draft."""
    return slots(settings) * (DRAFTED + 1 if settings.mtp else 1)


def cells(settings: Settings, window: int = 0) -> int:
    """Return the cells of each stream, with a window as many as it needs (llama_context, llama_kv_cache_iswa)."""
    found = padded(padded(settings.context) // streams(settings))
    if window and not settings.swa_full:
        seen = window * (slots(settings) if settings.unified else 1)
        found = padded(min(found, seen + min(settings.ubatch, settings.batch)))
    return found


def padded(tokens: int) -> int:
    """Round up to what a cache is made in."""
    return -(-tokens // _PAD) * _PAD


def element_bytes(kind: str, elements: int) -> int:
    """Return the bytes of so many numbers of a type, a row of a cache for example (ggml_row_size)."""
    block, size = TYPE_BLOCKS[kind]
    return elements * size // block
