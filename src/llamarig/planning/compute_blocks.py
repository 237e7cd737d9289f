"""The graph of a model as llama.cpp builds it (models/*.cpp), read off the tensors that its blocks have.

What decides sizes is which tensors a block has and how wide they are; architectures of the same tensors give the same
graph. What tensors do not show is in the traits of ``compute_case``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from llamarig.config.attention import Layer
from llamarig.planning import compute_attention as attention
from llamarig.planning import compute_gemma3n as gemma3n
from llamarig.planning import compute_network as network
from llamarig.planning import compute_recurrent as recurrent
from llamarig.planning.cells import cells
from llamarig.planning.compute_builder import I32, I64, Builder, Finish
from llamarig.planning.compute_case import Case, Placed, number
from llamarig.planning.compute_graph import Graph, Node

_STACKED: Final = 3  # dimensions of a tensor of all experts


def graph(case: Case, placed: Sequence[Placed], unit: int, *, rough: bool) -> Graph:
    """Build the graph of a batch; ``unit`` is where the output is computed.

    Raises:
        KeyError: a block lacks a tensor that its kind should have; then ``rough`` takes widths alone.

    """
    build = Builder(case)
    model = _Model(build, unit)
    x = model.start()
    for index, each in enumerate(placed):
        x = model.rough_block(each, x) if rough else model.block(each, x, last=index == len(placed) - 1)
    model.finish(x)
    return build.graph


def draft(case: Case, placed: Placed, unit: int) -> Graph:
    """Build the graph of the context that predicts further tokens (graph_mtp of models/glm4-moe.cpp and others).

    Raises:
        KeyError: the block lacks a tensor that it should have.

    """
    build = Builder(case)
    model = _Model(build, unit)
    size = build.embedding * build.batch_row
    nodes = build.graph
    tokens = build.input("inp_tokens", I32 * build.rows)
    hidden = build.input("mtp_h_input", size)
    embd = nodes.add(size, tokens, place=case.host)
    build.enter(placed)
    h_norm = build.norm_view(hidden, "nextn.hnorm", size)
    joined = nodes.add(2 * size, build.norm_view(embd, "nextn.enorm", size), h_norm)
    x = build.product("nextn.eh_proj", joined)
    x = model.block(placed, x, last=False)
    build.last = True
    model.finish(build.chosen(x))
    return nodes


class _Model:
    """Puts blocks together."""

    def __init__(self, build: Builder, unit: int) -> None:
        self.build = build
        self.graph = build.graph
        self.output = unit
        self.streams = "altup_proj.weight" in build.case.shape.by_name
        self.pictures: Node | None = None  # what is added to the first blocks' results (models/qwen3vl.cpp)
        self.token_inputs: Node | None = None  # what each block adds for each token (models/gemma4.cpp)
        self.project = False  # whether that has been projected

    # -- the ends ------------------------------------------------------------------------------------------------------

    def start(self) -> Node:
        """Embed the tokens (build_inp_embd), and a second time for a batch that mixes tokens and vectors."""
        build, graph, host = self.build, self.graph, self.build.case.host
        if not self.streams:
            self.tokens_of_blocks()
        size = build.embedding * build.batch_row
        pictures = number(build.case.shape, "n_deepstack_layers")
        wide = size * (1 + pictures)
        tokens = build.input("inp_tokens", I32 * build.rows)
        build.input("inp_embd", wide)  # which a batch of tokens does not use
        mixed_tokens = build.input("inp_mixed_tokens", I32 * build.rows)
        inp_mixed_embd = build.input("inp_mixed_embd", wide)
        inp_mixed_slots = build.input("inp_mixed_slots", I64 * build.rows)
        embd = graph.add(size, tokens, place=host)
        mixed = graph.add(size, mixed_tokens, place=host)
        if pictures:
            self.pictures = graph.add(wide, embd)
            mixed = graph.add(wide, mixed)
            embd = graph.view(self.pictures, size)
        graph.add(wide, inp_mixed_embd)  # set_rows writes into this copy, nothing reads it: it is never freed
        graph.add(0, mixed, inp_mixed_slots)
        if build.traits.scaled or build.case.shape.metadata.get("embedding_scale"):
            embd = graph.over(size, embd)
        self.embedded = embd
        if self.streams:
            self.tokens_of_blocks()
            build.unit = self.output
            if self.token_inputs:
                self.token_inputs = graph.over(self.token_inputs.size, self.token_inputs)
            embd = gemma3n.start(build, embd)
        build.expanded = len(graph.nodes)
        return embd

    def finish(self, x: Node) -> None:
        """Add the output's norm and its matrix."""
        build, shape = self.build, self.build.case.shape
        tensor = shape.by_name.get("output.weight") or shape.by_name.get("token_embd.weight")
        vocabulary = tensor.elements // tensor.dimensions[0] if tensor else shape.vocabulary
        build.unit, build.last = self.output, False
        if self.streams:
            x = gemma3n.finish(build, x)
        build.widths, build.bytes = {"output_norm": (build.embedding,)}, {"output": tensor.bytes if tensor else 0}
        x = build.norm(x, "output_norm", pinned=False)
        build.weighted(self.graph.add(vocabulary * build.out_row, x), "output")

    # -- a block -------------------------------------------------------------------------------------------------------

    def block(self, placed: Placed, x: Node, *, last: bool) -> Node:
        """Add one block, and return its output."""
        self.build.enter(placed, last=last)
        held = self.strange(placed.kind.strange, x)
        self.build.zeros = self.zeros(placed)
        if "altup_router" in placed.kind.widths:
            x = gemma3n.block(self.build, placed.kind.layer, x, self.token_input)
        else:
            x = self.known_block(placed.kind.layer, x)
        if placed.early and self.pictures:
            x = self.graph.over(x.size, x, self.pictures)
        if held:
            self.graph.add(0, *held)
        return x

    def strange(self, names: Sequence[str], x: Node) -> list[Node]:
        """Stand for matrices whose part in the graph is not known: as if all that comes of them lived all along."""
        build = self.build
        used = number(build.case.shape, "expert_used_count", 1)
        width = 0
        for name in names:
            size = build.widths[name]
            width += math.prod(size[1:]) if len(size) < _STACKED or "exps" not in name else size[1] * used
        return [build.weighted(self.graph.add(width * build.row, x), names[0])] if names else []

    def rough_block(self, placed: Placed, x: Node) -> Node:
        """Add a block of which only the widths are known."""
        build = self.build
        build.enter(placed)
        matrices = [name for name, size in build.widths.items() if len(size) > 1]
        return self.graph.add(x.size, x, *self.strange(matrices, x), place=placed.unit)

    def known_block(self, layer: Layer, x: Node) -> Node:
        """Add what is known of a block."""
        build, has = self.build, self.build.widths
        normed = build.norm(x, "attn_norm")
        finish = self.mix(layer, normed, x)
        after = "post_attention_norm" in has and ("ffn_norm" in has or "post_ffw_norm" in has)
        before = "ffn_norm" if "ffn_norm" in has or "post_ffw_norm" in has else "post_attention_norm"
        if finish is None:  # a network alone (Nemotron-H)
            out = network.feed_forward(build, normed)
            return self.sum(build.chosen(out), build.chosen(x))
        thinks = any(name.startswith("ffn_") for name in has)
        if thinks and before not in has and not after and "post_ffw_norm" not in has:
            return self.side_by_side(normed, finish, x)
        out, x = build.chosen(finish()), build.chosen(x)
        build.row = build.out_row if build.last else build.row
        if after:
            out = build.norm(out, "post_attention_norm")
        inner = self.sum(out, x)
        return self.networks(inner, before) if thinks else inner

    def networks(self, inner: Node, before: str) -> Node:
        """Add the second half of a block."""
        build, has, graph = self.build, self.build.widths, self.graph
        if "pre_ffw_norm_2" in has:
            out = network.beside_experts(build, inner)
        else:
            out = network.feed_forward(build, build.norm(inner, before))
        out = self.sum(build.norm(out, "post_ffw_norm", pinned=False), inner)
        if "inp_gate" in has and "proj" in has:
            out = self.add_token_input(out)
        return build.weighted(graph.over(out.size, out), "layer_output_scale") if "layer_output_scale" in has else out

    def sum(self, out: Node, x: Node) -> Node:
        """Add what a part of a block made to what went into it."""
        first = self.build.traits.input_first
        return self.graph.over(x.size, x, out) if first else self.graph.over(out.size, out, x)

    def side_by_side(self, normed: Node, finish: Finish, x: Node) -> Node:
        """Add attention and network of the same input (models/command-r.cpp)."""
        build = self.build
        normed = build.chosen(normed)
        build.row = build.out_row if build.last else build.row
        out = network.feed_forward(build, normed)
        out = self.graph.over(out.size, out, build.chosen(x))
        build.row = build.batch_row
        attended = build.chosen(finish())
        build.row = build.out_row if build.last else build.row
        return self.graph.over(out.size, out, attended)

    def mix(self, layer: Layer, normed: Node, x: Node) -> Finish | None:
        """Let tokens look at each other, as far as the engine puts it into its graph at once; None: they do not."""
        build, has = self.build, self.build.widths
        if "attn_kv_a_mqa" in has and "attn_k_b" in has:
            return attention.latent(build, layer, normed)
        if layer.kind == "recurrent" or not ("attn_q" in has or "attn_qkv" in has):
            return recurrent.add(build, layer, normed)
        finish = attention.full(build, layer, normed)
        return recurrent.beside(build, layer, x, finish) if "ssm_in" in has else finish

    # -- what few architectures have -----------------------------------------------------------------------------------

    def zeros(self, placed: Placed) -> Node | None:
        """Hold what attention to chosen tokens writes into masks: a tensor for each block, all there from the start."""
        case = self.build.case
        if "indexer.attn_k" not in placed.kind.widths:
            return None
        top = min(cells(case.settings, 0), number(case.shape, "attention.indexer.top_k"))
        return self.graph.leaf(placed.alike * top * self.build.rows * I32, placed.unit)

    def tokens_of_blocks(self) -> None:
        """Look up what each block adds for each token (build_inp_per_layer)."""
        build = self.build
        size = self.token_input_size
        if size:
            self.token_inputs = self.graph.add(size, build.input("ple", I32 * build.rows), place=build.case.host)

    @property
    def token_input_size(self) -> int:
        """Bytes of what all blocks add for each token."""
        tensor = self.build.case.shape.by_name.get("per_layer_token_embd.weight")
        return tensor.dimensions[0] * self.build.batch_row if tensor else 0

    def add_token_input(self, out: Node) -> Node:
        """Add what a block adds for each token (models/gemma4.cpp)."""
        build, graph = self.build, self.graph
        gate = build.product("inp_gate", out)
        gate = graph.over(gate.size, gate)
        inputs = self.token_input()
        proj = build.product("proj", graph.over(gate.size, gate, *([inputs] if inputs else [])))
        return graph.over(out.size, out, build.norm(proj, "post_norm"))

    def token_input(self) -> Node | None:
        """Return what the block at hand adds for each token; on another device than the first, a copy of its part."""
        build = self.build
        inputs = self.projected()
        if inputs and inputs.place != build.unit:
            return build.elsewhere(inputs.size // max(number(build.case.shape, "block_count"), 1), inputs.place or 0)
        return inputs

    def projected(self) -> Node | None:
        """Project what was looked up for the tokens, where it is first needed (project_per_layer_inputs)."""
        build, graph = self.build, self.graph
        looked_up = self.token_inputs
        if looked_up and not self.project:
            size = looked_up.size
            projected = build.weighted(graph.add(size, self.embedded), "per_layer_model_proj")
            projected = graph.over(size, projected)
            projected = build.weighted(graph.over(size, graph.add(size, projected)), "per_layer_proj_norm")
            looked_up = looked_up if self.streams else graph.over(size, looked_up)
            projected = graph.over(size, projected, looked_up)
            self.token_inputs = graph.add(size, graph.over(size, projected))
            self.token_inputs.place = build.unit
            self.project = True
        return self.token_inputs
