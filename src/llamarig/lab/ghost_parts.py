"""What a file says of its model, and the parts that blocks of models are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llamarig.config.shape import MetadataValue
from llamarig.lab.machine import LabError

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

    """

    architecture: str
    metadata: Mapping[str, MetadataValue]
    vocabulary: int
    tied: bool = False
    rope_factors: int = 0

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


def norms(header: Header, *names: str) -> Tensors:
    """Yield norms over the width of the model."""
    for name in names:
        yield f"{name}.weight", (header.width,)


def attention(
    header: Header,
    block: int,
    *,
    norms_over: str = "",
    bias: bool = False,
    gate: bool = False,
    value: bool = True,
    fused: bool = False,
) -> Tensors:
    """Yield grouped-query attention.

    Norms of queries and keys are over each ``head`` or over ``all`` of them; a ``gate`` doubles the queries.
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
    if bias:
        for name, size in outputs.items():
            yield f"{name}.bias", (size,)
    if norms_over:
        yield "attn_q_norm.weight", (key if norms_over == "head" else heads * key,)
        yield "attn_k_norm.weight", (key if norms_over == "head" else heads_kv * key,)


def latent_attention(header: Header, block: int) -> Tensors:
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


def indexer(header: Header) -> Tensors:
    """Yield what chooses the tokens to attend to, in sparse attention (DSA)."""
    heads, key = header.number("attention.indexer.head_count"), header.number("attention.indexer.key_length")
    yield "indexer.k_norm.weight", (key,)
    yield "indexer.k_norm.bias", (key,)
    yield "indexer.proj.weight", (header.width, heads)
    yield "indexer.attn_k.weight", (header.width, key)
    yield "indexer.attn_q_b.weight", (header.number("attention.q_lora_rank"), heads * key)


def delta_net(header: Header) -> Tensors:
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


def mamba(header: Header, *, norm: bool = True) -> Tensors:
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


def kimi_delta(header: Header, block: int) -> Tensors:
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


def dense(header: Header, block: int) -> Tensors:
    """Yield a gated feed-forward network."""
    forward = header.number("feed_forward_length", block)
    yield "ffn_gate.weight", (header.width, forward)
    yield "ffn_up.weight", (header.width, forward)
    yield "ffn_down.weight", (forward, header.width)


def experts(header: Header, *, gate: bool = True, correction: bool = False, fused: bool = False) -> Tensors:
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


def shared_expert(header: Header, *, gate: bool = True) -> Tensors:
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


def leads(header: Header, block: int) -> bool:
    """Tell whether a block comes before those with experts."""
    return block < header.number("leading_dense_block_count", default=0)
