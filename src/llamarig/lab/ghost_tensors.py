"""The tensors that the engine wants of an architecture: names and dimensions, computed from a file's own metadata.

Source: ``load_arch_hparams`` and ``load_arch_tensors`` of each file in ``src/models/`` of llama.cpp. Every architecture
here was accepted by llama-fit-params with the models of ``data/lab/ghosts.yml``; another is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from llamarig.lab.ghost_parts import (
    Header,
    Tensors,
    attention,
    delta_net,
    dense,
    experts,
    indexer,
    kimi_delta,
    latent_attention,
    leads,
    mamba,
    norms,
    shared_expert,
)
from llamarig.lab.machine import LabError

# What the engine knows of Gemma 3n without its file (llama-hparams.h).
_ALTUP_INPUTS: Final = 4
_LAUREL_RANK: Final = 64
_GEMMA3N_PER_LAYER: Final = 256
# Makers whose blocks for further tokens bring embeddings and an output of their own.
_OWN_HEADS: Final = {"glm4moe", "deepseek32"}


def tensors(header: Header) -> Tensors:
    """Yield every tensor of a model with its dimensions, the fastest first.

    Raises:
        LabError: an architecture that is not known here, or metadata that lacks what it needs.

    """
    try:
        block = _BLOCKS[header.architecture]
    except KeyError:
        msg = f"the lab knows no tensors of architecture {header.architecture!r}"
        raise LabError(msg, f"it knows {', '.join(sorted(_BLOCKS))}") from None
    width = header.width
    yield "token_embd.weight", (width, header.vocabulary)
    if not header.tied:
        yield "output.weight", (width, header.vocabulary)
    norm = "token_embd_norm" if header.architecture.startswith("lfm2") else "output_norm"
    yield f"{norm}.weight", (width,)
    if header.rope_factors:
        yield "rope_freqs.weight", (header.rope_factors,)
    yield from _per_layer_embeddings(header)
    for number in range(header.blocks):
        for name, dimensions in block(header, number):
            yield f"blk.{number}.{name}", dimensions
        if number >= header.trunk:
            for name, dimensions in _next_tokens(header):
                yield f"blk.{number}.{name}", dimensions


def architectures() -> list[str]:
    """Return the architectures whose tensors are known."""
    return sorted(_BLOCKS)


def _per_layer_embeddings(header: Header) -> Tensors:
    """Yield the second table of embeddings of Gemma 3n and 4, one slice for each block."""
    per_layer = header.number("embedding_length_per_layer_input", default=0)
    if header.architecture == "gemma3n":
        per_layer = _GEMMA3N_PER_LAYER
        for name in ("altup_proj", "altup_unembd_proj"):
            yield f"{name}.weight", (header.width, header.width, _ALTUP_INPUTS - 1)
    if per_layer:
        yield "per_layer_token_embd.weight", (per_layer * header.blocks, header.vocabulary)
        yield "per_layer_model_proj.weight", (header.width, per_layer * header.blocks)
        yield "per_layer_proj_norm.weight", (per_layer,)


def _next_tokens(header: Header) -> Tensors:
    """Yield what makes a block predict the token after next (MTP, NextN)."""
    width = header.width
    yield "nextn.eh_proj.weight", (2 * width, width)
    for name in ("enorm", "hnorm", "shared_head_norm"):
        yield f"nextn.{name}.weight", (width,)
    if header.architecture in _OWN_HEADS:
        for name in ("embed_tokens", "shared_head_head"):
            yield f"nextn.{name}.weight", (width, header.vocabulary)


def _llama(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "ffn_norm")
    yield from attention(header, block)
    yield from experts(header) if header.number("expert_count", default=0) else dense(header, block)


def _llama4(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "ffn_norm")
    yield from attention(header, block)
    if (block + 1) % header.number("interleave_moe_layer_step"):
        yield from dense(header, block)
    else:
        yield from experts(header)
        yield from shared_expert(header)


def _qwen2(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "ffn_norm")
    yield from attention(header, block, bias=True)
    yield from dense(header, block)


def _qwen3(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "ffn_norm")
    yield from attention(header, block, norms_over="head")
    yield from experts(header) if header.number("expert_count", default=0) else dense(header, block)


def _qwen_hybrid(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "post_attention_norm")
    if header.recurrent(block):
        yield from delta_net(header)
    else:
        yield from attention(header, block, norms_over="head", gate=True)
    if header.architecture == "qwen35":
        yield from dense(header, block)
    else:
        yield from experts(header)
        yield "ffn_gate_inp_shexp.weight", (header.width,)
        yield from shared_expert(header)


def _gemma(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    yield from attention(header, block, norms_over="head" if header.architecture == "gemma3" else "")
    yield from dense(header, block)


def _gemma3n(header: Header, block: int) -> Tensors:
    width, inputs = header.width, _ALTUP_INPUTS
    yield from norms(header, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    yield from attention(header, block, norms_over="head")
    yield from dense(header, block)
    yield "inp_gate.weight", (width, _GEMMA3N_PER_LAYER)
    yield "proj.weight", (_GEMMA3N_PER_LAYER, width)
    yield from norms(header, "post_norm", "altup_correct_scale", "altup_router_norm", "laurel_post_norm")
    yield "altup_correct_coef.weight", (inputs, inputs)
    yield "altup_predict_coef.weight", (inputs, inputs * inputs)
    yield "altup_router.weight", (width, inputs)
    yield "laurel_l.weight", (width, _LAUREL_RANK)
    yield "laurel_r.weight", (_LAUREL_RANK, width)


def _gemma4(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    # Where key and value share a projection, as in full attention with fewer heads, the file has no attn_v. Blocks that
    # reuse an earlier cache (attention.shared_kv_layers) have projections of their own in the file all the same.
    alike = header.number("attention.head_count_kv", block) != header.number("attention.head_count_kv", 0)
    yield from attention(header, block, norms_over="head", value=not alike)
    yield "layer_output_scale.weight", (1,)
    yield from dense(header, block)
    if header.number("expert_count", default=0):
        yield "ffn_gate_inp.scale", (header.width,)
        yield from norms(header, "pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2")
        yield from experts(header, fused=True)
        yield "ffn_down_exps.scale", (header.number("expert_count"),)
    per_layer = header.number("embedding_length_per_layer_input", default=0)
    if per_layer:
        yield "inp_gate.weight", (header.width, per_layer)
        yield "proj.weight", (per_layer, header.width)
        yield from norms(header, "post_norm")


def _phi3(header: Header, block: int) -> Tensors:
    forward = header.number("feed_forward_length", block)
    yield from norms(header, "attn_norm", "ffn_norm")
    yield from attention(header, block, fused=True)
    yield "ffn_up.weight", (header.width, 2 * forward)
    yield "ffn_down.weight", (forward, header.width)


def _gpt_oss(header: Header, block: int) -> Tensors:
    count, forward = header.number("expert_count"), header.number("expert_feed_forward_length")
    yield from norms(header, "attn_norm", "post_attention_norm")
    yield from attention(header, block, bias=True)
    yield "attn_output.bias", (header.width,)
    yield "attn_sinks.weight", (header.number("attention.head_count"),)
    yield from experts(header)
    yield "ffn_gate_inp.bias", (count,)
    yield "ffn_gate_exps.bias", (forward, count)
    yield "ffn_up_exps.bias", (forward, count)
    yield "ffn_down_exps.bias", (header.width, count)


def _glm4(header: Header, block: int) -> Tensors:
    forward = header.number("feed_forward_length", block)
    yield from norms(header, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    yield from attention(header, block)
    yield "ffn_up.weight", (header.width, 2 * forward)
    yield "ffn_down.weight", (forward, header.width)


def _glm4_moe(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "post_attention_norm")
    yield from attention(header, block, bias=True)
    if leads(header, block):
        yield from dense(header, block)
    else:
        yield from experts(header, correction=True)
        yield from shared_expert(header)


def _deepseek2(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "ffn_norm")
    yield from latent_attention(header, block)
    if "attention.indexer.head_count" in header.metadata:
        yield from indexer(header)
    if leads(header, block):
        yield from dense(header, block)
    else:
        yield from experts(
            header,
            correction=header.number("expert_gating_func", default=1) > 1,
            fused=header.architecture == "mistral4",  # converted as its maker stores them, gate and up in one
        )
        yield from shared_expert(header)


def _leading(
    header: Header, block: int, *, fused: bool = False, norms_over: str = "head", shares: bool = True
) -> Tensors:
    """Yield attention, then leading dense blocks, then experts: bailingmoe2, dots1, exaone-moe, mimo2, step35."""
    yield from norms(header, "attn_norm", "ffn_norm")
    yield from attention(header, block, norms_over=norms_over, fused=fused)
    if leads(header, block):
        yield from dense(header, block)
    else:
        yield from experts(header, correction=True)
        if shares:
            yield from shared_expert(header)


def _bailing(header: Header, block: int) -> Tensors:
    yield from _leading(header, block, fused=True)


def _exaone_moe(header: Header, block: int) -> Tensors:
    if block < header.trunk:
        yield from _leading(header, block)
    else:
        yield from norms(header, "attn_norm", "ffn_norm")
        yield from attention(header, block, norms_over="head")
        yield from dense(header, block)


def _mimo2(header: Header, block: int) -> Tensors:
    yield from _leading(header, block, norms_over="", shares=False)
    if header.windowed(block):
        yield "attn_sinks.weight", (header.number("attention.head_count", block),)


def _step35(header: Header, block: int) -> Tensors:
    yield from _leading(header, block)
    yield "attn_gate.weight", (header.width, header.number("attention.head_count", block))


def _minimax(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "ffn_norm")
    yield from attention(header, block, norms_over="all")
    yield from experts(header, correction=True)


def _nemotron_h(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm")
    if header.number("attention.head_count_kv", block):
        yield from attention(header, block)
    elif header.number("feed_forward_length", block) and header.architecture == "nemotron_h":
        for name, dimensions in dense(header, block):
            if name != "ffn_gate.weight":
                yield name, dimensions
    elif header.number("feed_forward_length", block):
        yield from experts(header, gate=False, correction=True)
        latent = header.number("moe_latent_size", default=0)
        if latent:
            yield "ffn_latent_down.weight", (header.width, latent)
            yield "ffn_latent_up.weight", (latent, header.width)
        yield from shared_expert(header, gate=False)
    else:
        yield from mamba(header)


def _granite_hybrid(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "ffn_norm")
    if header.number("attention.head_count_kv", block):
        yield from attention(header, block)
    else:
        yield from mamba(header)
    if header.number("expert_count", default=0):
        yield from experts(header)
        yield from shared_expert(header)
    else:
        yield from dense(header, block)


def _falcon_h1(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm")
    yield "ffn_norm", (header.width,)  # converted without its suffix, and loaded so
    yield from mamba(header, norm=False)
    yield from attention(header, block)
    yield from dense(header, block)


def _lfm2(header: Header, block: int) -> Tensors:
    width = header.width
    yield from norms(header, "attn_norm", "ffn_norm")
    if header.number("attention.head_count_kv", block):
        yield from attention(header, block, norms_over="head")
    else:
        yield "shortconv.conv.weight", (header.number("shortconv.l_cache"), width)
        yield "shortconv.in_proj.weight", (width, 3 * width)
        yield "shortconv.out_proj.weight", (width, width)
    if header.architecture == "lfm2moe" and not leads(header, block):
        yield from experts(header, correction=True)
    else:
        yield from dense(header, block)


def _ernie(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "ffn_norm")
    yield from attention(header, block)
    if leads(header, block):
        yield from dense(header, block)
    else:
        yield from experts(header, correction=True)
        yield from shared_expert(header)


def _hunyuan(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "ffn_norm")
    yield from attention(header, block, norms_over="head")
    yield from experts(header)
    yield from shared_expert(header)


def _cohere(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm")
    yield from attention(header, block)
    yield from dense(header, block)


def _olmo2(header: Header, block: int) -> Tensors:
    yield from norms(header, "post_attention_norm", "post_ffw_norm")
    yield from attention(header, block, norms_over="all")
    yield from dense(header, block)


def _exaone4(header: Header, block: int) -> Tensors:
    yield from norms(header, "post_attention_norm", "post_ffw_norm")
    yield from attention(header, block, norms_over="head")
    yield from dense(header, block)


def _seed_oss(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "post_attention_norm")
    yield from attention(header, block, bias=True)
    yield from dense(header, block)


def _kimi_linear(header: Header, block: int) -> Tensors:
    yield from norms(header, "attn_norm", "ffn_norm")
    if header.number("attention.head_count_kv", block):
        yield from latent_attention(header, block)
    else:
        yield from kimi_delta(header, block)
    if leads(header, block):
        yield from dense(header, block)
    else:
        yield from experts(header, correction=True)
        yield from shared_expert(header)


_BLOCKS: Mapping[str, Callable[[Header, int], Tensors]] = {
    "llama": _llama,
    "mistral3": _llama,
    "smollm3": _llama,
    "granite": _llama,
    "llama4": _llama4,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3,
    "qwen3vl": _qwen3,
    "qwen3vlmoe": _qwen3,
    "qwen3next": _qwen_hybrid,
    "qwen35": _qwen_hybrid,
    "qwen35moe": _qwen_hybrid,
    "gemma2": _gemma,
    "gemma3": _gemma,
    "gemma3n": _gemma3n,
    "gemma4": _gemma4,
    "phi3": _phi3,
    "gpt-oss": _gpt_oss,
    "glm4": _glm4,
    "glm4moe": _glm4_moe,
    "bailingmoe2": _bailing,
    "dots1": _leading,
    "exaone-moe": _exaone_moe,
    "mimo2": _mimo2,
    "step35": _step35,
    "deepseek2": _deepseek2,
    "deepseek32": _deepseek2,
    "glm-dsa": _deepseek2,
    "mistral4": _deepseek2,
    "minimax-m2": _minimax,
    "nemotron_h": _nemotron_h,
    "nemotron_h_moe": _nemotron_h,
    "granitehybrid": _granite_hybrid,
    "falcon-h1": _falcon_h1,
    "lfm2": _lfm2,
    "lfm2moe": _lfm2,
    "ernie4_5-moe": _ernie,
    "hunyuan-moe": _hunyuan,
    "command-r": _cohere,
    "cohere2": _cohere,
    "olmo2": _olmo2,
    "exaone4": _exaone4,
    "seed_oss": _seed_oss,
    "kimi-linear": _kimi_linear,
}
