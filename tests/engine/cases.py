"""What is tried: published models, devices of unequal memory, strategies and settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llamarig.config.records import Strategy
from llamarig.planning.layout import Settings

# An RTX 4090 and an RTX 5070 Ti, as far as memory goes.
TWO: Final = (24576, 16384)
LARGE: Final = (98304, 81920)
USUAL: Final = Settings(context=32768)


@dataclass(frozen=True, slots=True)
class Case:
    """One model on these devices.

    Attributes:
        kind: what is special about it; the table is ordered by it.
        blocks: of a layout of its own, for each device.
        short: keep only so many of the model's blocks, so that it can be loaded.

    """

    kind: str
    model: str
    mix: str
    strategy: Strategy = Strategy.AUTO
    devices: tuple[int, ...] = TWO
    settings: Settings = USUAL
    blocks: tuple[int, ...] | None = None
    short: int | None = None

    @property
    def file(self) -> str:
        """Name of the ghost's file."""
        return f"{self.model}.{self.mix}{f'.{self.short}' if self.short else ''}.gguf"

    @property
    def name(self) -> str:
        """Say what it is, in a word that is its own."""
        own = self.settings
        said = [self.model, self.mix, self.strategy.value, f"c{own.context // 1024}k"]
        said += (
            [f"np{own.parallel}"] * (own.parallel > 1)
            + ["kvu"] * own.unified
            + [f"ub{own.ubatch}"] * (own.ubatch != 512)
        )
        said += [own.type_k] * (own.type_k != "f16") + ["fa-off"] * (not own.flash_attention)
        said += ["swa-full"] * own.swa_full + ["no-kvo"] * (not own.kv_offload) + ["mtp"] * own.mtp
        said += [f"{len(self.devices)}gpu"] * (len(self.devices) != 2) + ["x".join(map(str, self.blocks or ()))] * bool(
            self.blocks
        )
        return "-".join(said)


def _with(**changes: object) -> Settings:
    return Settings(**{"context": 32768, **changes})  # type: ignore[arg-type]  # one literal for each case


Q8: Final = {"type_k": "q8_0", "type_v": "q8_0"}
A, B, C, D, CPU = Strategy.A, Strategy.B, Strategy.C, Strategy.D, Strategy.CPU

ESTIMATES: Final = (
    # dense, grouped queries
    Case("dense", "llama-3.1-8b", "q8_0"),
    Case("dense", "llama-3.1-8b", "f16", B, (8192, 12288)),
    Case("dense", "llama-3.1-8b", "q4_k_m", A, (16384,), _with(context=131072, **Q8)),
    Case("dense", "llama-3.1-8b", "q4_k_m", CPU, (), _with(context=16384)),
    Case("dense", "llama-3.3-70b", "q4_k_m", settings=_with(context=16384)),
    Case("dense", "llama-3.3-70b", "q4_k_m", B, (24576, 16384, 24576), _with(context=65536, **Q8)),
    Case("dense", "qwen3-32b", "q4_k_m", settings=_with(context=40960)),
    Case("dense", "qwen2.5-coder-32b", "q4_k_m", settings=_with(ubatch=2048)),
    Case("dense", "mistral-small-3.2-24b", "q4_k_m", settings=_with(context=131072, **Q8)),
    Case("dense", "devstral-small-2-24b", "q8_0", B),
    Case("dense", "phi-4", "q8_0", settings=_with(context=16384, parallel=4)),
    Case("dense", "seed-oss-36b", "q4_k_m", settings=_with(context=65536)),
    Case("dense", "command-r-35b", "q4_k_m", B, settings=_with(context=16384)),
    Case("dense", "llama-3.3-70b", "q4_k_m", B, settings=_with(context=65536, **Q8)),
    # tied embeddings
    Case("tied embeddings", "qwen3-4b", "q6_k", CPU, (), _with(context=131072, **Q8)),
    Case("tied embeddings", "llama-3.2-3b", "f16", A, (12288,)),
    Case("tied embeddings", "qwen3-4b", "q8_0", B, (4096, 6144), _with(context=40960)),
    Case("tied embeddings", "smollm3-3b", "f16", CPU, ()),
    # a window in some layers
    Case("sliding window", "gemma-3-27b", "q4_k_m", settings=_with(context=131072)),
    Case("sliding window", "gemma-3-12b", "q8_0", B, (8192, 12288), _with(parallel=4)),
    Case("sliding window", "gemma-3-12b", "q4_k_m", A, (24576,), _with(swa_full=True)),
    Case("sliding window", "gemma-2-27b", "q4_k_m", settings=_with(context=8192)),
    Case("sliding window", "command-r7b", "q8_0", A, (16384,), _with(context=65536)),
    Case("sliding window", "exaone-4.0-32b", "q4_k_m", settings=_with(context=65536)),
    Case("sliding window", "olmo-3-32b", "q4_k_m", settings=_with(context=65536)),
    Case("sliding window", "gemma-4-31b", "q4_k_m"),
    Case("sliding window, MoE", "gpt-oss-20b", "mxfp4-f16", settings=_with(context=131072)),
    Case("sliding window, MoE", "gpt-oss-120b", "mxfp4-f16", settings=_with(context=131072)),
    Case("sliding window, MoE", "gpt-oss-120b", "mxfp4-f16", D, settings=_with(context=10240, **Q8), blocks=(13, 5)),
    Case("sliding window, MoE", "gemma-4-26b-a4b", "q4_k_m", C, (8192, 12288)),
    Case("sliding window, MoE", "llama-4-scout", "q4_k_m", settings=_with(context=65536)),
    # experts
    Case("MoE", "qwen3-30b-a3b", "q8_0", settings=_with(context=65536)),
    Case("MoE", "qwen3-30b-a3b", "q8_0", C, (16384, 24576)),
    Case("MoE", "qwen3-30b-a3b", "q4_k_m", D, (8192, 6144), _with(ubatch=2048)),
    Case("MoE", "qwen3-30b-a3b", "q4_k_m", D, (12288,), _with(parallel=4)),
    Case("MoE", "qwen3-235b-a22b", "q4_k_m", settings=_with(context=16384)),
    Case("MoE", "mixtral-8x7b", "q4_k_m"),
    Case("MoE", "minimax-m2", "q4_k_m", D, LARGE, _with(context=131072)),
    Case("MoE, shared experts", "hunyuan-a13b", "q4_k_m"),
    Case("MoE, shared experts", "ernie-4.5-21b-a3b", "q8_0", C, (16384, 12288)),
    Case("MoE, MTP layer", "glm-4.5-air", "q4_k_m", settings=_with(context=65536)),
    Case("MoE, MTP layer", "glm-4.5-air", "q4_k_m", D, (24576, 16384, 16384)),
    # MLA
    Case("MLA", "glm-4.7-flash", "q8_0", settings=_with(context=131072, **Q8)),
    Case("MLA", "glm-4.7-flash", "q8_0", C, blocks=(35, 12), settings=_with(context=10240, **Q8)),
    Case("MLA", "glm-4.7-flash", "q4_k_m", A, (24576,), _with(context=131072)),
    Case("MLA", "deepseek-v3", "q4_k_m", D, LARGE, _with(context=65536)),
    Case("MLA", "kimi-k2", "q4_k_m", D, (81920, 81920, 98304, 98304), _with(context=131072)),
    Case("MLA", "mistral-small-4-119b", "ud-q3_k_xl", settings=_with(context=131072)),
    # recurrent layers beside attention
    Case("hybrid", "qwen3-coder-next", "ud-q5_k_xl", settings=_with(context=262144)),
    Case("hybrid", "qwen3-coder-next", "ud-q6_k_xl", D, settings=_with(context=10240, **Q8), blocks=(16, 8)),
    Case("hybrid", "qwen3-next-80b", "ud-q5_k_xl", settings=_with(parallel=4)),
    Case("hybrid", "qwen3.5-35b-a3b", "ud-q6_k_xl", settings=_with(context=262144, **Q8)),
    Case("hybrid", "qwen3.5-122b-a10b", "ud-q4_k_xl", settings=_with(context=131072)),
    Case("hybrid", "qwen3.5-27b", "ud-q6_k_xl", settings=_with(context=131072, **Q8)),
    Case("hybrid, MTP layer", "qwen3.5-35b-a3b-mtp", "q4_k_m"),
    Case("hybrid", "nemotron-3-nano-30b-a3b", "q4_k_m", settings=_with(context=131072)),
    Case("hybrid", "granite-4.0-h-small", "q4_k_m"),
    Case("hybrid", "lfm2-8b-a1b", "q8_0", B, (6144, 8192)),
    Case("hybrid", "kimi-linear-48b", "q4_k_m"),
    # settings
    Case("flash attention off", "llama-3.1-8b", "q8_0", B, (8192, 8192), _with(context=16384, flash_attention=False)),
    Case("cache on the host", "qwen3-30b-a3b", "q4_k_m", A, (24576,), _with(kv_offload=False)),
    Case("small batches", "qwen3-32b", "q4_k_m", B, settings=_with(ubatch=128, context=16384)),
    Case("large batches", "gpt-oss-20b", "mxfp4-f16", A, (24576,), _with(ubatch=4096, batch=4096)),
)
# Loaded for real, so of few blocks: what llama-server logs of its buffers, and of the place of every tensor.
LOADED: Final = (
    Case("dense", "qwen3-4b", "q4_k_m", A, (4096, 2048), _with(context=8192), short=6),
    Case("dense", "llama-3.1-8b", "q4_k_m", B, (1024, 1024), _with(context=8192), short=6),
    Case("dense", "llama-3.2-3b", "q4_k_m", CPU, (), _with(context=8192), short=4),
    Case("sliding window, MoE", "gpt-oss-20b", "mxfp4-f16", C, (900, 2000), _with(context=16384), short=2),
    Case("MoE", "qwen3-30b-a3b", "q4_k_m", C, (2000, 1100), _with(context=16384), short=6),
    Case("MoE", "qwen3-30b-a3b", "q4_k_m", D, (1300, 1100), _with(context=16384), short=6),
    Case("MLA", "glm-4.7-flash", "q4_k_m", D, (1100, 900), _with(context=16384, **Q8), short=5),
    Case("hybrid", "qwen3.5-35b-a3b", "q4_k_m", D, (1500, 1200), _with(context=16384, parallel=2), short=8),
    Case("unified cache", "qwen3-30b-a3b", "q4_k_m", D, (1300, 1200), _with(parallel=4, unified=True), short=6),
    Case("hybrid, MTP layer", "qwen3.5-35b-a3b-mtp", "q4_k_m", D, (1500, 1300), _with(context=8192), short=6),
)
