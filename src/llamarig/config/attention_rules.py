"""Which layers of which architecture keep what: the data that ``attention.kinds`` interprets.

From llama.cpp's ``src/models/<architecture>.cpp`` (``load_arch_hparams``) and ``llama_model::create_memory`` in
``src/llama-model.cpp``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Window:
    """Which layers look through a sliding window, and how wide it is.

    ``period`` n: of n layers one attends to everything, the last or, with ``dense_first``, the first; 0: none does.
    The file overrides it by ``attention.sliding_window_pattern``, a period or a list; ``listed``: it must hold a list.

    Attributes:
        keyed: whether the engine heeds the file's pattern.
        when: there is a window ``always``, where its width is ``set`` and not 0, where it is ``not_zero``, or in models
            with ``64_layers``.
        default: its width where the file says none; None where it must.
        fixed: its width whatever the file says.

    """

    period: int = 0
    dense_first: bool = False
    listed: bool = False
    keyed: bool = True
    when: Literal["always", "set", "not_zero", "64_layers"] = "always"
    default: int | None = None
    fixed: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """How an architecture lays out what its layers keep.

    Attributes:
        window: None where every attention layer sees every token.
        mla: the cache holds one compressed key for each token, where the file says ``attention.key_length_mla``.
        recurrent: which layers have a state: none, ``all``, all of them ``beside`` attention, those without KV heads
            (and without feed forward), or all but one of each ``interval``.
        index: which layers own an indexer of sparse attention: none; ``all``; ``types`` by ``attention.indexer.types``,
            all where it is missing; ``glm_types`` the same, with GLM-5.2's own default; ``listed`` which must be there;
            ``optional`` the same, in files that have an indexer; ``after_dense`` those after the leading dense blocks;
            ``attention`` those that attend.
        index_parts: how many vectors of ``attention.indexer.key_length`` it keeps for each token.
        cache: whether the engine keeps a KV cache at all.
        mtp_cached: whether the engine's filter of layers lets the MTP layers into the cache.
        kv_from_start: how many layers from the start own a KV cache, which later ones reuse.

    """

    window: Window | None = None
    mla: bool = False
    recurrent: Literal["no", "all", "beside", "no_kv_heads", "no_kv_heads_no_ff", "interval"] = "no"
    interval: int = 4
    index: Literal["no", "all", "types", "glm_types", "listed", "optional", "after_dense", "attention"] = "no"
    index_parts: int = 1
    cache: bool = True
    mtp_cached: bool = False
    kv_from_start: Literal["all", "20", "shared_kv_layers"] = "all"


def _every(n: int, *, dense_first: bool = False) -> Rule:
    return Rule(window=Window(n, dense_first=dense_first))


def _every_if_set(n: int, *, dense_first: bool = False) -> Rule:
    return Rule(window=Window(n, dense_first=dense_first, when="set"))


_LISTED: Final = Rule(window=Window(listed=True))
_QWEN_HYBRID: Final = Rule(recurrent="interval")
_HYBRID: Final = Rule(recurrent="no_kv_heads", mtp_cached=True)
_MLA: Final = Rule(mla=True)
_KDA_MLA: Final = Rule(mla=True, recurrent="no_kv_heads", mtp_cached=True)
_NEMOTRON_H: Final = Rule(recurrent="no_kv_heads_no_ff", mtp_cached=True)

# Every layer attends to every token (a layer without KV heads, in deci, keeps nothing).
_PLAIN: Final = """
apertus arcee arctic baichuan bailingmoe bailingmoe2 bitnet bloom chameleon chatglm codeshell cogvlm command-r
dbrx deci deepseek deepseek2-ocr dots1 ernie4_5 ernie4_5-moe exaone falcon gemma glm4 glm4moe gpt2 gptneox
granite granitemoe grok grovemoe hrm_text hunyuan-dense hunyuan-moe hunyuan_vl hy_v3 internlm2 jais jais2 llama
llama-embed maincoder minicpm minicpm3 minimax-m2 mistral3 mpt nemotron olmo olmoe openelm orion paddleocr
pangu-embedded phi2 phi3 phimoe plamo plm qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe refact
seed_oss smollm3 stablelm starcoder starcoder2 talkie xverse
"""
# Encoders and diffusion models: the engine keeps no cache.
_NO_CACHE: Final = """
bert dream eurobert jina-bert-v2 jina-bert-v3 llada llada-moe neo-bert nomic-bert nomic-bert-moe rnd1
"""
_RECURRENT: Final = "arwkv7 mamba mamba2 rwkv6 rwkv6qwen2 rwkv7"

RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(_PLAIN.split(), Rule()),
    **dict.fromkeys(_NO_CACHE.split(), Rule(cache=False)),
    "modern-bert": Rule(window=Window(3, dense_first=True, when="set"), cache=False),
    "gemma-embedding": Rule(window=Window(6), cache=False),
    # Sliding windows.
    "afmoe": _every_if_set(4),
    "cohere2": _every(4),
    "cohere2moe": _every(4, dense_first=True),
    "exaone-moe": _every(4),
    "exaone4": Rule(window=Window(4, when="64_layers", default=4096)),
    "gemma2": Rule(window=Window(2, default=4096)),
    "gemma3": _every_if_set(6),
    "gemma3n": Rule(window=Window(5), kv_from_start="20"),
    "gemma4": Rule(window=Window(listed=True), kv_from_start="shared_kv_layers"),
    "gpt-oss": _every(2),
    "granite_swa": _LISTED,
    "laguna": _every_if_set(4, dense_first=True),
    "llama4": Rule(window=Window(4, when="not_zero", fixed=8192)),
    "maple": _LISTED,
    "mellum": _every_if_set(4),
    "mimo2": _LISTED,
    "muse-glimmer": _every(4),
    "olmo2": _every_if_set(4),
    "plamo3": _every_if_set(8),
    "smallthinker": Rule(window=Window(4, dense_first=True, when="set", fixed=4096)),
    "spark2_5": _LISTED,
    "step35": _LISTED,
    # A compressed key for each token.
    "deepseek2": _MLA,
    "mistral4": _MLA,
    "deepseek32": Rule(mla=True, index="all"),
    "glm-dsa": Rule(mla=True, index="glm_types"),
    "hy_v4": Rule(mla=True, index="optional", mtp_cached=True),
    "dots3note": Rule(window=Window(listed=True), mla=True, index="listed"),
    "minimax-m3": Rule(index="after_dense", mtp_cached=True),
    # A state of fixed size.
    **dict.fromkeys(_RECURRENT.split(), Rule(recurrent="all")),
    "falcon-h1": Rule(recurrent="beside"),
    "jamba": _HYBRID,
    "plamo2": _HYBRID,
    "granitehybrid": _HYBRID,
    "lfm2": Rule(window=Window(0, keyed=False, when="set"), recurrent="no_kv_heads", mtp_cached=True),
    "lfm2moe": _HYBRID,
    "nemotron_h": _NEMOTRON_H,
    "nemotron_h_moe": _NEMOTRON_H,
    "qwen3next": _QWEN_HYBRID,
    "qwen35": _QWEN_HYBRID,
    "qwen35moe": _QWEN_HYBRID,
    "qwen4exp": Rule(recurrent="interval", index="attention"),
    "minimax-01": Rule(recurrent="interval", interval=8),
    "kimi-linear": _KDA_MLA,
    "kimi-k3": _KDA_MLA,
    "bailingmoe3": _KDA_MLA,
    "glm5-next": Rule(mla=True, recurrent="no_kv_heads", index="types", index_parts=3),
}

# Known to the engine, but laid out unlike any of the above.
APART: Final[Mapping[str, str]] = {
    "clip": "it is a vision projector, not a language model",
    "deepseek4": "it keeps three compressed caches beside its window",
    "dflash": "it drafts for another model",
    "eagle3": "it drafts for another model",
    "gemma4-assistant": "it drafts for another model, and shares that one's cache",
    "graniteswitch": "it adds a layer for its adapters",
    "nanbeige": "it runs its blocks several times",
    "pockettts": "it makes speech",
    "qwen3tts": "it makes speech",
    "t5": "it is an encoder with a decoder",
    "t5encoder": "it is an encoder with a decoder",
    "wavtokenizer-dec": "it makes speech",
}
