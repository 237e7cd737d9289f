"""What of the merged settings decides memory, read as the engine reads it."""

from __future__ import annotations

from typing import Any

import pytest

from llamarig.config.records import ServerValue
from llamarig.planning.devices import MIB
from llamarig.planning.layers import BUILT_IN, Setting, merge
from llamarig.planning.layout import Settings
from llamarig.planning.memory import sequence_state
from llamarig.planning.settings import PROCESS_MIB, host_extra, memory_settings, number
from tests.unit.planning.layouts import shape


def merged(**values: ServerValue) -> dict[str, Setting]:
    return {key: Setting(value, "service") for key, value in values.items() if value is not None}


def test_what_the_built_in_layer_says_is_what_is_reckoned_with() -> None:
    assert memory_settings(merge([("built-in", BUILT_IN)]), None) == Settings(8192)


def test_what_nobody_said_is_the_engines_own_default_four_slots_over_one_cache() -> None:
    assert memory_settings({}, None) == Settings(4096, parallel=4, unified=True)
    assert memory_settings({}, shape("qwen3-32b", "q4_k_m")).context == 40960


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"ctx_size": 16384}, {"context": 16384}),
        ({"ctx_size": "16384"}, {"context": 16384}),
        ({"ctx_size": 0}, {"context": 4096}),
        ({"parallel": 1}, {"parallel": 1, "unified": False}),
        ({"parallel": 8}, {"parallel": 8, "unified": False}),
        ({"parallel": 8, "kv_unified": True}, {"parallel": 8, "unified": True}),
        ({"parallel": -1}, {"parallel": 4, "unified": True}),
        ({"parallel": -1, "kv_unified": False}, {"parallel": 4, "unified": False}),
        ({"batch_size": 512}, {"batch": 512, "ubatch": 512}),
        ({"batch_size": 256}, {"batch": 256, "ubatch": 256}),
        ({"ubatch_size": 2048}, {"batch": 2048, "ubatch": 2048}),
        ({"ubatch_size": 4096}, {"batch": 2048, "ubatch": 2048}),
        ({"ubatch_size": 0}, {"batch": 2048, "ubatch": 2048}),
        ({"ubatch_size": -1, "batch_size": 1024}, {"batch": 1024, "ubatch": 1024}),
        ({"cache_type_k": "q8_0", "cache_type_v": "q4_0"}, {"type_k": "q8_0", "type_v": "q4_0"}),
        ({"flash_attn": "off"}, {"flash_attention": False}),
        ({"flash_attn": False}, {"flash_attention": False}),
        ({"flash_attn": "0"}, {"flash_attention": False}),
        ({"flash_attn": "disabled"}, {"flash_attention": False}),
        ({"flash_attn": "auto"}, {"flash_attention": True}),
        ({"flash_attn": True}, {"flash_attention": True}),
        ({"flash_attn": ["on", "off"]}, {"flash_attention": True}),
        ({"swa_full": True}, {"swa_full": True}),
        ({"kv_offload": False}, {"kv_offload": False}),
        ({"op_offload": False}, {"op_offload": False}),
        ({"spec_type": "draft-mtp"}, {"mtp": True}),
        ({"spec_type": "ngram-cache,draft-mtp"}, {"mtp": True}),
        ({"spec_type": "draft-simple"}, {"mtp": False}),
    ],
)
def test_a_setting_is_read_as_the_engine_reads_it(values: dict[str, Any], expected: dict[str, Any]) -> None:
    found = memory_settings(merged(**values), None)
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize("value", [True, "many", [1, 2], ""])
def test_what_is_no_number_is_as_if_nobody_had_said_it(value: ServerValue) -> None:
    assert number(merged(ctx_size=value), "ctx_size", 7) == 7


def test_the_host_holds_the_process_and_the_prompt_cache_beside_the_model() -> None:
    settings = Settings(32768)
    assert host_extra(merged(cache_ram=0), settings, 0) == PROCESS_MIB * MIB
    assert host_extra(merged(cache_ram=1024), settings, 0) == (PROCESS_MIB + 1024) * MIB
    assert host_extra({}, settings, 0) == (PROCESS_MIB + 8192) * MIB


@pytest.mark.parametrize(
    ("values", "settings", "copies"),
    [
        ({}, Settings(32768), 4),
        ({}, Settings(32768, parallel=4), 4),
        ({}, Settings(32768, parallel=4, unified=True), 16),
        ({}, Settings(8191), 0),
        ({}, Settings(1 << 20), 32),
        ({"ctx_checkpoints": 3}, Settings(32768), 3),
        ({"ctx_checkpoints": 0}, Settings(32768), 0),
        ({"checkpoint_min_step": 1024}, Settings(32768), 32),
    ],
)
def test_each_slot_keeps_checkpoints_of_what_cannot_be_rolled_back(
    values: dict[str, Any], settings: Settings, copies: int
) -> None:
    state = sequence_state(shape("qwen3-next-80b", "q4_k_m"), settings)
    assert state > 0
    assert host_extra(merged(cache_ram=0, **values), settings, state) == PROCESS_MIB * MIB + copies * state
