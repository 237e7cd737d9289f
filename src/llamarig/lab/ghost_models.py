"""Published models: what their makers' configurations say, as the keys that a converted GGUF file has.

Sources: each maker's ``config.json``, as the defaults of ``configuration_*.py`` in transformers and the headers that
llama.cpp prints in public reports repeat it; keys as ``conversion/*.py`` of llama.cpp writes them. ``parameters`` is
what the maker (or the file's listing) says, in billions: of the text model alone, and of the file, so without vision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from llamarig.config.shape import MetadataValue
from llamarig.lab.ghost_mixes import Mix, dynamic
from llamarig.lab.ghost_tensors import Header

GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Published:
    """A model as its maker published it.

    Attributes:
        name: as the catalogue and people say it.
        header: what decides its tensors.
        parameters: how many it is said to have, in billions.
        mixes: types of its own quantisations, beside those that any model can have.
        sizes: bytes that published files of a quantisation have, where somebody said so.

    """

    name: str
    header: Header
    parameters: float
    mixes: Mapping[str, Mix] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


def _metadata(
    blocks: int,
    width: int,
    forward: int | list[int],
    context: int,
    heads: int,
    heads_kv: int | list[int],
    head: int | None = None,
    **more: MetadataValue,
) -> dict[str, MetadataValue]:
    """Put keys together; in the names of further ones ``__`` stands for a dot."""
    metadata: dict[str, MetadataValue] = {
        "block_count": blocks,
        "context_length": context,
        "embedding_length": width,
        "feed_forward_length": forward,
        "attention.head_count": heads,
        "attention.head_count_kv": heads_kv,
    }
    if head:
        metadata |= {"attention.key_length": head, "attention.value_length": head, "rope.dimension_count": head}
    metadata |= {"attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6}
    return metadata | {key.replace("__", "."): value for key, value in more.items()}


def _moe(count: int, used: int, forward: int, **more: MetadataValue) -> dict[str, MetadataValue]:
    return {"expert_count": count, "expert_used_count": used, "expert_feed_forward_length": forward, **more}


def _mla(query: int, latent: int, rotated: int, key: int, value: int) -> dict[str, MetadataValue]:
    """Put the keys of MLA together; ``key`` and ``value`` are those of a head before compression."""
    ranks: dict[str, MetadataValue] = {"attention.q_lora_rank": query} if query else {}
    return ranks | {
        "attention.kv_lora_rank": latent,
        "attention.key_length": latent + rotated,
        "attention.value_length": latent,
        "attention.key_length_mla": key,
        "attention.value_length_mla": value,
        "rope.dimension_count": rotated,
    }


def _delta(values: int, groups: int = 16, state: int = 128) -> dict[str, MetadataValue]:
    """Put the keys of a gated delta net together: heads of values, heads of keys, width of a head."""
    return {
        "ssm.conv_kernel": 4,
        "ssm.state_size": state,
        "ssm.group_count": groups,
        "ssm.time_step_rank": values,
        "ssm.inner_size": values * state,
        "full_attention_interval": 4,
        "rope.dimension_count": 64,
        "rope.freq_base": 1e7,
    }


def _ssm(heads: int, head: int, state: int, groups: int) -> dict[str, MetadataValue]:
    """Put the keys of Mamba 2 together."""
    return {
        "ssm.conv_kernel": 4,
        "ssm.state_size": state,
        "ssm.group_count": groups,
        "ssm.time_step_rank": heads,
        "ssm.inner_size": heads * head,
    }


_QWEN3_VOCABULARY: Final = 151936
_QWEN35: Final[dict[str, MetadataValue]] = {"rope.dimension_sections": [11, 11, 10, 0]}


def _qwen35(blocks: int, width: int, heads: int, values: int, experts: dict[str, MetadataValue], **more: int) -> Header:
    metadata = _metadata(blocks, width, more.get("forward", 0), 262144, heads, more.get("heads_kv", 2), 256)
    if experts:
        del metadata["feed_forward_length"]
    return Header("qwen35moe" if experts else "qwen35", metadata | _delta(values) | _QWEN35 | experts, 248320)


def _pattern(count: int, period: int) -> list[bool]:
    """List which blocks have a window: all but each ``period``-th."""
    return [(block + 1) % period != 0 for block in range(count)]


def _qwen3_next() -> Header:
    metadata = _metadata(48, 2048, 5120, 262144, 16, 2, 256) | _delta(32)
    return Header(
        "qwen3next",
        metadata | _moe(512, 10, 512, expert_shared_feed_forward_length=512),
        _QWEN3_VOCABULARY,
    )


def _gemma4(blocks: int, width: int, forward: int, heads: int, kv: tuple[int, int], **more: MetadataValue) -> Header:
    """Build Gemma 4: windowed blocks with narrow heads, each sixth block full, with wide ones."""
    pattern = _pattern(blocks, 6)
    metadata = _metadata(blocks, width, forward, 262144, heads, [kv[0] if near else kv[1] for near in pattern], 512)
    windows: dict[str, MetadataValue] = {
        "attention.key_length_swa": 256,
        "attention.value_length_swa": 256,
        "rope.dimension_count_swa": 256,
        "attention.sliding_window": 1024,
        "attention.sliding_window_pattern": pattern,
        "attention.shared_kv_layers": 0,
        "embedding_length_per_layer_input": 0,
        "final_logit_softcapping": 30.0,
    }
    return Header("gemma4", metadata | windows | more, 262144, tied=True, rope_factors=256)


def _nemotron_3_nano() -> Header:
    layout = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
    metadata = _metadata(
        len(layout),
        2688,
        [1856 if kind == "E" else 0 for kind in layout],
        1048576,
        32,
        [2 if kind == "*" else 0 for kind in layout],
        128,
        attention__layer_norm_epsilon=1e-5,
    )
    experts = _moe(
        128,
        6,
        1856,
        expert_shared_count=1,
        expert_shared_feed_forward_length=3712,
        expert_weights_norm=True,
        expert_weights_scale=2.5,
    )
    return Header("nemotron_h_moe", metadata | experts | _ssm(64, 64, 128, 8), 131072)


def _granite_hybrid(width: int, heads: int, kv: int, ssm_heads: int, experts: dict[str, MetadataValue]) -> Header:
    """Build Granite 4.0 H: one block of attention in ten, the sixth."""
    blocks = 40
    metadata = _metadata(
        blocks,
        width,
        experts["expert_feed_forward_length"],  # type: ignore[arg-type]
        1048576,
        heads,
        [kv if block % 10 == 5 else 0 for block in range(blocks)],  # noqa: PLR2004  layer_types of the config
        width // heads,
        rope__scaling__finetuned=False,
    )
    return Header("granitehybrid", metadata | experts | _ssm(ssm_heads, 64, 128, 1), 100352, tied=True)


def _lfm2_8b() -> Header:
    attention = {2, 6, 10, 14, 18, 21}
    metadata = _metadata(24, 2048, 7168, 128000, 32, [8 if block in attention else 0 for block in range(24)])
    experts = _moe(32, 4, 1792, leading_dense_block_count=2, expert_gating_func=2)
    return Header("lfm2moe", metadata | experts | {"shortconv.l_cache": 3}, 65536, tied=True)


def _kimi_linear() -> Header:
    full = {3, 7, 11, 15, 19, 23, 26}
    metadata = _metadata(27, 2304, 9216, 1048576, 32, [1 if block in full else 0 for block in range(27)])
    experts = _moe(
        256,
        8,
        1024,
        expert_shared_count=1,
        leading_dense_block_count=1,
        expert_weights_scale=2.446,
        expert_gating_func=2,
    )
    linear: dict[str, MetadataValue] = {"ssm.conv_kernel": 4, "kda.head_dim": 128}
    return Header("kimi-linear", metadata | _mla(0, 512, 64, 192, 128) | experts | linear, 163840)


def _deepseek(blocks: int, width: int, heads: int, lead: int, forward: int, **more: Any) -> Header:
    metadata = _metadata(blocks, width, forward, more["context"], heads, 1)
    experts = _moe(
        *more["experts"],
        expert_shared_count=1,
        leading_dense_block_count=lead,
        expert_weights_norm=True,
        expert_weights_scale=more.get("scale", 1.0),
        expert_gating_func=more.get("gating", 2),
    )
    architecture = more.get("architecture", "deepseek2")
    return Header(architecture, metadata | _mla(*more["mla"]) | experts | more.get("rope", {}), more["vocabulary"])


def _gpt_oss(blocks: int, experts: int) -> Header:
    metadata = _metadata(blocks, 2880, 2880, 131072, 64, 8, 64, rope__freq_base=150000.0)
    window: dict[str, MetadataValue] = {
        "attention.sliding_window": 128,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 32.0,
        "rope.scaling.original_context_length": 4096,
    }
    return Header("gpt-oss", metadata | window | _moe(experts, 4, 2880), 201088)


def _with_next_tokens(header: Header, count: int = 1) -> Header:
    """Append blocks that predict further tokens (MTP)."""
    metadata = dict(header.metadata) | {"block_count": header.blocks + count, "nextn_predict_layers": count}
    for key, value in metadata.items():
        if isinstance(value, list) and len(value) == header.blocks:
            metadata[key] = [*value, *[value[-1]] * count]
    return replace(header, metadata=metadata)


_GLM_45_AIR: Final = Header(
    "glm4moe",
    _metadata(46, 4096, 10944, 131072, 96, 8, 128, rope__dimension_count=64)
    | _moe(
        128,
        8,
        1408,
        expert_shared_count=1,
        leading_dense_block_count=1,
        expert_weights_norm=True,
        expert_weights_scale=1.0,
        expert_gating_func=2,
    ),
    151552,
)
_GLM_47_FLASH: Final = _deepseek(
    47,
    2048,
    20,
    1,
    10240,
    context=202752,
    experts=(64, 4, 1536),
    mla=(768, 512, 64, 256, 256),
    scale=1.8,
    vocabulary=154880,
)
_QWEN35_EXPERTS: Final = _moe(256, 8, 512, expert_shared_feed_forward_length=512)
_QWEN35_35B: Final = _qwen35(40, 2048, 16, 32, _QWEN35_EXPERTS)
_QWEN35_122B: Final = _qwen35(48, 3072, 32, 64, _moe(256, 8, 1024, expert_shared_feed_forward_length=1024))
_QWEN35_27B: Final = _qwen35(64, 5120, 24, 48, {}, forward=17408, heads_kv=4)
_LLAMA3: Final = {"rope__freq_base": 500000.0, "attention__layer_norm_rms_epsilon": 1e-5}

MODELS: Final = (
    # Dense, grouped-query attention.
    Published(
        "llama-3.1-8b",
        Header("llama", _metadata(32, 4096, 14336, 131072, 32, 8, 128, **_LLAMA3), 128256, rope_factors=64),
        8.03,
    ),
    Published(
        "llama-3.3-70b",
        Header("llama", _metadata(80, 8192, 28672, 131072, 64, 8, 128, **_LLAMA3), 128256, rope_factors=64),
        70.55,
    ),
    Published(
        "llama-3.2-3b",
        Header("llama", _metadata(28, 3072, 8192, 131072, 24, 8, 128, **_LLAMA3), 128256, tied=True, rope_factors=64),
        3.21,
    ),
    Published("qwen3-4b", Header("qwen3", _metadata(36, 2560, 9728, 262144, 32, 8, 128), 151936, tied=True), 4.02),
    Published("qwen3-32b", Header("qwen3", _metadata(64, 5120, 25600, 40960, 64, 8, 128), 151936), 32.76),
    Published("qwen2.5-coder-32b", Header("qwen2", _metadata(64, 5120, 27648, 32768, 40, 8, 128), 152064), 32.76),
    Published("mistral-small-3.2-24b", Header("llama", _metadata(40, 5120, 32768, 131072, 32, 8, 128), 131072), 23.57),
    Published(
        "devstral-small-2-24b",
        Header(
            "mistral3",
            _metadata(
                40,
                5120,
                32768,
                393216,
                32,
                8,
                128,
                attention__temperature_scale=0.1,
                rope__scaling__type="yarn",
                rope__scaling__factor=48.0,
                rope__scaling__original_context_length=8192,
                rope__scaling__yarn_log_multiplier=1.0,
            ),
            131072,
        ),
        23.57,
    ),
    Published("phi-4", Header("phi3", _metadata(40, 5120, 17920, 16384, 40, 10, 128), 100352), 14.66),
    Published("smollm3-3b", Header("smollm3", _metadata(36, 2048, 11008, 65536, 16, 4, 128), 128256, tied=True), 3.08),
    Published("seed-oss-36b", Header("seed_oss", _metadata(64, 5120, 27648, 524288, 80, 8, 128), 155136), 36.15),
    Published(
        "command-r-35b",
        Header(
            "command-r",
            _metadata(40, 8192, 22528, 131072, 64, 64, 128, attention__layer_norm_epsilon=1e-5, logit_scale=0.0625),
            256000,
            tied=True,
        ),
        34.98,
    ),
    # Windows.
    Published(
        "command-r7b",
        Header(
            "cohere2",
            _metadata(
                32,
                4096,
                14336,
                8192,
                32,
                8,
                128,
                attention__layer_norm_epsilon=1e-5,
                attention__sliding_window=4096,
                logit_scale=0.25,
            ),
            256000,
            tied=True,
        ),
        8.03,
    ),
    Published(
        "gemma-2-27b",
        Header(
            "gemma2",
            _metadata(
                46,
                4608,
                36864,
                8192,
                32,
                16,
                128,
                attention__sliding_window=4096,
                attn_logit_softcapping=50.0,
                final_logit_softcapping=30.0,
            ),
            256000,
            tied=True,
        ),
        27.23,
    ),
    Published(
        "gemma-3-12b",
        Header(
            "gemma3",
            _metadata(48, 3840, 15360, 131072, 16, 8, 256, attention__sliding_window=1024),
            262144,
            tied=True,
        ),
        11.77,
    ),
    Published(
        "gemma-3-27b",
        Header(
            "gemma3",
            _metadata(62, 5376, 21504, 131072, 32, 16, 128, attention__sliding_window=1024),
            262144,
            tied=True,
        ),
        27.01,
    ),
    Published("gemma-4-31b", _gemma4(60, 5376, 21504, 32, (16, 4)), 30.7),
    Published(
        "gemma-4-26b-a4b",
        _gemma4(30, 2816, 2112, 16, (8, 2), **_moe(128, 8, 704)),
        25.2,
    ),
    Published(
        "olmo-3-32b",
        Header(
            "olmo2",
            _metadata(
                64,
                5120,
                27648,
                65536,
                40,
                8,
                128,
                attention__sliding_window=4096,
                attention__sliding_window_pattern=_pattern(64, 4),
            ),
            100278,
        ),
        32.23,
    ),
    Published(
        "exaone-4.0-32b",
        Header("exaone4", _metadata(64, 5120, 27392, 131072, 40, 8, 128, attention__sliding_window=4096), 102400),
        32.0,
    ),
    # Experts.
    Published(
        "mixtral-8x7b",
        Header(
            "llama", _metadata(32, 4096, 14336, 32768, 32, 8, 128) | {"expert_count": 8, "expert_used_count": 2}, 32000
        ),
        46.7,
    ),
    Published(
        "qwen3-30b-a3b",
        Header("qwen3moe", _metadata(48, 2048, 6144, 262144, 32, 4, 128) | _moe(128, 8, 768), 151936),
        30.53,
    ),
    Published(
        "qwen3-235b-a22b",
        Header("qwen3moe", _metadata(94, 4096, 12288, 262144, 64, 4, 128) | _moe(128, 8, 1536), 151936),
        235.09,
    ),
    Published("gpt-oss-20b", _gpt_oss(24, 32), 20.91),
    Published("gpt-oss-120b", _gpt_oss(36, 128), 116.83, sizes={"mxfp4-f16": 61 * GIB}),
    Published("glm-4.5-air", _with_next_tokens(_GLM_45_AIR), 110.0),
    Published(
        "minimax-m2",
        Header(
            "minimax-m2",
            _metadata(62, 3072, 1536, 196608, 48, 8, 128, rope__dimension_count=64)
            | _moe(256, 8, 1536, expert_gating_func=2),
            200064,
        ),
        228.7,
    ),
    Published(
        "llama-4-scout",
        Header(
            "llama4",
            _metadata(48, 5120, 16384, 10485760, 40, 8, 128, **_LLAMA3)
            | _moe(16, 1, 8192, interleave_moe_layer_step=1),
            202048,
            rope_factors=64,
        ),
        107.77,
    ),
    Published(
        "ernie-4.5-21b-a3b",
        Header(
            "ernie4_5-moe",
            _metadata(28, 2560, 12288, 131072, 20, 4, 128)
            | _moe(
                64,
                6,
                1536,
                expert_shared_count=2,
                expert_shared_feed_forward_length=3072,
                leading_dense_block_count=1,
                interleave_moe_layer_step=1,
            ),
            103424,
            tied=True,
        ),
        21.83,
    ),
    Published(
        "hunyuan-a13b",
        Header(
            "hunyuan-moe",
            _metadata(32, 4096, 3072, 262144, 32, 8, 128)
            | _moe(64, 8, 3072, expert_shared_count=1, expert_shared_feed_forward_length=3072),
            128167,
            tied=True,
        ),
        80.39,
    ),
    # Multi-head latent attention.
    Published("glm-4.7-flash", _GLM_47_FLASH, 29.94, sizes={"q8_0": 30 * GIB, "q4_k_m": 18 * 10**9}),
    Published(
        "deepseek-v3",
        _deepseek(
            61,
            7168,
            128,
            3,
            18432,
            context=163840,
            experts=(256, 8, 2048),
            mla=(1536, 512, 64, 192, 128),
            scale=2.5,
            vocabulary=129280,
        ),
        671.03,
    ),
    Published(
        "kimi-k2",
        _deepseek(
            61,
            7168,
            64,
            1,
            18432,
            context=262144,
            experts=(384, 8, 2048),
            mla=(1536, 512, 64, 192, 128),
            scale=2.827,
            vocabulary=163840,
        ),
        1026.4,
    ),
    Published(
        "mistral-small-4-119b",
        _deepseek(
            36,
            4096,
            32,
            0,
            12288,
            architecture="mistral4",
            context=1048576,
            experts=(128, 4, 2048),
            mla=(1024, 256, 64, 128, 128),
            gating=1,
            rope={
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 128.0,
                "rope.scaling.original_context_length": 8192,
                "attention.temperature_scale": 0.1,
                "attention.temperature_length": 8192,
            },
            vocabulary=131072,
        ),
        119.0,
        mixes={"ud-q3_k_xl": dynamic("q3_k", "q4_k")},
        sizes={"ud-q3_k_xl": 56 * 10**9},
    ),
    # States beside attention.
    Published(
        "qwen3-next-80b",
        _qwen3_next(),
        79.67,
        mixes={"ud-q5_k_xl": dynamic("q5_k", "q6_k")},
        sizes={"q8_0": round(84.8e9), "ud-q5_k_xl": 53 * GIB},
    ),
    Published(
        "qwen3-coder-next",
        _qwen3_next(),
        79.67,
        mixes={"ud-q5_k_xl": dynamic("q5_k", "q8_0"), "ud-q6_k_xl": dynamic("q6_k", "q8_0")},
        sizes={"ud-q5_k_xl": 57 * GIB, "ud-q6_k_xl": 64 * GIB},
    ),
    Published(
        "qwen3.5-35b-a3b",
        _QWEN35_35B,
        34.66,
        mixes={"ud-q6_k_xl": dynamic("q6_k", "q8_0", embeddings="bf16")},
        sizes={"q6_k": 27 * GIB, "q8_0": round(36.9e9), "ud-q6_k_xl": 29 * GIB},
    ),
    Published("qwen3.5-35b-a3b-mtp", _with_next_tokens(_QWEN35_35B), 35.5),
    Published(
        "qwen3.5-122b-a10b",
        _QWEN35_122B,
        122.1,
        mixes={"ud-q4_k_xl": dynamic("q4_k", rest="q5_k")},
        sizes={"q8_0": round(129.9e9), "ud-q4_k_xl": 65 * GIB},
    ),
    Published("qwen3.5-122b-a10b-mtp", _with_next_tokens(_QWEN35_122B), 124.6),
    Published(
        "qwen3.5-27b",
        _QWEN35_27B,
        26.9,
        mixes={"ud-q6_k_xl": Mix("q6_k", rules={r"attn_|ssm_": "q8_0"})},
        sizes={"q8_0": round(28.6e9), "ud-q6_k_xl": 22 * GIB},
    ),
    Published("nemotron-3-nano-30b-a3b", _nemotron_3_nano(), 31.58),
    Published(
        "granite-4.0-h-small",
        _granite_hybrid(4096, 32, 8, 128, _moe(72, 10, 768, expert_shared_feed_forward_length=1536)),
        32.2,
    ),
    Published(
        "granite-4.0-h-tiny",
        _granite_hybrid(1536, 12, 4, 48, _moe(64, 6, 512, expert_shared_feed_forward_length=1024)),
        6.94,
    ),
    Published(
        "falcon-h1-34b",
        Header("falcon-h1", _metadata(72, 5120, 21504, 262144, 20, 4, 128) | _ssm(32, 128, 256, 2), 261120),
        33.64,
    ),
    Published("lfm2-8b-a1b", _lfm2_8b(), 8.34),
    Published("kimi-linear-48b", _kimi_linear(), 49.1),
)
