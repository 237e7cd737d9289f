"""The graph of a model as llama.cpp builds it (llama-graph.cpp, models/*.cpp), read off the tensors that its blocks have.

What decides sizes is which tensors a block has and how wide they are; architectures of the same tensors give the same
graph. Names are those of the engine's tensors; every size is in bytes, and numbers are single precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from llamarig.config.attention import Layer
from llamarig.planning import compute_recurrent as recurrent
from llamarig.planning.compute_case import TRAITS, Case, Placed, Traits, cells, number, packed, rows, slots
from llamarig.planning.compute_graph import Graph, Node

F32: Final = 4
F16: Final = 2
I32: Final = 4
I64: Final = 8
Finish = Callable[[], Node]
_OFFLOAD_BATCH: Final = 32  # GGML_OP_OFFLOAD_MIN_BATCH, ggml_backend_cuda_device_offload_op
_ROTATED: Final = 64  # llama_kv_cache: keys and values of heads of this many numbers are rotated when packed


class Builder:
    """Builds the graph of one batch, block after block."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.traits = TRAITS.get(case.shape.architecture, Traits())
        self.graph = Graph()
        self.rows = rows(case.settings)
        self.slots = slots(case.settings)
        self.batch_row = F32 * self.rows
        self.out_row = F32 * case.outputs
        self.row = self.batch_row
        self.embedding = number(case.shape, "embedding_length")
        # A norm that subtracts the mean needs a place of its own: GGML_OP_NORM is not in ggml_op_can_inplace.
        metadata = case.shape.metadata
        self.centred = "attention.layer_norm_epsilon" in metadata and "attention.layer_norm_rms_epsilon" not in metadata
        self.widths: Mapping[str, tuple[int, ...]] = {}
        self.bytes: Mapping[str, int] = {}
        self.unit = self.experts = case.host
        self.turns = True
        self.inputs: dict[str, Node] = {}
        self.last = False
        # Where the nodes end that the engine has put into its graph so far; later ones may still be preceded.
        self.expanded = 0

    # -- the ends ------------------------------------------------------------------------------------------------------

    def start(self) -> Node:
        """Embed the tokens (build_inp_embd), and a second time for a batch that mixes tokens and vectors."""
        graph, size, host = self.graph, self.embedding * self.batch_row, self.case.host
        tokens = graph.input(I32 * self.rows)
        graph.input(size)  # inp_embd, which a batch of tokens does not use
        mixed_tokens = graph.input(I32 * self.rows)
        inp_mixed_embd = graph.input(size)
        inp_mixed_slots = graph.input(I64 * self.rows)
        embd = graph.add(size, tokens, place=host)
        mixed = graph.add(size, mixed_tokens, place=host)
        graph.add(size, inp_mixed_embd)  # set_rows writes into this copy, nothing reads it: it is never freed
        graph.add(0, mixed, inp_mixed_slots)
        scaled = self.traits.scaled or self.case.shape.metadata.get("embedding_scale")
        embd = graph.over(size, embd) if scaled else embd
        self.expanded = len(graph.nodes)
        return embd

    def finish(self, x: Node, unit: int, output: tuple[int, int]) -> None:
        """Add the output's norm and its matrix, of so many rows and bytes."""
        vocabulary, size = output
        self.unit, self.last = unit, False
        self.widths, self.bytes = {"output_norm": (self.embedding,)}, {"output": size}
        x = self.norm(x, "output_norm", pinned=False)
        self.weighted(self.graph.add(vocabulary * self.out_row, x), "output")

    def input(self, name: str, size: int) -> Node:
        """Return an input, added where it is first used."""
        node = self.inputs.get(name)
        if node is None:
            node = self.inputs[name] = self.graph.input(size)
        return node

    @property
    def positions(self) -> Node:
        """Where each token stands (build_inp_pos)."""
        return self.input("inp_pos", I32 * self.rows)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def weighted(self, node: Node, name: str, place: int | None = None) -> Node:
        """Put an operation where its weight is; the first device takes large batches from the host, weight and all."""
        case = self.case
        node.place = self.unit if place is None else place
        if node.place == case.host and case.offloads and self.rows >= _OFFLOAD_BATCH:
            node.place, node.weight = 0, max(self.bytes.get(name, 1), 1)
        return node

    def product(self, name: str, x: Node) -> Node:
        """Multiply by a matrix and add its bias (build_lora_mm)."""
        return self.biased(name, self.weighted(self.graph.add(math.prod(self.widths[name][1:]) * self.row, x), name))

    def biased(self, name: str, node: Node) -> Node:
        """Add a bias, where there is one."""
        bias = f"{name}.bias"
        return self.weighted(self.graph.over(node.size, node), bias) if bias in self.widths else node

    def norm(self, x: Node, name: str, *, pinned: bool = True) -> Node:
        """Normalize (build_norm); a norm that a block does not have changes nothing."""
        if name not in self.widths:
            return x
        normed = self.graph.add(x.size, x) if self.centred else self.graph.over(x.size, x)
        return self.normed(normed, name, pinned=pinned)

    def norm_view(self, x: Node, name: str, size: int) -> Node:
        """Normalize a view of a tensor, whose place the result cannot take."""
        return self.normed(self.graph.add(size, x), name)

    def normed(self, normed: Node, name: str, *, pinned: bool = True) -> Node:
        """Apply the weight of a norm."""
        if pinned and self.case.pinned:
            normed.place = self.unit
        return self.biased(name, self.weighted(self.graph.over(normed.size, normed), name))

    def chosen(self, x: Node) -> Node:
        """In the last block, keep only the rows that get logits (get_rows of out_ids)."""
        if not self.last:
            return x
        size = x.size // self.batch_row * self.out_row
        return self.graph.add(size, x, self.input("out_ids", I32 * self.case.outputs))

    # -- a block -------------------------------------------------------------------------------------------------------

    def block(self, placed: Placed, x: Node, *, last: bool) -> Node:
        """Add one block, and return its output."""
        self.widths, self.bytes = placed.kind.widths, placed.kind.bytes
        self.unit, self.experts, self.last, self.row = placed.unit, placed.experts, last, self.batch_row
        self.turns = placed.kind.turns
        has, graph = self.widths, self.graph
        normed = self.norm(x, "attn_norm")
        finish = self.mix(placed.kind.layer, normed, x)
        network = any(name.startswith("ffn_") for name in has)
        after = "post_attention_norm" in has and ("ffn_norm" in has or "post_ffw_norm" in has)
        before = "ffn_norm" if "ffn_norm" in has or "post_ffw_norm" in has else "post_attention_norm"
        if finish is None:  # a network alone (Nemotron-H)
            out = self.feed_forward(normed)
            out, x = self.chosen(out), self.chosen(x)
            return self.sum(out, x)
        if network and before not in has and not after and "post_ffw_norm" not in has:
            return self.side_by_side(normed, finish, x)
        out, x = self.chosen(finish()), self.chosen(x)
        self.row = self.out_row if last else self.row
        if after:
            out = self.norm(out, "post_attention_norm")
        inner = self.sum(out, x)
        if not network:
            return inner
        if "pre_ffw_norm_2" in has:
            out = self.beside_experts(inner)
        else:
            out = self.feed_forward(self.norm(inner, before))
        out = self.norm(out, "post_ffw_norm", pinned=False)
        out = self.sum(out, inner)
        return self.weighted(graph.over(out.size, out), "layer_output_scale") if "layer_output_scale" in has else out

    def sum(self, out: Node, x: Node) -> Node:
        """Add what a part of a block made to what went into it."""
        return self.graph.over(x.size, x, out) if self.traits.input_first else self.graph.over(out.size, out, x)

    def side_by_side(self, normed: Node, finish: Finish, x: Node) -> Node:
        """Add attention and network of the same input (models/command-r.cpp)."""
        normed = self.chosen(normed)
        batch_row, self.row = self.row, self.out_row if self.last else self.row
        out = self.feed_forward(normed)
        out = self.graph.over(out.size, out, self.chosen(x))
        self.row = batch_row
        attended = self.chosen(finish())
        self.row = self.out_row if self.last else self.row
        return self.graph.over(out.size, out, attended)

    def mix(self, layer: Layer, normed: Node, x: Node) -> Finish | None:
        """Let tokens look at each other, as far as the engine puts it into its graph at once; None: they do not."""
        has = self.widths
        if "attn_kv_a_mqa" in has and "attn_k_b" in has:
            return self.latent_attention(layer, normed)
        if layer.kind == "recurrent" or not ("attn_q" in has or "attn_qkv" in has):
            return recurrent.add(self, layer, normed)
        finish = self.attention(layer, normed)
        return recurrent.beside(self, layer, x, finish) if "ssm_in" in has else finish

    # -- attention -----------------------------------------------------------------------------------------------------

    def attention(self, layer: Layer, x: Node) -> Finish:
        """Add attention (build_qkv, build_attn)."""
        graph, has, row = self.graph, self.widths, self.row
        gated: Node | None = None
        if "attn_qkv" in has:
            q = k = v = wide = self.product("attn_qkv", x)
            values, keys = (layer.kv_heads * length * row for length in (layer.value_length, layer.key_length))
            if self.turns:
                q = graph.add(wide.size - keys - values, wide, self.positions)
                k = graph.add(keys, wide, self.positions)
            q, v, k = (self.rotated(layer, *part) for part in ((q, "k"), (v, "v"), (k, "k")))
            self.store(layer, k, v)
        else:
            width = has["attn_output"][0] // max(layer.value_length, 1) * layer.key_length * row
            wide = self.product("attn_q", x)
            gated = wide if wide.size > width else None  # queries with a gate of their own width (Qwen3-Next)
            q = self.rotated(layer, self.turned("attn_q", wide, width), "k")
            if "attn_k" in has:
                self.keys_and_values(layer, x)
        attended = self.attend(layer, q, has["attn_output"][0] * row)

        def finish() -> Node:
            out, gate = self.rotated(layer, attended, "v"), gated
            if gate:
                gate = graph.over(out.size, graph.add(out.size, gate))
            elif "attn_gate" in has:
                gate = self.product("attn_gate", x)
                gate = graph.over(gate.size, gate)
            if gate:
                out = graph.over(out.size, gate, out)
            return self.product("attn_output", self.norm(out, "attn_sub_norm"))

        return finish

    def keys_and_values(self, layer: Layer, x: Node) -> None:
        """Add keys and values, and write them into the cache."""
        if "attn_v" in self.widths and not self.case.windowed:
            v = self.rotated(layer, self.product("attn_v", x), "v")
            k = self.product("attn_k", x)
            k = self.rotated(layer, self.turned("attn_k", k, k.size), "k")
        else:  # build_attn of two caches takes keys first; without a matrix of values, keys are values too
            wide = self.product("attn_k", x)
            k = self.rotated(layer, self.turned("attn_k", wide, wide.size), "k")
            v = self.product("attn_v", x) if "attn_v" in self.widths else wide
            if "layer_output_scale" in self.widths:  # models/gemma4.cpp normalizes values
                v = self.graph.add(v.size, v)
            v = self.rotated(layer, v, "v")
        self.store(layer, k, v)

    def turned(self, name: str, x: Node, size: int) -> Node:
        """Normalize, by head or before heads are told apart, and turn by position (rope) where the layer does."""
        norm = f"{name}_norm"
        view = True
        if norm in self.widths:
            view = self.widths[norm][0] == self.widths[name][1]
            x = self.norm(x, norm) if view else self.norm_view(x, norm, size)
        if not self.turns:
            return x
        return self.graph.add(size, x, self.positions) if view else self.graph.over(size, x, self.positions)

    def rotated(self, layer: Layer, x: Node, part: str) -> Node:
        """Spread outliers before keys or values are packed into the cache (llama_mul_mat_hadamard)."""
        settings = self.case.settings
        kind, length = (settings.type_k, layer.key_length) if part == "k" else (settings.type_v, layer.value_length)
        if not packed(kind) or not length or length % _ROTATED:
            return x
        turns = _ROTATED
        while part == "k" and length % (2 * turns) == 0:
            turns *= 2
        return self.graph.add(x.size, self.input(f"{part}_rot {layer.window}", F32 * turns * turns), x)

    def store(self, layer: Layer, k: Node, v: Node | None) -> None:
        """Write keys and values into the cache (cpy_k, cpy_v)."""
        settings = self.case.settings
        place = self.unit if settings.kv_offload else self.case.host
        self.graph.add(0, k, self.input(f"k_idxs {layer.window}", I64 * self.rows), place=place)
        if v is not None:
            width = 1 if settings.flash_attention else layer.kv_heads * layer.value_length
            self.graph.add(0, v, self.input(f"v_idxs {layer.window}", I64 * self.rows * width), place=place)

    def attend(self, layer: Layer, q: Node, size: int) -> Node:
        """Let queries look at the cache (build_attn_mha)."""
        graph, settings = self.graph, self.case.settings
        seen = cells(settings, layer.window)
        flash = settings.flash_attention
        mask = self.input(f"kq_mask {layer.window}", seen * self.rows * (F16 if flash else F32))
        if flash:
            out = graph.add(size, q, mask)
        else:
            kq = graph.add(seen * q.size // layer.key_length, q)
            out = graph.add(size, graph.add(size, graph.over(kq.size, kq, mask)))
        self.expanded = len(graph.nodes)
        return out

    def latent_attention(self, layer: Layer, x: Node) -> Finish:
        """Add attention over one compressed key (models/deepseek2.cpp)."""
        graph, has, row = self.graph, self.widths, self.row
        if "attn_q_a" in has:
            q = self.product("attn_q_b", self.norm(self.product("attn_q_a", x), "attn_q_a_norm"))
        else:
            q = self.product("attn_q", x)
        _, rank, heads = has["attn_k_b"]
        rope = layer.key_length - rank
        q_nope_absorbed = self.weighted(graph.add(rank * heads * row, q), "attn_k_b")
        q_pe = graph.add(rope * heads * row, q, self.positions) if self.turns else q
        query = graph.add(layer.key_length * heads * row, q_nope_absorbed, q_pe)
        kv_cmpr_pe = self.product("attn_kv_a_mqa", x)
        kv_cmpr = self.norm_view(kv_cmpr_pe, "attn_kv_a_norm", rank * row)
        k_pe = graph.add(rope * row, kv_cmpr_pe, self.positions) if self.turns else kv_cmpr_pe
        self.store(layer, graph.add(layer.key_length * row, kv_cmpr, k_pe), None)
        wide = self.attend(layer, query, rank * heads * row)
        out = self.weighted(graph.add(has["attn_v_b"][1] * heads * row, wide), "attn_v_b")
        out = graph.add(out.size, out)
        self.expanded = len(graph.nodes)
        return lambda: self.product("attn_output", out)

    # -- feed-forward --------------------------------------------------------------------------------------------------

    def feed_forward(self, x: Node) -> Node:
        """Add the feed-forward network of a block: dense, or experts and what is shared beside them."""
        graph, has = self.graph, self.widths
        if "ffn_gate_inp" not in has:
            return self.dense(x, "")
        out = self.mixture(x, x)
        if "ffn_up_shexp" in has:
            shared = self.dense(x, "_shexp")
            if "ffn_gate_inp_shexp" in has:
                gate = self.weighted(graph.add(self.row, x), "ffn_gate_inp_shexp")
                shared = graph.over(shared.size, shared, graph.over(self.row, gate))
            out = graph.over(out.size, out, shared)
        return out

    def beside_experts(self, inner: Node) -> Node:
        """Add experts and a dense network, each with norms of its own (models/gemma4.cpp)."""
        graph = self.graph
        router = graph.over(inner.size, graph.add(inner.size, inner))
        router = self.weighted(graph.over(inner.size, router), "ffn_gate_inp.scale")
        sparse = self.mixture(router, inner)
        dense = self.norm(self.dense(self.norm(inner, "ffn_norm"), ""), "post_ffw_norm_1")
        return graph.over(dense.size, dense, self.norm(sparse, "post_ffw_norm_2"))

    def dense(self, x: Node, suffix: str) -> Node:
        """Add a dense network (build_ffn)."""
        graph, has = self.graph, self.widths
        up, gate, down = f"ffn_up{suffix}", f"ffn_gate{suffix}", f"ffn_down{suffix}"
        if gate in has:
            gated = self.product(gate, x)
            inner = graph.add(gated.size, gated, self.product(up, x))
        else:
            wide = self.product(up, x)
            size = has[down][0] * self.row
            inner = graph.over(size, wide) if size == wide.size else graph.add(size, wide)
        return self.product(down, inner)

    def mixture(self, router: Node, x: Node) -> Node:
        """Add the experts (build_moe_ffn); they take x, chosen by what the router sees."""
        graph, has, row = self.graph, self.widths, self.row
        width, out, experts = has["ffn_down_exps"]
        used = max(min(number(self.case.shape, "expert_used_count", 1), experts), 1)
        logits = self.product("ffn_gate_inp", router)
        selection = probs = graph.over(logits.size, logits)
        if "exp_probs_b.bias" in has:
            selection = self.weighted(graph.over(probs.size, probs), "exp_probs_b.bias")
        argsort = graph.add(probs.size, selection)
        weights = graph.add(used * row, probs, argsort)
        if self.case.shape.metadata.get("expert_weights_norm", not self.traits.plain_weights):
            weights = graph.add(used * row, weights, graph.over(row, graph.add(row, weights)))
        x = self.norm(x, "pre_ffw_norm_2")
        if self.traits.weighted_first:
            x = graph.over(out * used * row, graph.add(out * used * row, x), weights)
        if "ffn_gate_up_exps" in has:
            both = self.expert("ffn_gate_up_exps", 2 * width * used, x, argsort)
            inner = graph.add(width * used * row, both)
        elif "ffn_gate_exps" in has:
            gate = self.expert("ffn_gate_exps", width * used, x, argsort)
            inner = graph.add(gate.size, gate, self.expert("ffn_up_exps", width * used, x, argsort))
        else:
            up = self.expert("ffn_up_exps", width * used, x, argsort)
            inner = graph.over(up.size, up)
        down = self.expert("ffn_down_exps", out * used, inner, argsort)
        weighted = down if self.traits.weighted_first else graph.over(down.size, down, weights)
        total = graph.add(out * row, weighted)
        for _ in range(used - 2):
            total = graph.over(total.size, total, weighted)
        self.expanded = len(graph.nodes)
        return total

    def expert(self, name: str, width: int, x: Node, argsort: Node) -> Node:
        """Multiply by the chosen experts' matrices (mul_mat_id), and add their biases."""
        node = self.weighted(self.graph.add(width * self.row, x, argsort), name, self.experts)
        bias = f"{name}.bias"
        if bias in self.widths:
            return self.weighted(self.graph.over(node.size, node, argsort), bias, self.experts)
        return node
