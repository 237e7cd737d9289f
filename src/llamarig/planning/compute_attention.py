"""Attention as llama.cpp computes it for a batch: over keys and values of a cache, or over one compressed key."""

from __future__ import annotations

from typing import Final

from llamarig.config.attention import Layer
from llamarig.planning.cells import cells, element_bytes
from llamarig.planning.compute_builder import F16, F32, I32, I64, Builder, Finish
from llamarig.planning.compute_case import number, packed
from llamarig.planning.compute_graph import Node

_ROTATED: Final = 64  # llama_kv_cache rotates keys and values of heads of multiples of this when they are packed


def full(build: Builder, layer: Layer, x: Node) -> Finish:
    """Add attention with heads of keys and values (build_qkv, build_attn)."""
    graph, has, row = build.graph, build.widths, build.row
    gated: Node | None = None
    if "attn_qkv" in has:
        q = _joined(build, layer, x)
    else:
        width = has["attn_output"][0] // max(layer.value_length, 1) * layer.key_length * row
        wide = build.product("attn_q", x)
        gated = wide if wide.size > width else None  # queries with a gate of their own width (Qwen3-Next)
        q = _rotated(build, layer, _turned(build, "attn_q", wide, width), "k")
        if layer.cached or layer.mtp:
            _keys_and_values(build, layer, x)
    attended = _attended(build, layer, q, has["attn_output"][0] * row)

    def finish() -> Node:
        out = _rotated(build, layer, attended, "v")
        gate: Node | None = None
        if gated:
            gate = graph.add(out.size, gated)
        elif "attn_gate" in has:
            gate = build.product("attn_gate", x)
        if gate:
            gate = graph.over(gate.size, gate)
            out = graph.over(out.size, gate, out) if gate.size == out.size else graph.add(out.size, out, gate)
        return build.product("attn_output", build.norm(out, "attn_sub_norm"))

    return finish


def _joined(build: Builder, layer: Layer, x: Node) -> Node:
    """Add queries, keys and values of one matrix, keep what the cache keeps, and return the queries."""
    graph, row = build.graph, build.row
    q = k = v = wide = build.product("attn_qkv", x)
    if build.turns:
        values, keys = (layer.kv_heads * length * row for length in (layer.value_length, layer.key_length))
        q = graph.add(wide.size - keys - values, wide, build.positions)
        k = graph.add(keys, wide, build.positions)
    q, v, k = (_rotated(build, layer, *part) for part in ((q, "k"), (v, "v"), (k, "k")))
    _store(build, layer, k, v)
    return q


def _keys_and_values(build: Builder, layer: Layer, x: Node) -> None:
    """Add keys and values, and write them into the cache."""
    if "attn_v" in build.widths and not build.case.windowed:
        v = _rotated(build, layer, build.product("attn_v", x), "v")
        k = build.product("attn_k", x)
        k = _rotated(build, layer, _turned(build, "attn_k", k, k.size), "k")
    else:  # build_attn of two caches takes keys first; without a matrix of values, keys are values too
        wide = build.product("attn_k", x)
        k = _rotated(build, layer, _turned(build, "attn_k", wide, wide.size), "k")
        v = build.product("attn_v", x) if "attn_v" in build.widths else wide
        if build.traits.normed_values:
            v = build.graph.add(v.size, v)
        v = _rotated(build, layer, v, "v")
    _store(build, layer, k, v)


def _turned(build: Builder, name: str, x: Node, size: int) -> Node:
    """Normalize, by head or before heads are told apart, and turn by position (rope) where the layer does."""
    norm = f"{name}_norm"
    view = True
    if norm in build.widths:
        view = build.widths[norm][0] == build.widths[name][1]
        x = build.norm(x, norm) if view else build.norm_view(x, norm, size)
    if not build.turns:
        return x
    return build.graph.add(size, x, build.positions) if view else build.graph.over(size, x, build.positions)


def _rotated(build: Builder, layer: Layer, x: Node, part: str) -> Node:
    """Spread outliers before keys or values are packed into the cache (llama_mul_mat_hadamard)."""
    settings = build.case.settings
    kind, length = (settings.type_k, layer.key_length) if part == "k" else (settings.type_v, layer.value_length)
    if not packed(kind) or not length or length % _ROTATED:
        return x
    turns = _ROTATED
    while part == "k" and length % (2 * turns) == 0:
        turns *= 2
    return build.graph.add(x.size, build.input(f"{part}_rot {layer.window}", F32 * turns * turns), x)


def _store(build: Builder, layer: Layer, k: Node, v: Node | None) -> None:
    """Write keys and values into the cache (cpy_k, cpy_v)."""
    case = build.case
    place = build.unit if case.settings.kv_offload else case.host
    build.graph.add(0, k, build.input(f"k_idxs {layer.window}", I64 * build.rows), place=place)
    if v is not None:
        width = 1 if case.flash else max(case.value_widths.get(layer.window, 1), 1)
        if not case.flash and layer.kv_heads * layer.value_length < width:
            v = build.graph.add(width * build.row, v)  # the cache of values is as wide as its widest layer
        build.graph.add(0, v, build.input(f"v_idxs {layer.window}", I64 * build.rows * width), place=place)


def _mask(build: Builder, layer: Layer, of: str = "kq_mask") -> Node:
    """Return what says which cells each token may look at (build_attn_inp_kq_mask)."""
    size = F16 if build.case.flash else F32
    return build.input(f"{of} {layer.window}", cells(build.case.settings, layer.window) * build.rows * size)


def _attended(build: Builder, layer: Layer, q: Node, size: int, mask: Node | None = None) -> Node:
    """Let queries look at the cache (build_attn_mha)."""
    graph = build.graph
    mask = mask or _mask(build, layer)
    keys, values = _shared(build, layer)
    if build.case.flash:
        out = graph.add(size + _unpacked(build, layer), q, *keys, *values, mask)
    else:
        kq = graph.add(cells(build.case.settings, layer.window) * q.size // layer.key_length, *keys, q)
        kq = graph.over(kq.size, kq, mask)
        out = graph.add(size, graph.add(size, *values, *_turned_values(build, layer), kq))
    build.expanded = len(graph.nodes)
    return out


def _turned_values(build: Builder, layer: Layer) -> tuple[Node, ...]:
    """Turn compressed values, which a cache of keys holds the other way round (v_cont in build_attn_mha)."""
    if layer.kind != "mla":
        return ()
    settings = build.case.settings
    streams = 1 if settings.unified else build.slots
    tokens = cells(settings, layer.window) * streams
    return (build.graph.add(tokens * element_bytes(settings.type_k, build.widths["attn_k_b"][1])),)


def _shared(build: Builder, layer: Layer) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """Return keys and values of another layer's cache (Gemma 3n, 4): they cross where that lies on another device."""
    if layer.cached or layer.mtp or build.kept == build.unit:
        return (), ()
    settings = build.case.settings
    streams = 1 if settings.unified else build.slots
    tokens = cells(settings, layer.window) * streams
    kinds = ((settings.type_k, layer.key_length), (settings.type_v, layer.value_length))
    keys, values = (
        build.elsewhere(tokens * element_bytes(kind, layer.kv_heads * length), build.kept) for kind, length in kinds
    )
    return (keys,), (values,)


def _unpacked(build: Builder, layer: Layer) -> int:
    """Return the bytes in which CUDA unpacks the cache for fused attention (fattn-common.cuh, f16_extra_data)."""
    settings = build.case.settings
    if not build.case.mode.cuda or build.unit == build.case.host or not settings.kv_offload:
        return 0
    streams = 1 if settings.unified else build.slots
    parts = ((settings.type_k, layer.key_length), (settings.type_v, layer.value_length))
    numbers = sum(length for kind, length in parts if kind != "f16") * max(layer.kv_heads, 1)
    return numbers * cells(settings, layer.window) * streams * F16


def latent(build: Builder, layer: Layer, x: Node) -> Finish:
    """Add attention over one compressed key (models/deepseek2.cpp), and over chosen tokens (models/deepseek32.cpp)."""
    graph, has, row = build.graph, build.widths, build.row
    sparse = "indexer.attn_k" in has
    if sparse and layer.index_key_length:
        _index_keys(build, x)
    qr: Node | None = None
    if "attn_q_a" in has:
        qr = build.norm(build.product("attn_q_a", x), "attn_q_a_norm")
        q = build.product("attn_q_b", qr)
    else:
        q = build.product("attn_q", x)
    _, rank, heads = has["attn_k_b"]
    rope = layer.key_length - rank
    q_nope_absorbed = build.weighted(graph.add(rank * heads * row, q), "attn_k_b")
    q_pe = graph.add(rope * heads * row, q, build.positions) if build.turns else q
    query = graph.add(layer.key_length * heads * row, q_nope_absorbed, q_pe)
    kv_cmpr_pe = build.product("attn_kv_a_mqa", x)
    kv_cmpr = build.norm_view(kv_cmpr_pe, "attn_kv_a_norm", rank * row)
    k_pe = graph.add(rope * row, kv_cmpr_pe, build.positions) if build.turns else kv_cmpr_pe
    _store(build, layer, graph.add(layer.key_length * row, kv_cmpr, k_pe), None)
    mask = _sparse_mask(build, layer, x, qr) if sparse and qr else None
    wide = _attended(build, layer, query, rank * heads * row, mask)
    out = build.weighted(graph.add(has["attn_v_b"][1] * heads * row, wide), "attn_v_b")
    out = graph.add(out.size, out)
    build.expanded = len(graph.nodes)
    return lambda: build.product("attn_output", out)


def _index_keys(build: Builder, x: Node) -> None:
    """Add the keys by which the lightning indexer finds tokens, and keep them."""
    graph = build.graph
    key = build.product("indexer.attn_k", x)
    key = graph.over(key.size, graph.add(key.size, key))
    key = graph.add(key.size, graph.add(key.size, key, build.positions), _index_rotation(build))
    graph.add(0, key, build.input("k_idxs lid", I64 * build.rows), place=build.unit)


def _index_rotation(build: Builder) -> Node:
    length = build.widths["indexer.attn_k"][1]
    return build.input("k_rot lid", F32 * length * length)


def _sparse_mask(build: Builder, layer: Layer, x: Node, qr: Node) -> Node:
    """Choose the tokens that attention looks at, and mask all others (build_attn with top_k)."""
    graph = build.graph
    seen = cells(build.case.settings, layer.window)
    top = min(seen, number(build.case.shape, "attention.indexer.top_k", seen)) * build.rows * I32
    if layer.index_key_length:
        query = build.product("indexer.attn_q_b", qr)
        query = graph.add(query.size, graph.add(query.size, query, build.positions), _index_rotation(build))
        weights = build.product("indexer.proj", x)
        weights = graph.add(weights.size, weights)
        score = graph.add(seen * build.row, query, weights, _mask(build, layer, "kq_mask lid"))
        build.chosen_tokens = graph.add(top, graph.add(top, score))
    mask = _mask(build, layer)
    nothing = graph.add(mask.size, mask)
    graph.add(0, *(node for node in (build.zeros, build.chosen_tokens) if node))
    return graph.add(mask.size, nothing, mask)
