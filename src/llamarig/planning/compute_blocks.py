"""The graph of a model as llama.cpp builds it (llama-graph.cpp, models/*.cpp), read off the tensors that its blocks have.

What decides sizes is which tensors a block has and how wide they are; architectures of the same tensors give the same
graph. Nodes are named after the tensors that they stand for; every size is in bytes, and numbers are single precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llamarig.config.attention import Layer
from llamarig.config.shape import TYPE_BLOCKS, Shape
from llamarig.planning.compute_graph import Graph, Node
from llamarig.planning.layout import Settings

F32: Final = 4
F16: Final = 2
I32: Final = 4
I64: Final = 8
_PAD: Final = 256  # llama_kv_cache::get_padding
_QUANTIZED_BLOCK: Final = 32
_OFFLOAD_BATCH: Final = 32  # GGML_OP_OFFLOAD_MIN_BATCH, ggml_backend_cuda_device_offload_op


@dataclass(frozen=True)
class Kind:
    """What blocks of the same tensors share.

    Attributes:
        widths: dimensions of each tensor, by its name without ``blk.N.``; ``.weight`` is left out.
        bytes: of each tensor, in the largest of these blocks.
        layer: what it keeps between tokens.

    """

    widths: Mapping[str, tuple[int, ...]]
    bytes: Mapping[str, int]
    layer: Layer


@dataclass(frozen=True)
class Traits:
    """What of an architecture its tensors do not show."""

    late_rows: bool = False  # rows of the output are chosen after the last block, not in it
    scaled_embedding: bool = False  # the embedding is multiplied (Gemma, Granite)
    weight_first: bool = False  # experts' weights are applied to their input (Llama 4)


TRAITS: Final[Mapping[str, Traits]] = {
    "gemma": Traits(scaled_embedding=True),
    "gemma2": Traits(scaled_embedding=True),
    "gemma3": Traits(scaled_embedding=True),
    "llama4": Traits(weight_first=True),
}


@dataclass(frozen=True, slots=True)
class Placed:
    """One block to build: its kind, its device, and that of its experts."""

    kind: Kind
    unit: int
    experts: int


@dataclass(frozen=True)
class Case:
    """What a graph is built for; ``outputs`` is how many rows get logits."""

    shape: Shape
    settings: Settings
    outputs: int
    host: int
    pinned: bool  # every norm runs on its layer's device: all layers are offloaded (llama_context::graph_get_cb)
    offloads: bool
    traits: Traits = field(default_factory=Traits)


def number(shape: Shape, key: str, default: int = 0) -> int:
    """Return a number of the header; of a list its largest."""
    value: Any = shape.metadata.get(key, default)
    if isinstance(value, list):
        value = max(value, default=default)
    return int(value)


def rows_of(settings: Settings) -> int:
    """Return the tokens of the batch that the engine reserves for (llama_context::sched_reserve, graph_reserve)."""
    slots = max(settings.parallel, 1)
    rows = min(padded(settings.context), settings.ubatch, settings.batch)
    return -(-rows // slots) * slots


def padded(tokens: int) -> int:
    """Round up to what the cache is made in."""
    return -(-tokens // _PAD) * _PAD


class Builder:
    """Builds the graph of one batch, block after block."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.graph = Graph()
        settings = case.settings
        self.rows = rows_of(settings)
        self.slots = max(settings.parallel, 1)
        self.row = F32 * self.rows
        self.embedding = number(case.shape, "embedding_length")
        self.widths: Mapping[str, tuple[int, ...]] = {}
        self.bytes: Mapping[str, int] = {}
        self.unit = case.host
        self.experts = case.host
        self.masks: dict[int, tuple[Node, Node, Node]] = {}
        self.last = False
        self.out_ids: Node | None = None
        self.rotations: dict[str, Node] = {}

    # -- the ends ------------------------------------------------------------------------------------------------------

    def start(self) -> Node:
        """Embed the tokens (build_inp_embd): embeddings, and a second path for a batch of tokens and vectors."""
        graph, size = self.graph, self.embedding * self.row
        host = self.case.host
        tokens = graph.input(I32 * self.rows)
        graph.input(size)  # inp_embd
        mixed_tokens = graph.input(I32 * self.rows)
        mixed = graph.input(size)
        mixed_slots = graph.input(I64 * self.rows)
        embd = graph.add(size, tokens, place=host)
        other = graph.add(size, mixed_tokens, place=host)
        graph.add(size, mixed)  # a copy that set_rows writes into, and nothing reads: it is never freed
        graph.add(0, other, mixed_slots)
        self.positions = graph.input(I32 * self.rows)
        self.out_ids = graph.input(I32 * self.case.outputs)
        if self.case.traits.scaled_embedding:
            embd = graph.over(size, embd)
        return embd

    def mask(self, layer: Layer) -> tuple[Node, Node, Node]:
        """Return the inputs that attention of this window needs: places of keys and of values, and the mask."""
        if layer.window not in self.masks:
            settings, graph = self.case.settings, self.graph
            cells = self.cells(layer)
            flash = settings.flash_attention
            values = self.rows * (1 if flash else max(layer.kv_heads * layer.value_length, 1))
            self.masks[layer.window] = (
                graph.input(I64 * self.rows),
                graph.input(I64 * values),
                graph.input(cells * self.rows * (F16 if flash else F32)),
            )
        return self.masks[layer.window]

    def cells(self, layer: Layer) -> int:
        """Return how many cells of the cache each token may look at (llama_kv_cache_iswa, build_attn_inp_kq_mask)."""
        settings = self.case.settings
        cells = padded(padded(settings.context) // (1 if settings.unified else self.slots))
        if layer.window and not settings.swa_full:
            window = layer.window * (self.slots if settings.unified else 1)
            cells = padded(min(cells, window + min(settings.ubatch, settings.batch)))
        return cells

    def finish(self, x: Node, unit: int, names: Mapping[str, int], vocabulary: int) -> None:
        """Add the output norm and the output matrix."""
        self.unit, self.widths, self.bytes = unit, {"output_norm": (self.embedding,)}, names
        x = self.norm(x, "output_norm", self.embedding * (self.row if self.case.traits.late_rows else self.out_row))
        if self.case.traits.late_rows:
            assert self.out_ids is not None
            x = self.graph.add(self.embedding * self.out_row, x, self.out_ids)
        self.weighted(self.graph.add(vocabulary * self.out_row, x), "output", unit)

    @property
    def out_row(self) -> int:
        """Bytes of one number for every row that gets logits."""
        return F32 * self.case.outputs

    # -- parts ---------------------------------------------------------------------------------------------------------

    def weighted(self, node: Node, name: str, place: int | None = None) -> Node:
        """Put an operation where its weight is; the first device takes large batches from the host, weight and all."""
        case = self.case
        node.place = self.unit if place is None else place
        if node.place == case.host and case.offloads and self.rows >= _OFFLOAD_BATCH:
            node.place, node.weight = 0, max(self.bytes.get(name, 1), 1)
        return node

    def product(self, name: str, x: Node, place: int | None = None, row: int = 0) -> Node:
        """Multiply by a matrix, and add its bias (build_lora_mm)."""
        size = math.prod(self.widths[name][1:]) * (row or self.row)
        node = self.weighted(self.graph.add(size, x), name, place)
        return self.biased(name, node, place)

    def biased(self, name: str, node: Node, place: int | None = None) -> Node:
        """Add a matrix's bias, where it has one."""
        if f"{name}.bias" in self.widths:
            return self.weighted(self.graph.over(node.size, node), f"{name}.bias", place)
        return node

    def norm(self, x: Node, name: str, size: int = 0, *, sure: bool = True) -> Node:
        """Normalize (build_norm); a norm that this block does not have changes nothing."""
        if name not in self.widths:
            return x
        normed = self.graph.over(size or x.size, x)
        if self.case.pinned and sure:
            normed.place = self.unit
        return self.biased(name, self.weighted(self.graph.over(normed.size, normed), name))

    # -- a block -------------------------------------------------------------------------------------------------------

    def block(self, placed: Placed, x: Node, *, last: bool) -> Node:
        """Add one block; returns its output."""
        self.widths, self.bytes = placed.kind.widths, placed.kind.bytes
        self.unit, self.experts, self.last = placed.unit, placed.experts, last and not self.case.traits.late_rows
        has = self.widths
        normed = self.norm(x, "attn_norm")
        out = self.mix(placed.kind.layer, normed)
        if out is None:  # nothing but a feed-forward network (Nemotron-H)
            return self.graph.over(x.size, self.feed_forward(normed), x)
        out, x = self.chosen(out), self.chosen(x)
        row = self.out_row if self.last else self.row
        if "ffn_norm" in has or ("post_attention_norm" in has and "post_ffw_norm" in has):
            out = self.norm(out, "post_attention_norm")
            before = "ffn_norm"
        else:
            before = "post_attention_norm"
        if not any(name.startswith("ffn_") for name in has):
            return self.graph.over(out.size, out, x)
        if before not in has and "post_ffw_norm" not in has:  # attention and network side by side
            out = self.graph.over(out.size, self.feed_forward(self.chosen(normed)), out)
            return self.graph.over(out.size, out, x)
        inner = self.graph.over(out.size, out, x)
        result = self.feed_forward(self.norm(inner, before), row)
        result = self.norm(result, "post_ffw_norm", sure=False)
        return self.graph.over(result.size, result, inner)

    def chosen(self, x: Node) -> Node:
        """In the last block, keep only the rows that get logits (get_rows by inp_out_ids)."""
        if not self.last:
            return x
        assert self.out_ids is not None
        return self.graph.add(x.size // self.row * self.out_row, x, self.out_ids)

    def mix(self, layer: Layer, x: Node) -> Node | None:
        """Let tokens look at each other: attention, or a recurrent state; None where a block does neither."""
        has = self.widths
        if "attn_kv_a_mqa" in has:
            return self.latent_attention(layer, x)
        if "attn_q" in has or "attn_qkv" in has:
            return self.attention(layer, x)
        return None

    # -- attention -----------------------------------------------------------------------------------------------------

    def attention(self, layer: Layer, x: Node) -> Node:
        """Add attention with heads of keys and values (build_qkv, build_attn)."""
        graph, has, row = self.graph, self.widths, self.row
        if "attn_qkv" in has:
            wide = self.product("attn_qkv", x)
            values = layer.kv_heads * layer.value_length * row
            keys = layer.kv_heads * layer.key_length * row
            queries = wide.size - keys - values
            q = graph.add(queries, wide, self.positions)
            v = wide
            k = graph.add(keys, wide, self.positions)
        else:
            q = self.turned("attn_q", x)
            v = self.product("attn_v", x)
            k = self.turned("attn_k", x)
        self.store(layer, k, v)
        return self.product("attn_output", self.attend(layer, q))

    def turned(self, name: str, x: Node) -> Node:
        """Project, normalize each head where the block does, and turn by position (rope)."""
        x = self.product(name, x)
        norm = f"{name}_norm"
        if norm not in self.widths:
            return self.graph.add(x.size, x, self.positions)
        if self.widths[norm][0] == self.widths[name][1]:  # of all heads together, before they are told apart
            return self.graph.add(x.size, self.norm(x, norm), self.positions)
        x = self.norm_part(x, norm, x.size)
        return self.graph.over(x.size, x, self.positions)

    def store(self, layer: Layer, k: Node, v: Node | None) -> None:
        """Write keys and values into the cache (cpy_k, cpy_v)."""
        at_keys, at_values, _ = self.mask(layer)
        place = self.unit if self.case.settings.kv_offload else self.case.host
        self.graph.add(0, k, at_keys, place=place)
        if v is not None:
            self.graph.add(0, v, at_values, place=place)

    def attend(self, layer: Layer, q: Node) -> Node:
        """Let queries look at the cache (build_attn_mha)."""
        graph, (_, _, mask) = self.graph, self.mask(layer)
        size = self.widths["attn_output"][0] * self.row
        if self.case.settings.flash_attention:
            return graph.add(size, q, mask)
        heads = max(q.size // self.row // max(layer.key_length, 1), 1)
        kq = graph.add(self.cells(layer) * heads * self.row, q)
        kq = graph.over(kq.size, kq, mask)
        kqv = graph.add(size, kq)
        return graph.add(size, kqv)

    def latent_attention(self, layer: Layer, x: Node) -> Node:
        """Add attention over one compressed key (models/deepseek2.cpp, with attn_k_b and attn_v_b)."""
        graph, has, row = self.graph, self.widths, self.row
        if "attn_q_a" in has:
            q = self.product("attn_q_b", self.norm(self.product("attn_q_a", x), "attn_q_a_norm"))
        else:
            q = self.product("attn_q", x)
        _nope, rank, heads = has["attn_k_b"]
        rope = layer.key_length - rank
        absorbed = self.weighted(graph.add(rank * heads * row, q), "attn_k_b")
        q_pe = graph.add(rope * heads * row, q, self.positions)
        query = graph.add(layer.key_length * heads * row, absorbed, q_pe)
        compressed = self.product("attn_kv_a_mqa", x)
        normed = self.norm_part(compressed, "attn_kv_a_norm", rank * row)
        k_pe = graph.add(rope * row, compressed, self.positions)
        key = graph.add(layer.key_length * row, normed, k_pe)
        self.store(layer, key, None)
        _, _, mask = self.mask(layer)
        wide = graph.add(rank * heads * row, query, mask)
        out = self.weighted(graph.add(has["attn_v_b"][1] * heads * row, wide), "attn_v_b")
        return self.product("attn_output", graph.add(out.size, out))

    def norm_part(self, x: Node, name: str, size: int) -> Node:
        """Normalize a view of a tensor, which the result cannot replace."""
        normed = self.graph.add(size, x)
        if self.case.pinned:
            normed.place = self.unit
        return self.weighted(self.graph.over(size, normed), name)

    # -- feed-forward --------------------------------------------------------------------------------------------------

    def feed_forward(self, x: Node, row: int = 0) -> Node:
        """Add the feed-forward network of a block: dense, or experts and what is shared beside them."""
        row = row or (self.out_row if self.last else self.row)
        if "ffn_gate_inp" not in self.widths:
            return self.dense(x, "", row)
        out = self.mixture(x, row)
        if "ffn_up_shexp" in self.widths:
            shared = self.dense(x, "_shexp", row)
            if "ffn_gate_inp_shexp" in self.widths:
                gate = self.weighted(self.graph.add(row, x), "ffn_gate_inp_shexp")
                gate = self.graph.over(row, gate)
                shared = self.graph.over(shared.size, shared, gate)
            out = self.graph.over(out.size, out, shared)
        return out

    def dense(self, x: Node, suffix: str, row: int) -> Node:
        """Add a dense network (build_ffn)."""
        graph, has = self.graph, self.widths
        up, gate, down = f"ffn_up{suffix}", f"ffn_gate{suffix}", f"ffn_down{suffix}"
        if gate in has:
            gated = self.product(gate, x, row=row)
            inner = graph.add(gated.size, gated, self.product(up, x, row=row))
        else:
            wide = self.product(up, x, row=row)
            size = has[down][0] * row
            inner = graph.over(size, wide) if size == wide.size else graph.add(size, wide)
        return self.product(down, inner, row=row)

    def mixture(self, x: Node, row: int) -> Node:
        """Add the experts (build_moe_ffn)."""
        graph, has = self.graph, self.widths
        experts = has["ffn_gate_inp"][1]
        used = min(number(self.case.shape, "expert_used_count", 1), experts)
        width = has["ffn_down_exps"][0]
        out = has["ffn_down_exps"][1]
        logits = self.product("ffn_gate_inp", x, row=row)
        probs = graph.over(experts * row, logits)
        selection = probs
        if "exp_probs_b.bias" in has:
            selection = self.weighted(graph.over(experts * row, probs), "exp_probs_b.bias")
        chosen = graph.add(experts * row, selection)  # ffn_moe_argsort
        weights = graph.add(used * row, probs, chosen)
        place = self.experts
        if "ffn_gate_up_exps" in has:
            both = self.expert("ffn_gate_up_exps", graph.add(2 * width * used * row, x, chosen), chosen, place)
            inner = graph.add(width * used * row, both)
        else:
            gated = None
            if "ffn_gate_exps" in has:
                gated = self.expert("ffn_gate_exps", graph.add(width * used * row, x, chosen), chosen, place)
            up = self.expert("ffn_up_exps", graph.add(width * used * row, x, chosen), chosen, place)
            inner = graph.over(up.size, up) if gated is None else graph.add(up.size, gated, up)
        down = self.expert("ffn_down_exps", graph.add(out * used * row, inner, chosen), chosen, place)
        weighted = graph.over(down.size, down, weights)
        total = graph.add(out * row, weighted)
        for _ in range(used - 2):
            total = graph.over(total.size, total, weighted)
        return total

    def expert(self, name: str, node: Node, chosen: Node, place: int) -> Node:
        """Put a product with chosen experts (mul_mat_id), and its bias, where they are."""
        self.weighted(node, name, place)
        if f"{name}.bias" in self.widths:
            return self.weighted(self.graph.over(node.size, node, chosen), f"{name}.bias", place)
        return node


def quantized(kind: str) -> bool:
    """Say whether a tensor type packs numbers in blocks."""
    return TYPE_BLOCKS[kind][0] > 1
