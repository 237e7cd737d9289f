"""Feed-forward networks as llama.cpp computes them for a batch: dense, or experts and what is shared beside them."""

from __future__ import annotations

from typing import Final

from llamarig.planning.compute_builder import Builder
from llamarig.planning.compute_case import number
from llamarig.planning.compute_graph import Node

# MOE_WEIGHTED_REDUCTION_MAX_EXPERTS: so many experts' results CUDA weighs and adds up at once, and keeps until then.
_FUSED_EXPERTS: Final = 15
_MOST_EXPERTS: Final = 512  # LLAMA_MAX_EXPERTS


def feed_forward(build: Builder, x: Node) -> Node:
    """Add the network of a block."""
    graph, has = build.graph, build.widths
    if "ffn_gate_inp" not in has:
        return _dense(build, x, "")
    out = _mixture(build, x, x)
    if "ffn_latent_up" in has:  # experts of a narrower width (models/nemotron-h.cpp)
        out = build.product("ffn_latent_up", out)
    if "ffn_up_shexp" in has:
        shared = _dense(build, x, "_shexp")
        if "ffn_gate_inp_shexp" in has:
            gate = build.weighted(graph.add(build.row, x), "ffn_gate_inp_shexp")
            shared = graph.over(shared.size, shared, graph.over(build.row, gate))
        out = graph.over(out.size, out, shared)
    return out


def beside_experts(build: Builder, inner: Node) -> Node:
    """Add experts and a dense network, each with norms of its own (models/gemma4.cpp)."""
    graph = build.graph
    router = graph.over(inner.size, graph.add(inner.size, inner))
    router = build.weighted(graph.over(inner.size, router), "ffn_gate_inp.scale")
    sparse = _mixture(build, router, inner)
    dense = build.norm(_dense(build, build.norm(inner, "ffn_norm"), ""), "post_ffw_norm_1")
    return graph.over(dense.size, dense, build.norm(sparse, "post_ffw_norm_2"))


def _dense(build: Builder, x: Node, suffix: str) -> Node:
    """Add a dense network (build_ffn)."""
    graph, has = build.graph, build.widths
    up, gate, down = f"ffn_up{suffix}", f"ffn_gate{suffix}", f"ffn_down{suffix}"
    if gate in has:
        gated = build.product(gate, x)
        inner = graph.add(gated.size, gated, build.product(up, x))
    else:
        wide = build.product(up, x)
        size = has[down][0] * build.row
        inner = graph.over(size, wide) if size == wide.size else graph.add(size, wide)
    return build.product(down, inner)


def _mixture(build: Builder, router: Node, x: Node) -> Node:
    """Add the experts (build_moe_ffn); they take x, and are chosen by what the router sees."""
    graph, has, row = build.graph, build.widths, build.row
    width, out, experts = has["ffn_down_exps"]
    used = max(min(number(build.case.shape, "expert_used_count", 1), experts, _MOST_EXPERTS), 1)
    argsort, weights = _routed(build, router, used)
    x = build.norm(x, "pre_ffw_norm_2")
    if "ffn_latent_down" in has:
        x = build.product("ffn_latent_down", x)
    if build.traits.weighted_first:
        x = graph.over(out * used * row, graph.add(out * used * row, x), weights)
    if "ffn_gate_up_exps" in has:
        both = _expert(build, "ffn_gate_up_exps", 2 * width * used, x, argsort)
        inner = graph.add(width * used * row, both)
    elif "ffn_gate_exps" in has:
        gate = _expert(build, "ffn_gate_exps", width * used, x, argsort)
        inner = graph.add(gate.size, gate, _expert(build, "ffn_up_exps", width * used, x, argsort))
    else:
        up = _expert(build, "ffn_up_exps", width * used, x, argsort)
        inner = graph.over(up.size, up)
    down = _expert(build, "ffn_down_exps", out * used, inner, argsort)
    weighted = down if build.traits.weighted_first else graph.over(down.size, down, weights)
    total = graph.add(out * row, weighted)
    for _ in range(used - 2):
        total = graph.over(total.size, total, weighted)
    if build.case.mode.cuda and 1 < used <= _FUSED_EXPERTS and not build.traits.weighted_first:
        graph.add(0, down, weights)
    build.expanded = len(graph.nodes)
    return total


def _routed(build: Builder, router: Node, used: int) -> tuple[Node, Node]:
    """Add the choice of experts, and their weights."""
    graph, row = build.graph, build.row
    logits = build.product("ffn_gate_inp", router)
    selection = probs = graph.over(logits.size, logits)
    if "exp_probs_b.bias" in build.widths:
        selection = build.weighted(graph.over(probs.size, probs), "exp_probs_b.bias")
    argsort = graph.add(probs.size, selection)
    weights = graph.add(used * row, probs, argsort)
    if build.case.shape.metadata.get("expert_weights_norm", not build.traits.plain_weights):
        weights = graph.add(used * row, weights, graph.over(row, graph.add(row, weights)))
    return argsort, weights


def _expert(build: Builder, name: str, width: int, x: Node, argsort: Node) -> Node:
    """Multiply by the chosen experts' matrices (mul_mat_id), and add their biases."""
    node = build.weighted(build.graph.add(width * build.row, x, argsort), name, build.experts)
    bias = f"{name}.bias"
    if bias in build.widths:
        return build.weighted(build.graph.over(node.size, node, argsort), bias, build.experts)
    return node
