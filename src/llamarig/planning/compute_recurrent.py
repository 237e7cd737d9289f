"""Blocks that keep a state of fixed size instead of a cache: how llama.cpp computes a batch with it.

Each function adds what the engine puts into its graph at once, and returns what adds the rest.
"""

from __future__ import annotations

from llamarig.config.attention import Layer
from llamarig.planning.compute_builder import F32, Builder, Finish
from llamarig.planning.compute_graph import Node


def add(build: Builder, layer: Layer, x: Node) -> Finish | None:
    """Add what a block has of it; None where it keeps no state."""
    has = build.widths
    if "shortconv.conv" in has:
        return _short_convolution(build, layer, x)
    if "ssm_conv1d_q" in has:
        return _delta_attention(build, layer, x)
    if "ssm_conv1d" not in has:
        return None
    if "ssm_ba" in has or "ssm_beta" in has:
        return _delta_net(build, layer, x)
    return _mamba(build, layer, x) if "ssm_x" in has else _mamba2(build, layer, x)


def _states(build: Builder, elements: int) -> Node:
    """Fetch the states of all sequences (build_rs), where they are kept."""
    size = elements * build.slots * F32
    return build.graph.add(size, build.input("rs_s_copy", F32 * build.slots), place=build.unit)


def _states_first(build: Builder, elements: int) -> Node:
    """Fetch states before whatever of the last block the engine has not put into its graph yet."""
    nodes = build.graph.nodes
    node = _states(build, elements)
    nodes.insert(build.expanded, nodes.pop())
    build.expanded += 1
    return node


def _conv_input(build: Builder, conv: Node, x: Node, channels: int, taps: int) -> Node:
    """Put the last inputs of a convolution before this batch's, and keep the new last ones."""
    graph = build.graph
    conv_x = graph.add(channels * (build.row + (taps - 1) * build.slots * F32), conv, x)
    graph.add(0, conv_x, place=build.unit)
    build.expanded = len(graph.nodes)
    return conv_x


def _convolved(build: Builder, conv: Node, x: Node, channels: int, name: str) -> Node:
    """Convolve a batch with its last inputs (ggml_ssm_conv)."""
    conv_x = _conv_input(build, conv, x, channels, build.widths[name][0])
    return build.biased(name, build.weighted(build.graph.add(channels * build.row, conv_x), name))


def _delta_net(build: Builder, layer: Layer, x: Node) -> Finish:
    """Gated delta net, fused (models/qwen3next.cpp and qwen35.cpp, delta-net-base.cpp)."""
    graph, has, row = build.graph, build.widths, build.row
    channels = has["ssm_conv1d"][1]
    inner = has["ssm_out"][0]
    keys = (channels - inner) // 2
    conv = _states(build, layer.conv_elements)
    if "attn_qkv" in has:
        mixed = build.product("attn_qkv", x)
        z: Node | None = None
    else:  # older files have one matrix for all of it
        wide = build.product("ssm_in", x)
        z = graph.add(inner * row, wide)
        mixed = graph.add(2 * keys * row, graph.add(keys * row, wide), graph.add(keys * row, wide))
        mixed = graph.add(channels * row, mixed, graph.add(inner * row, wide))
    conv_input = _conv_input(build, conv, mixed, channels, has["ssm_conv1d"][0])
    state = _states(build, layer.state_elements)
    convolved = build.weighted(graph.add(channels * row, conv_input), "ssm_conv1d")
    convolved = graph.over(convolved.size, convolved)
    normed = []
    for _ in "qk":
        part = graph.add(keys * row, convolved)
        part = graph.over(part.size, part)
        if "ssm_ba" in has and keys != inner:  # models/qwen3next.cpp repeats them for the heads of values
            part = graph.add(inner * row, part)
        normed.append(part)
    heads = has["ssm_a"][-1] * row
    if "ssm_ba" in has:
        ba = build.product("ssm_ba", x)
        gate = graph.over(heads, graph.add(heads, ba))
        beta = graph.add(heads, ba)
    else:
        gate = graph.add(heads, build.product("ssm_alpha", x))
        beta = graph.add(heads, build.product("ssm_beta", x))
    size = inner * row + layer.state_elements * build.snapshots * F32
    result = graph.add(size, *normed, convolved, gate, beta, state)
    graph.add(0, result, place=build.unit)
    build.expanded = len(graph.nodes)

    def finish() -> Node:
        out = build.norm_view(result, "ssm_norm", inner * row)
        gate = z or build.product("attn_gate", x)
        out = build.product("ssm_out", graph.over(out.size, out, graph.add(gate.size, gate)))
        out.reshaped = True
        return out

    return finish


def _delta_attention(build: Builder, layer: Layer, x: Node) -> Finish:
    """Kimi's delta attention, with a gate for each number of a head (models/kimi-linear.cpp)."""
    graph, has, row = build.graph, build.widths, build.row
    conv = _states(build, layer.conv_elements)
    channels = has["ssm_f_b"][1]
    rolled = []
    for name in "qkv":
        taps = has[f"ssm_conv1d_{name}"][0]
        conv_x = graph.add(channels * (row + (taps - 1) * build.slots * F32), conv, build.product(f"attn_{name}", x))
        graph.add(0, conv_x, place=build.unit)
        rolled.append(conv_x)
    state = _states(build, layer.state_elements)
    parts = []
    for name, conv_x in zip("qkv", rolled, strict=True):
        part = graph.add(channels * row, build.weighted(graph.add(channels * row, conv_x), f"ssm_conv1d_{name}"))
        if name != "v":
            part = graph.add(part.size, part)
            part = graph.over(part.size, part)
        parts.append(part)
    gate = build.product("ssm_f_b", build.product("ssm_f_a", x))
    gate = graph.add(gate.size, graph.over(gate.size, gate))
    beta = graph.add(has["ssm_beta"][1] * row, build.product("ssm_beta", x))
    size = channels * row + layer.state_elements * build.snapshots * F32
    result = graph.add(size, *parts, gate, beta, state)
    graph.add(0, result, place=build.unit)
    build.expanded = len(graph.nodes)

    def finish() -> Node:
        out = build.norm_view(graph.add(channels * row, result), "ssm_norm", channels * row)
        gate = build.product("ssm_g_b", build.product("ssm_g_a", x))
        out = graph.over(out.size, out, graph.add(gate.size, gate))
        return build.product("attn_output", graph.add(out.size, out))

    return finish


def beside(build: Builder, layer: Layer, x: Node, attended: Finish) -> Finish:
    """Add a state beside attention, both from the block's input (models/falcon-h1.cpp)."""
    conv = _states_first(build, layer.conv_elements)
    scanned = _scanned(build, layer, build.norm(x, "attn_norm"), conv)

    def finish() -> Node:
        out = attended()
        return build.graph.over(out.size, out, _gated(build, *scanned))

    return finish


def _mamba2(build: Builder, layer: Layer, x: Node) -> Finish:
    """Mamba 2 (models/mamba-base.cpp, build_mamba2_layer)."""
    scanned = _scanned(build, layer, x, _states_first(build, layer.conv_elements))
    return lambda: _gated(build, *scanned)


def _scanned(build: Builder, layer: Layer, x: Node, conv: Node) -> tuple[Node, Node, Node]:
    graph, has, row = build.graph, build.widths, build.row
    inner = has["ssm_out"][0] * row
    wide = build.product("ssm_in", x)
    convolved = _convolved(build, conv, wide, has["ssm_conv1d"][1], "ssm_conv1d")
    convolved = graph.over(convolved.size, convolved)
    heads = has["ssm_dt.bias"][0] * row
    dt = build.weighted(graph.over(heads, graph.add(heads, wide)), "ssm_dt.bias")
    scan = graph.add(inner + layer.state_elements * build.snapshots * F32, convolved, dt)
    graph.add(0, scan, place=build.unit)
    build.expanded = len(graph.nodes)
    return wide, convolved, scan


def _gated(build: Builder, wide: Node, convolved: Node, scan: Node) -> Node:
    graph = build.graph
    inner = build.widths["ssm_out"][0] * build.row
    z = graph.add(inner, wide)
    y = build.weighted(graph.add(inner, convolved), "ssm_d")
    out = graph.add(inner, z, graph.over(inner, y, scan))
    return build.product("ssm_out", build.norm_view(out, "ssm_norm", inner) if "ssm_norm" in build.widths else out)


def _mamba(build: Builder, layer: Layer, x: Node) -> Finish:
    """Mamba (models/mamba-base.cpp, build_mamba_layer)."""
    graph, has, row = build.graph, build.widths, build.row
    conv = _states_first(build, layer.conv_elements)
    inner = has["ssm_out"][0] * row
    wide = build.product("ssm_in", x)
    convolved = _convolved(build, conv, wide, has["ssm_conv1d"][1], "ssm_conv1d")
    convolved = graph.over(inner, convolved)
    x_db = build.product("ssm_x", convolved)
    dt = build.product("ssm_dt", graph.add(has["ssm_dt"][0] * row, x_db))
    scan = graph.add(inner + layer.state_elements * build.snapshots * F32, convolved, dt, x_db)
    graph.add(0, scan, place=build.unit)
    build.expanded = len(graph.nodes)
    return lambda: _gated(build, wide, convolved, scan)


def _short_convolution(build: Builder, layer: Layer, x: Node) -> Finish:
    """Gated short convolution (models/lfm2.cpp)."""
    graph, has, row = build.graph, build.widths, build.row
    conv = _states_first(build, layer.conv_elements)
    wide = build.product("shortconv.in_proj", x)
    channels = has["shortconv.out_proj"][0]
    bx = graph.add(channels * row, wide)
    convolved = _convolved(build, conv, bx, channels, "shortconv.conv")
    return lambda: build.product("shortconv.out_proj", graph.over(convolved.size, convolved, wide))
