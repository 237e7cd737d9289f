"""The tensors that the engine wants of an architecture: names and dimensions, computed from a file's own metadata.

Source: ``load_arch_hparams`` and ``load_arch_tensors`` of each file in ``src/models/`` of llama.cpp. Every architecture
here was accepted by llama-fit-params with the models of ``ghost_models``; one that is not here is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from llamarig.config.shape import MetadataValue
from llamarig.lab.machine import LabError

# What the engine knows of Gemma 3n without its file (llama-hparams.h).
_ALTUP_INPUTS: Final = 4
_LAUREL_RANK: Final = 64
_GEMMA3N_PER_LAYER: Final = 256
# Makers whose blocks for further tokens bring embeddings and an output of their own.
_OWN_HEADS: Final = {"glm4moe", "deepseek32"}
Dimensions = tuple[int, ...]
Tensors = Iterator[tuple[str, Dimensions]]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself that decides its tensors.

    Attributes:
        architecture: ``general.architecture``.
        metadata: keys without the architecture's prefix.
        vocabulary: how many tokens it knows.
        tied: there is no ``output.weight``: token embeddings serve twice.
        rope_factors: length of ``rope_freqs.weight``, with which some makers stretch the context; 0 where it is absent.
        query_bias: attention's projections have biases, where the architecture leaves it open.

    """

    architecture: str
    metadata: Mapping[str, MetadataValue]
    vocabulary: int
    tied: bool = False
    rope_factors: int = 0
    query_bias: bool = False

    def number(self, key: str, block: int | None = None, default: int | None = None) -> int:
        """Return a number, or the block's own where the file has a list.

        Raises:
            LabError: neither the metadata nor the caller says it.

        """
        value: Any = self.metadata.get(key, default)
        if isinstance(value, list):
            value = value[block or 0]
        if value is None:
            msg = f"a model of architecture {self.architecture} needs {key}"
            raise LabError(msg)
        return int(value)

    @property
    def width(self) -> int:
        """Numbers in a token's embedding."""
        return self.number("embedding_length")

    @property
    def blocks(self) -> int:
        """Blocks in the file, with those that predict further tokens."""
        return self.number("block_count")

    @property
    def trunk(self) -> int:
        """Blocks that every token passes."""
        return self.blocks - self.number("nextn_predict_layers", default=0)

    def head(self, block: int) -> tuple[int, int]:
        """Return the widths of one head's key and value."""
        half = self.width // max(1, self.number("attention.head_count", block))
        window = "_swa" if "attention.key_length_swa" in self.metadata and self.windowed(block) else ""
        key = self.number(f"attention.key_length{window}", default=half)
        return key, self.number(f"attention.value_length{window}", default=half)

    def windowed(self, block: int) -> bool:
        """Tell whether a block attends to a window only, where the file lists it."""
        pattern = self.metadata.get("attention.sliding_window_pattern")
        return isinstance(pattern, list) and bool(pattern[block])

    def recurrent(self, block: int) -> bool:
        """Tell whether a block of a hybrid model keeps a state instead of a cache of keys."""
        interval = self.number("full_attention_interval", default=4)
        return block < self.trunk and (block + 1) % interval != 0


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


# ---------------------------------------------------------------- parts of blocks


def _norms(header: Header, *names: str) -> Tensors:
    for name in names:
        yield f"{name}.weight", (header.width,)


def _attention(
    header: Header,
    block: int,
    *,
    norms: str = "",
    bias: bool = False,
    gate: bool = False,
    value: bool = True,
    fused: bool = False,
) -> Tensors:
    """Yield grouped-query attention.

    ``norms`` of queries and keys are over each ``head`` or over ``all`` of them; a ``gate`` doubles the queries.
    """
    heads = header.number("attention.head_count", block)
    heads_kv = header.number("attention.head_count_kv", block, heads)
    key, value_width = header.head(block)
    outputs = {"attn_q": heads * key * (2 if gate else 1), "attn_k": heads_kv * key, "attn_v": heads_kv * value_width}
    if not value:
        del outputs["attn_v"]
    if fused:
        outputs = {"attn_qkv": sum(outputs.values())}
    for name, size in outputs.items():
        yield f"{name}.weight", (header.width, size)
    yield "attn_output.weight", (heads * value_width, header.width)
    if bias or header.query_bias:
        for name, size in outputs.items():
            yield f"{name}.bias", (size,)
    if norms:
        yield "attn_q_norm.weight", (key if norms == "head" else heads * key,)
        yield "attn_k_norm.weight", (key if norms == "head" else heads_kv * key,)


def _latent_attention(header: Header, block: int) -> Tensors:
    """Yield multi-head latent attention (MLA) as deepseek2 has it: one compressed key for all heads."""
    heads = header.number("attention.head_count", block)
    query, latent = header.number("attention.q_lora_rank", default=0), header.number("attention.kv_lora_rank")
    rotated = header.number("rope.dimension_count")
    key, value = header.number("attention.key_length_mla"), header.number("attention.value_length_mla")
    if query:
        yield "attn_q_a_norm.weight", (query,)
        yield "attn_q_a.weight", (header.width, query)
        yield "attn_q_b.weight", (query, heads * key)
    else:
        yield "attn_q.weight", (header.width, heads * key)
    yield "attn_kv_a_norm.weight", (latent,)
    yield "attn_kv_a_mqa.weight", (header.width, latent + rotated)
    yield "attn_k_b.weight", (key - rotated, latent, heads)
    yield "attn_v_b.weight", (latent, value, heads)
    yield "attn_output.weight", (heads * value, header.width)


def _indexer(header: Header) -> Tensors:
    """Yield what chooses the tokens to attend to, in sparse attention (DSA)."""
    heads, key = header.number("attention.indexer.head_count"), header.number("attention.indexer.key_length")
    yield "indexer.k_norm.weight", (key,)
    yield "indexer.k_norm.bias", (key,)
    yield "indexer.proj.weight", (header.width, heads)
    yield "indexer.attn_k.weight", (header.width, key)
    yield "indexer.attn_q_b.weight", (header.number("attention.q_lora_rank"), heads * key)


def _delta_net(header: Header) -> Tensors:
    """Yield a gated delta net: the linear attention of Qwen3-Next and Qwen3.5."""
    state, values = header.number("ssm.state_size"), header.number("ssm.time_step_rank")
    keys = state * header.number("ssm.group_count")
    inner = state * values
    yield "attn_qkv.weight", (header.width, 2 * keys + inner)
    yield "attn_gate.weight", (header.width, inner)
    yield "ssm_conv1d.weight", (header.number("ssm.conv_kernel"), 2 * keys + inner)
    yield "ssm_dt.bias", (values,)
    yield "ssm_a", (values,)
    if header.architecture == "qwen3next":
        yield "ssm_ba.weight", (header.width, 2 * values)
    else:
        yield "ssm_beta.weight", (header.width, values)
        yield "ssm_alpha.weight", (header.width, values)
    yield "ssm_norm.weight", (state,)
    yield "ssm_out.weight", (inner, header.width)


def _mamba(header: Header, *, norm: bool = True) -> Tensors:
    """Yield Mamba 2's mixer."""
    inner, state = header.number("ssm.inner_size"), header.number("ssm.state_size")
    heads, groups = header.number("ssm.time_step_rank"), header.number("ssm.group_count")
    mixed = inner + 2 * groups * state
    yield "ssm_in.weight", (header.width, inner + mixed + heads)
    yield "ssm_conv1d.weight", (header.number("ssm.conv_kernel"), mixed)
    yield "ssm_conv1d.bias", (mixed,)
    yield "ssm_dt.bias", (heads,)
    yield "ssm_a", (1, heads)
    yield "ssm_d", (1, heads)
    if norm:
        yield "ssm_norm.weight", (inner // groups, groups)
    yield "ssm_out.weight", (inner, header.width)


def _kimi_delta(header: Header, block: int) -> Tensors:
    """Yield Kimi Linear's delta attention (KDA)."""
    head, heads = header.number("kda.head_dim"), header.number("attention.head_count", block)
    inner, kernel = head * heads, header.number("ssm.conv_kernel")
    for name in "qkv":
        yield f"ssm_conv1d_{name}.weight", (kernel, 1, inner)
        yield f"attn_{name}.weight", (header.width, inner)
    for name in "fg":
        yield f"ssm_{name}_a.weight", (header.width, head)
        yield f"ssm_{name}_b.weight", (head, inner)
    yield "ssm_beta.weight", (header.width, heads)
    yield "ssm_a", (1, heads)
    yield "ssm_dt.bias", (inner,)
    yield "ssm_norm.weight", (head,)
    yield "attn_output.weight", (inner, header.width)


def _dense(header: Header, block: int) -> Tensors:
    forward = header.number("feed_forward_length", block)
    yield "ffn_gate.weight", (header.width, forward)
    yield "ffn_up.weight", (header.width, forward)
    yield "ffn_down.weight", (forward, header.width)


def _experts(header: Header, *, gate: bool = True, correction: bool = False, fused: bool = False) -> Tensors:
    """Yield the router and the routed experts; ``correction`` is DeepSeek's bias that balances the router."""
    count = header.number("expert_count")
    forward = header.number("expert_feed_forward_length", default=header.number("feed_forward_length", default=0))
    inside = header.number("moe_latent_size", default=header.width)
    yield "ffn_gate_inp.weight", (header.width, count)
    if correction:
        yield "exp_probs_b.bias", (count,)
    if fused:
        yield "ffn_gate_up_exps.weight", (inside, 2 * forward, count)
    else:
        if gate:
            yield "ffn_gate_exps.weight", (inside, forward, count)
        yield "ffn_up_exps.weight", (inside, forward, count)
    yield "ffn_down_exps.weight", (forward, inside, count)


def _shared_expert(header: Header, *, gate: bool = True) -> Tensors:
    """Yield the expert that serves every token; where the file gives no width, so many routed ones side by side."""
    forward = header.number(
        "expert_shared_feed_forward_length",
        default=header.number("expert_shared_count", default=1)
        * header.number("expert_feed_forward_length", default=0),
    )
    if forward:
        if gate:
            yield "ffn_gate_shexp.weight", (header.width, forward)
        yield "ffn_up_shexp.weight", (header.width, forward)
        yield "ffn_down_shexp.weight", (forward, header.width)


def _leads(header: Header, block: int) -> bool:
    return block < header.number("leading_dense_block_count", default=0)


# ---------------------------------------------------------------- blocks


def _llama(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "ffn_norm")
    yield from _attention(header, block)
    yield from _experts(header) if header.number("expert_count", default=0) else _dense(header, block)


def _llama4(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "ffn_norm")
    yield from _attention(header, block)
    if (block + 1) % header.number("interleave_moe_layer_step"):
        yield from _dense(header, block)
    else:
        yield from _experts(header)
        yield from _shared_expert(header)


def _qwen2(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "ffn_norm")
    yield from _attention(header, block, bias=True)
    yield from _dense(header, block)


def _qwen3(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "ffn_norm")
    yield from _attention(header, block, norms="head")
    yield from _experts(header) if header.number("expert_count", default=0) else _dense(header, block)


def _qwen_hybrid(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "post_attention_norm")
    if header.recurrent(block):
        yield from _delta_net(header)
    else:
        yield from _attention(header, block, norms="head", gate=True)
    if header.architecture == "qwen35":
        yield from _dense(header, block)
    else:
        yield from _experts(header)
        yield "ffn_gate_inp_shexp.weight", (header.width,)
        yield from _shared_expert(header)


def _gemma(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    yield from _attention(header, block, norms="head" if header.architecture == "gemma3" else "")
    yield from _dense(header, block)


def _gemma3n(header: Header, block: int) -> Tensors:
    width, inputs = header.width, _ALTUP_INPUTS
    yield from _norms(header, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    yield from _attention(header, block, norms="head")
    yield from _dense(header, block)
    yield "inp_gate.weight", (width, _GEMMA3N_PER_LAYER)
    yield "proj.weight", (_GEMMA3N_PER_LAYER, width)
    yield from _norms(header, "post_norm", "altup_correct_scale", "altup_router_norm", "laurel_post_norm")
    yield "altup_correct_coef.weight", (inputs, inputs)
    yield "altup_predict_coef.weight", (inputs, inputs * inputs)
    yield "altup_router.weight", (width, inputs)
    yield "laurel_l.weight", (width, _LAUREL_RANK)
    yield "laurel_r.weight", (_LAUREL_RANK, width)


def _gemma4(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    # Where key and value share a projection, as in full attention with fewer heads, the file has no attn_v. Blocks that
    # reuse an earlier cache (attention.shared_kv_layers) have projections of their own in the file all the same.
    alike = header.number("attention.head_count_kv", block) != header.number("attention.head_count_kv", 0)
    yield from _attention(header, block, norms="head", value=not alike)
    yield "layer_output_scale.weight", (1,)
    yield from _dense(header, block)
    if header.number("expert_count", default=0):
        yield "ffn_gate_inp.scale", (header.width,)
        yield from _norms(header, "pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2")
        yield from _experts(header, fused=True)
        yield "ffn_down_exps.scale", (header.number("expert_count"),)
    per_layer = header.number("embedding_length_per_layer_input", default=0)
    if per_layer:
        yield "inp_gate.weight", (header.width, per_layer)
        yield "proj.weight", (per_layer, header.width)
        yield from _norms(header, "post_norm")


def _phi3(header: Header, block: int) -> Tensors:
    forward = header.number("feed_forward_length", block)
    yield from _norms(header, "attn_norm", "ffn_norm")
    yield from _attention(header, block, fused=True)
    yield "ffn_up.weight", (header.width, 2 * forward)
    yield "ffn_down.weight", (forward, header.width)


def _gpt_oss(header: Header, block: int) -> Tensors:
    count, forward = header.number("expert_count"), header.number("expert_feed_forward_length")
    yield from _norms(header, "attn_norm", "post_attention_norm")
    yield from _attention(header, block, bias=True)
    yield "attn_output.bias", (header.width,)
    yield "attn_sinks.weight", (header.number("attention.head_count"),)
    yield from _experts(header)
    yield "ffn_gate_inp.bias", (count,)
    yield "ffn_gate_exps.bias", (forward, count)
    yield "ffn_up_exps.bias", (forward, count)
    yield "ffn_down_exps.bias", (header.width, count)


def _glm4(header: Header, block: int) -> Tensors:
    forward = header.number("feed_forward_length", block)
    yield from _norms(header, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    yield from _attention(header, block)
    yield "ffn_up.weight", (header.width, 2 * forward)
    yield "ffn_down.weight", (forward, header.width)


def _glm4_moe(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "post_attention_norm")
    yield from _attention(header, block, bias=True)
    if _leads(header, block):
        yield from _dense(header, block)
    else:
        yield from _experts(header, correction=True)
        yield from _shared_expert(header)


def _deepseek2(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "ffn_norm")
    yield from _latent_attention(header, block)
    if "attention.indexer.head_count" in header.metadata:
        yield from _indexer(header)
    if _leads(header, block):
        yield from _dense(header, block)
    else:
        yield from _experts(
            header,
            correction=header.number("expert_gating_func", default=1) > 1,
            fused=header.architecture == "mistral4",  # converted as its maker stores them, gate and up in one
        )
        yield from _shared_expert(header)


def _leading(header: Header, block: int, *, fused: bool = False, norms: str = "head", shares: bool = True) -> Tensors:
    """Yield attention, then leading dense blocks, then experts: bailingmoe2, dots1, exaone-moe, mimo2, step35."""
    yield from _norms(header, "attn_norm", "ffn_norm")
    yield from _attention(header, block, norms=norms, fused=fused)
    if _leads(header, block):
        yield from _dense(header, block)
    else:
        yield from _experts(header, correction=True)
        if shares:
            yield from _shared_expert(header)


def _bailing(header: Header, block: int) -> Tensors:
    yield from _leading(header, block, fused=True)


def _exaone_moe(header: Header, block: int) -> Tensors:
    if block < header.trunk:
        yield from _leading(header, block)
    else:
        yield from _norms(header, "attn_norm", "ffn_norm")
        yield from _attention(header, block, norms="head")
        yield from _dense(header, block)


def _mimo2(header: Header, block: int) -> Tensors:
    yield from _leading(header, block, norms="", shares=False)
    if header.windowed(block):
        yield "attn_sinks.weight", (header.number("attention.head_count", block),)


def _step35(header: Header, block: int) -> Tensors:
    yield from _leading(header, block)
    yield "attn_gate.weight", (header.width, header.number("attention.head_count", block))


def _minimax(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "ffn_norm")
    yield from _attention(header, block, norms="all")
    yield from _experts(header, correction=True)


def _nemotron_h(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm")
    if header.number("attention.head_count_kv", block):
        yield from _attention(header, block)
    elif header.number("feed_forward_length", block) and header.architecture == "nemotron_h":
        for name, dimensions in _dense(header, block):
            if name != "ffn_gate.weight":
                yield name, dimensions
    elif header.number("feed_forward_length", block):
        yield from _experts(header, gate=False, correction=True)
        latent = header.number("moe_latent_size", default=0)
        if latent:
            yield "ffn_latent_down.weight", (header.width, latent)
            yield "ffn_latent_up.weight", (latent, header.width)
        yield from _shared_expert(header, gate=False)
    else:
        yield from _mamba(header)


def _granite_hybrid(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "ffn_norm")
    if header.number("attention.head_count_kv", block):
        yield from _attention(header, block)
    else:
        yield from _mamba(header)
    if header.number("expert_count", default=0):
        yield from _experts(header)
        yield from _shared_expert(header)
    else:
        yield from _dense(header, block)


def _falcon_h1(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm")
    yield "ffn_norm", (header.width,)  # converted without its suffix, and loaded so
    yield from _mamba(header, norm=False)
    yield from _attention(header, block)
    yield from _dense(header, block)


def _lfm2(header: Header, block: int) -> Tensors:
    width = header.width
    yield from _norms(header, "attn_norm", "ffn_norm")
    if header.number("attention.head_count_kv", block):
        yield from _attention(header, block, norms="head")
    else:
        yield "shortconv.conv.weight", (header.number("shortconv.l_cache"), width)
        yield "shortconv.in_proj.weight", (width, 3 * width)
        yield "shortconv.out_proj.weight", (width, width)
    if header.architecture == "lfm2moe" and not _leads(header, block):
        yield from _experts(header, correction=True)
    else:
        yield from _dense(header, block)


def _ernie(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "ffn_norm")
    yield from _attention(header, block)
    if _leads(header, block):
        yield from _dense(header, block)
    else:
        yield from _experts(header, correction=True)
        yield from _shared_expert(header)


def _hunyuan(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "ffn_norm")
    yield from _attention(header, block, norms="head")
    yield from _experts(header)
    yield from _shared_expert(header)


def _cohere(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm")
    yield from _attention(header, block)
    yield from _dense(header, block)


def _olmo2(header: Header, block: int) -> Tensors:
    yield from _norms(header, "post_attention_norm", "post_ffw_norm")
    yield from _attention(header, block, norms="all")
    yield from _dense(header, block)


def _exaone4(header: Header, block: int) -> Tensors:
    yield from _norms(header, "post_attention_norm", "post_ffw_norm")
    yield from _attention(header, block, norms="head")
    yield from _dense(header, block)


def _seed_oss(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "post_attention_norm")
    yield from _attention(header, block, bias=True)
    yield from _dense(header, block)


def _kimi_linear(header: Header, block: int) -> Tensors:
    yield from _norms(header, "attn_norm", "ffn_norm")
    if header.number("attention.head_count_kv", block):
        yield from _latent_attention(header, block)
    else:
        yield from _kimi_delta(header, block)
    if _leads(header, block):
        yield from _dense(header, block)
    else:
        yield from _experts(header, correction=True)
        yield from _shared_expert(header)


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
