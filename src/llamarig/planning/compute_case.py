"""What a graph is built from: a model's kinds of blocks, what its tensors do not show, and a server's settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from llamarig.config.attention import Layer, kinds, known
from llamarig.config.shape import TYPE_BLOCKS, Shape
from llamarig.planning.cells import padded, slots
from llamarig.planning.layout import Settings

SPARSE_LAYERS: Final = (
    10  # n_layer_sparsity (models/gemma3n.cpp): so many layers let only their largest activations count
)
_CUDA_HEADS: Final = frozenset({40, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576})
# Matrices that the graphs of compute_blocks and compute_recurrent have a place for.
_PLACED: Final = re.compile(
    r"attn_(q|k|v|qkv|output|gate|q_a|q_b|kv_a_mqa|k_b|v_b|q_norm|k_norm)"
    r"|ffn_(up|gate|down)(_shexp|_exps)?(\.bias)?|ffn_gate_up_exps|ffn_gate_inp(_shexp)?"
    r"|ssm_(in|out|conv1d|conv1d_[qkv]|x|dt|a|d|norm|ba|alpha|beta|f_a|f_b|g_a|g_b)"
    r"|indexer\.(attn_k|attn_q_b|proj)|ffn_latent_(up|down)|inp_gate|proj|laurel_(l|r)|altup_(router|correct_coef|predict_coef)"
    r"|shortconv\.(conv|in_proj|out_proj)|nextn\..*"
)
_MOST_LAYERS: Final = 512  # LLAMA_MAX_LAYERS


@dataclass(frozen=True)
class Kind:
    """What blocks of the same tensors share.

    Attributes:
        widths: dimensions of each tensor, by its name without ``blk.N.`` and ``.weight``.
        bytes: of each tensor, in the block where it is largest.
        layer: what the first of these blocks keeps between tokens.
        turns: whether queries and keys are turned by their position (rope).
        strange: matrices that the graph here has no place for.

    """

    widths: Mapping[str, tuple[int, ...]]
    bytes: Mapping[str, int]
    layer: Layer
    turns: bool = True
    strange: tuple[str, ...] = ()

    @property
    def counted(self) -> bool:
        """Whether it matters how many blocks of this kind there are: each holds something while others run."""
        return "indexer.attn_k" in self.widths or (self.layer.kv_heads > 0 and not self.layer.cached)


@dataclass(frozen=True, slots=True)
class Placed:
    """One block to build.

    Attributes:
        kind: what it is made of.
        unit: its device.
        experts: the device of its experts.
        kept: the device of the cache that it reads where it has none of its own.
        early: it is one of the first blocks, to which pictures are added.
        alike: how many blocks alike it stands for, where that matters.

    """

    kind: Kind
    unit: int
    experts: int
    kept: int
    early: bool = False
    alike: int = 1


@dataclass(frozen=True, slots=True)
class Traits:
    """What decides about the graph and cannot be seen in a model's tensors.

    Attributes:
        scaled: the embeddings are multiplied before the first block.
        weighted_first: the experts' weights are applied to what goes in, not to what comes out (build_moe_ffn).
        plain_weights: the experts' weights are not brought to a sum of one, unless the model says so.
        input_first: sums begin with what goes into a part of a block, so that they take its place.
        normed_values: values are normalized before they are kept.
        unturned: which layers take no account of positions (rope): none, all, every fourth, or those without a window.

    """

    scaled: bool = False
    weighted_first: bool = False
    plain_weights: bool = False
    input_first: bool = False
    normed_values: bool = False
    unturned: Literal["none", "all", "fourth", "full"] = "none"


TRAITS: Final[Mapping[str, Traits]] = {
    "gemma": Traits(scaled=True),
    "gemma2": Traits(scaled=True),
    "gemma3": Traits(scaled=True),
    "gemma3n": Traits(scaled=True, normed_values=True),
    "gemma4": Traits(scaled=True, normed_values=True),
    "llama4": Traits(weighted_first=True, plain_weights=True),
    "gpt-oss": Traits(plain_weights=True),
    "deepseek": Traits(plain_weights=True),
    "deepseek2": Traits(plain_weights=True),
    "glm4moe": Traits(plain_weights=True),
    "qwen2moe": Traits(plain_weights=True),
    "olmoe": Traits(plain_weights=True),
    "lfm2": Traits(input_first=True),
    "lfm2moe": Traits(input_first=True),
    "nemotron_h": Traits(unturned="all"),
    "nemotron_h_moe": Traits(unturned="all"),
    "jamba": Traits(unturned="all"),
    "kimi-linear": Traits(unturned="all"),
    "gpt2": Traits(unturned="all"),
    "starcoder": Traits(unturned="all"),
    "bloom": Traits(unturned="all"),
    "mpt": Traits(unturned="all"),
    "smollm3": Traits(unturned="fourth"),
    "afmoe": Traits(unturned="fourth"),
    "cohere2": Traits(unturned="full"),
    "cohere2moe": Traits(unturned="full"),
    "exaone4": Traits(unturned="full"),
    "exaone-moe": Traits(unturned="full"),
}


@dataclass(frozen=True, slots=True)
class Mode:
    """How the engine reserves.

    Attributes:
        outputs: how many rows get logits.
        pinned: every norm runs on its layer's device (llama_context::graph_get_cb, where all layers are offloaded).
        offloads: the first device computes large batches with weights of the host.
        cuda: devices are CUDA's, which needs more for some operations.

    """

    outputs: int
    pinned: bool
    offloads: bool
    cuda: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One graph to build.

    Attributes:
        shape: the model.
        settings: the server's.
        mode: how the engine reserves.
        host: the number of the host's backend, after those of the devices.
        pipelined: batches overlap on several devices.
        windowed: some layers have a sliding window, which makes two caches (llama_kv_cache_iswa).
        flash: attention is fused (resolve_fused_ops): asked for, and possible in all layers.
        value_widths: how wide the cache of values is, by the width of the window.

    """

    shape: Shape
    settings: Settings
    mode: Mode
    host: int
    pipelined: bool
    windowed: bool
    flash: bool
    value_widths: Mapping[int, int]


def fused(settings: Settings, mode: Mode, layers: Iterable[Layer]) -> bool:
    """Say whether attention is fused: CUDA has it for some lengths of heads only (fattn.cu, best_fattn_kernel)."""
    if not mode.cuda:
        return settings.flash_attention
    return settings.flash_attention and all(layer.key_length in _CUDA_HEADS for layer in layers if layer.kv_heads)


def number(shape: Shape, key: str, default: int = 0) -> int:
    """Return a number of the header, of a list its largest; what is no number from 0 up is the default."""
    value: Any = shape.metadata.get(key, default)
    found = [int(each) for each in (value if isinstance(value, list) else [value]) if isinstance(each, int)]
    return max((each for each in found if each >= 0), default=default)


def rows(settings: Settings) -> int:
    """Return the tokens of the batch that the engine reserves for (llama_context::sched_reserve, graph_reserve)."""
    most = min(padded(settings.context), settings.ubatch, settings.batch)
    return -(-most // slots(settings)) * slots(settings)


def packed(kind: str) -> bool:
    """Say whether a tensor type packs numbers in blocks (ggml_is_quantized)."""
    return TYPE_BLOCKS.get(kind, (1, 1))[0] > 1


def block_kinds(shape: Shape) -> list[Kind]:
    """Return the kind of each block, read once for each shape; blocks that are alike have the same one."""
    found: list[Kind] | None = shape.cache.get("compute_kinds")
    if found is None:
        found = shape.cache["compute_kinds"] = _read(shape)
    return found


def _read(shape: Shape) -> list[Kind]:
    layers = _layers(shape)
    widths: list[dict[str, tuple[int, ...]]] = [{} for _ in layers]
    sizes: list[dict[str, int]] = [{} for _ in layers]
    for tensor in shape.tensors:
        block = tensor.block
        if block is not None and block < len(layers):
            name = tensor.name.split(".", 2)[2].removesuffix(".weight")
            widths[block][name] = tensor.dimensions
            sizes[block][name] = tensor.bytes
    windowed = any(layer.window for layer in layers)
    groups: dict[tuple[object, ...], list[int]] = {}
    for block, layer in enumerate(layers):
        cached = (
            _turns(shape, layer, windowed=windowed),
            layer.kind,
            layer.window,
            layer.kv_heads,
            layer.key_length,
            layer.cached,
            layer.state_elements,
            layer.index_key_length,
            shape.architecture == "gemma3n" and layer.number < SPARSE_LAYERS,
        )
        groups.setdefault((*cached, tuple(sorted(widths[block].items()))), []).append(block)
    made: dict[int, Kind] = {}
    for members in groups.values():
        largest = {name: max(sizes[block][name] for block in members) for name in sizes[members[0]]}
        first = layers[members[0]]
        strange = tuple(
            name for name, size in widths[members[0]].items() if len(size) > 1 and not _PLACED.fullmatch(name)
        )
        kind = Kind(widths[members[0]], largest, first, _turns(shape, first, windowed=windowed), strange)
        made.update(dict.fromkeys(members, kind))
    return [made[block] for block in range(len(layers))]


def _turns(shape: Shape, layer: Layer, *, windowed: bool) -> bool:
    unturned = TRAITS.get(shape.architecture, Traits()).unturned
    if shape.architecture.startswith("granite") and shape.metadata.get("rope.scaling.finetuned") is False:
        return False
    if unturned == "fourth":
        return (layer.number + 1) % 4 != 0
    if unturned == "full":
        return bool(layer.window) or not windowed
    return unturned == "none"


def _layers(shape: Shape) -> list[Layer]:
    """Return what each layer keeps; of an architecture that nobody described, as if all attended to everything."""
    if known(shape.architecture):
        if "layers" not in shape.cache:
            shape.cache["layers"] = kinds(shape)
        found: list[Layer] = shape.cache["layers"]
        return found
    heads = max(number(shape, "attention.head_count", 1), 1)
    length = number(shape, "attention.key_length", number(shape, "embedding_length") // heads)
    value = number(shape, "attention.value_length", length)
    kv_heads = number(shape, "attention.head_count_kv", heads)
    count = number(shape, "block_count") or 1 + max((tensor.block or 0 for tensor in shape.tensors), default=0)
    return [Layer(block, "full", kv_heads, length, value, cached=True) for block in range(min(count, _MOST_LAYERS))]
