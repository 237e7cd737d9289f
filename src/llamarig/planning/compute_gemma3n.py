"""Gemma 3n, whose blocks hand on four streams instead of one (models/gemma3n.cpp)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from llamarig.config.attention import Layer
from llamarig.planning import compute_attention as attention
from llamarig.planning.compute_builder import Builder
from llamarig.planning.compute_case import SPARSE_LAYERS
from llamarig.planning.compute_graph import Node

_STREAMS: Final = 4  # n_altup


def start(build: Builder, embedded: Node) -> Node:
    """Make the other streams from the first (altup_proj)."""
    graph, size = build.graph, embedded.size
    others = (_STREAMS - 1) * size
    made = build.weighted(graph.add(others, graph.add(others, embedded)), "altup_proj")
    magnitude = graph.add(build.row, graph.add(size, embedded))
    return graph.add(_STREAMS * size, embedded, _even(build, made, magnitude))


def _even(build: Builder, made: Node, magnitude: Node) -> Node:
    """Bring streams to the magnitude of the first."""
    graph = build.graph
    scaled = graph.add(made.size, made, graph.over(build.row, magnitude))
    theirs = graph.add((_STREAMS - 1) * build.row, graph.over(made.size, made))
    return graph.over(made.size, scaled, graph.over(theirs.size, theirs))


def block(build: Builder, layer: Layer, stacked: Node, token_input: Callable[[], Node | None]) -> Node:
    """Add one block; ``token_input`` adds what the block has for each token."""
    graph = build.graph
    size = stacked.size // _STREAMS
    turned = graph.add(stacked.size, stacked)
    coefficients = build.product("altup_predict_coef", _modalities(build, graph.add(size, stacked)))
    predictions = graph.add(stacked.size, graph.add(stacked.size, turned, coefficients))
    predictions = graph.over(stacked.size, predictions, stacked)
    normed = build.norm_view(predictions, "attn_norm", size)
    attended = build.norm(attention.full(build, layer, normed)(), "post_attention_norm")
    attended = graph.over(size, attended, predictions)
    laurel = build.norm(build.product("laurel_r", build.product("laurel_l", normed)), "laurel_post_norm")
    attended = graph.over(size, attended, graph.over(size, laurel, normed))
    attended = graph.over(size, attended)
    out = _network(build, build.norm(attended, "ffn_norm"), sparse=layer.number < SPARSE_LAYERS)
    out = build.norm(out, "post_ffw_norm", pinned=False)
    out = graph.over(size, out, attended)
    innovation = graph.add(stacked.size, graph.add(size, out, predictions))
    coefficients = build.product("altup_correct_coef", _modalities(build, graph.over(size, out)))
    coefficients = graph.over(coefficients.size, coefficients)
    corrected = graph.over(stacked.size, innovation, graph.add(coefficients.size, coefficients))
    corrected = graph.over(stacked.size, corrected, predictions)
    gate = build.product("inp_gate", build.weighted(graph.add(size, corrected), "altup_correct_scale"))
    gate = graph.over(gate.size, gate)
    inputs = token_input()
    gate = graph.over(gate.size, gate, *([inputs] if inputs else []))
    first = build.norm(build.product("proj", gate), "post_norm")
    others = graph.add(stacked.size - size, corrected, first)
    return graph.add(stacked.size, corrected, others)


def _modalities(build: Builder, normed: Node) -> Node:
    """Say how much each stream counts (altup_compute_router_modalities)."""
    graph = build.graph
    normed = build.weighted(graph.over(normed.size, normed), "altup_router_norm")
    modalities = build.product("altup_router", graph.over(normed.size, normed))
    return graph.over(modalities.size, modalities)


def _network(build: Builder, x: Node, *, sparse: bool) -> Node:
    """Add a dense network, of which only the largest activations may count (gaussian_topk)."""
    graph = build.graph
    up, gate = build.product("ffn_up", x), build.product("ffn_gate", x)
    if sparse:
        mean = graph.add(build.row, gate)
        spread = graph.add(build.row, graph.over(gate.size, graph.add(gate.size, gate, mean)))
        gate = graph.over(gate.size, gate, graph.over(build.row, mean, spread))
        gate = graph.over(gate.size, gate)
    return build.product("ffn_down", graph.over(up.size, up, graph.over(gate.size, gate)))


def finish(build: Builder, stacked: Node) -> Node:
    """Merge the streams into one, and keep the rows that get logits."""
    graph = build.graph
    size = stacked.size // _STREAMS
    others = build.weighted(graph.add(stacked.size - size, stacked), "altup_unembd_proj")
    others = _even(build, others, graph.add(build.row, graph.add(size, stacked)))
    merged = graph.add(size, stacked, others)
    for _ in range(_STREAMS - 2):
        merged = graph.over(size, merged, others)
    build.last = True
    return build.chosen(graph.over(size, merged))
