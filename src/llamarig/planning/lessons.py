"""What was learnt the hard way, as checks: settings that load, and then cost speed, memory or answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from llamarig.config.attention import known
from llamarig.config.records import Strategy
from llamarig.config.shape import Shape
from llamarig.planning import memory
from llamarig.planning.devices import MIB
from llamarig.planning.layers import Setting
from llamarig.planning.layout import HOST, Settings
from llamarig.planning.request import Placement
from llamarig.planning.settings import number

# Of the engine's --cache-type-k and --cache-type-v (common/arg.cpp, kv_cache_types).
_CACHE_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_UBATCH: Final = 512
_SHORT: Final = 4096
# Options that take memory which nobody here computes.
_UNCOUNTED: Final = ("moe_cache_mib", "spec_draft_model", "spec_draft_hf", "lora", "lora_scaled", "control_vector")


def refused(strategy: Strategy, settings: Mapping[str, Setting], shape: Shape | None) -> Iterator[tuple[str, str, str]]:
    """Yield settings that must not be: the key, what is wrong, and the remedy."""
    if strategy is Strategy.FIT:
        for key in ("batch_size", "ubatch_size"):
            if key in settings:
                yield (
                    key,
                    "takes memory that --fit needs for weights: the single-GPU seed lost 7 % of its speed to it",
                    f"{key}: null, or another strategy than fit",
                )
    if "slots" in settings and settings["slots"].value is False:
        yield "slots", "false hides whether the engine works: the daemon could not tell one that hangs", "take it out"
    batch, ubatch = _int(settings, "batch_size"), _int(settings, "ubatch_size")
    if batch is not None and batch < 1:
        yield "batch_size", f"{batch} ends the engine while it starts", "512 or more; null for the engine's default"
    if batch is not None and ubatch is not None and ubatch > batch:
        yield (
            "ubatch_size",
            f"{ubatch} is larger than batch_size {batch}",
            "keep ubatch_size at 512: a larger one costs compute buffer on every device",
        )
    yield from _refused_types(settings, shape)
    off = settings["flash_attn"].value if "flash_attn" in settings else "auto"
    value = settings["cache_type_v"].value if "cache_type_v" in settings else "f16"
    if off in (False, "off", "0", "false", "disabled") and value not in ("f16", "f32", "bf16"):
        yield (
            "cache_type_v",
            f"{value} needs flash attention, and flash_attn is off",
            "flash_attn: auto, or cache_type_v: f16",
        )


def _refused_types(settings: Mapping[str, Setting], shape: Shape | None) -> Iterator[tuple[str, str, str]]:
    """Yield types of the cache with which the engine would not start."""
    types = {key: settings[key].value if key in settings else "f16" for key in ("cache_type_k", "cache_type_v")}
    for key, value in types.items():
        if value not in _CACHE_TYPES:
            yield key, f"{value} is no type that a cache can have", f"one of: {', '.join(_CACHE_TYPES)}"
    keys, values = types.values()
    # MLA reads values from its keys (llama_init_from_model).
    if keys != values and shape is not None and shape.metadata.get("attention.key_length_mla"):
        message = f"{values} differs from cache_type_k {keys}, and this model keeps one cache for both"
        yield "cache_type_v", message, f"cache_type_v: {keys}"


def uncounted(settings: Mapping[str, Setting]) -> list[str]:
    """Return the settings that take memory which the prediction does not hold."""
    return [key for key in _UNCOUNTED if key in settings and settings[key].value not in (0, "")]


def warnings(placed: Placement, shape: Shape | None, settings: Mapping[str, Setting], asked: Settings) -> Iterator[str]:
    """Yield what a person should know of settings that are allowed."""
    if shape is None:
        return
    trained = shape.metadata.get("context_length")
    slot = asked.context if asked.unified else asked.context // asked.parallel
    if isinstance(trained, int) and slot > trained > 0:
        yield f"ctx_size gives a slot {slot} tokens, and the model was trained for {trained}"
    if asked.parallel > 1 and not asked.unified and slot < _SHORT:
        yield f"ctx_size {asked.context} is shared by {asked.parallel} slots: a conversation has {slot} tokens"
    if known(shape.architecture):
        states = any(layer.state_elements for layer in memory.layers(shape))
        if states and "context_shift" in settings and settings["context_shift"].value is True:
            yield "context_shift cannot work on recurrent layers: it is refused in the middle of an answer"
    yield from _large_batch(placed, shape, asked)
    if number(settings, "cache_ram", 0) < 0:
        yield "cache_ram without a limit grows until the container's memory is full, and the engine is ended"
    used = {*placed.layout.units, *placed.layout.experts} - {HOST} if placed.layout else set()
    if len(placed.devices) > len(used) > 0:
        yield f"{len(placed.devices)} cards are seen and {len(used)} used: gpus names those that a service needs"
    if placed.strategy in {Strategy.B, Strategy.C, Strategy.D} and len(placed.devices) == 1 and not _on_host(placed):
        yield f"strategy {placed.strategy.value} over one card is strategy A with more words"


def _large_batch(placed: Placement, shape: Shape, asked: Settings) -> Iterator[str]:
    """Say what a larger ubatch costs: it reads prompts faster, and takes room from weights."""
    if asked.ubatch <= _UBATCH or placed.layout is None or placed.memory is None:
        return
    less = memory.predict(shape, placed.layout, replace(asked, ubatch=_UBATCH))
    pairs = zip(placed.memory.devices, less.devices, strict=True)
    costs = [(more.compute + more.cache - fewer.compute - fewer.cache) // MIB for more, fewer in pairs]
    if any(costs):
        yield f"ubatch_size {asked.ubatch} costs {', '.join(map(str, costs))} MiB more on the devices than {_UBATCH}"


def _on_host(placed: Placement) -> bool:
    return placed.layout is not None and bool({-1} & {*placed.layout.units, *placed.layout.experts})


def _int(settings: Mapping[str, Setting], key: str) -> int | None:
    value = settings[key].value if key in settings else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
