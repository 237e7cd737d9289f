"""How much memory a model takes on every device and on the host: weights, cache, and compute buffers.

Weights and caches follow the engine's own arithmetic and agree with it to the MiB. Compute buffers have no closed form;
``compute.py`` says what was calibrated, and how exact it is.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from llamarig.config.attention import Layer, kinds, known
from llamarig.config.shape import Shape, ShapeError, Tensor
from llamarig.planning.cells import cells, element_bytes, states, streams
from llamarig.planning.compute import compute_buffers
from llamarig.planning.layout import HOST, Layout, Settings

# What llama.cpp's own --cpu-moe moves (common/arg.cpp, LLM_FFN_EXPS_REGEX): expert weights, and their biases.
EXPERTS: Final = re.compile(r"\.ffn_(up|down|gate|gate_up)_(ch|)exps")
EXPERTS_PATTERN: Final = r"ffn_(up|down|gate|gate_up)_(ch|)exps"
# Tensors of the input, which always stay on the CPU (llama-arch.cpp, LLM_TENSOR_LAYER_INPUT).
_INPUT: Final = ("token_embd", "position_embd", "token_types", "per_layer_token_embd", "masked_embd")
# Tensors of no block by their names, which are loaded as the first block's (tn(..., 0) in models/gemma4.cpp).
_FIRST: Final = ("per_layer_model_proj", "per_layer_proj_norm", "hrm_z_l_init")
# Architectures that load the copy of tied embeddings before the embeddings, so that the CPU holds both too.
_COPIED_FIRST: Final = frozenset({"gemma3n", "gemma4"})
MOST_BLOCKS: Final = 512  # LLAMA_MAX_LAYERS
_F32: Final = 4


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of a model's tensors, as a layout needs them.

    Attributes:
        experts: for each block, of the tensors that --override-tensor moves between devices.
        others: for each block, of all else.
        head: of what stands after the last block; with tied embeddings, their second copy.
        input: of what always stays on the CPU.
        skipped: of the layers that predict further tokens, which are not loaded unless asked for.

    """

    experts: tuple[int, ...]
    others: tuple[int, ...]
    head: int
    input: int
    skipped: int

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self.others)


@dataclass(frozen=True, slots=True)
class Part:
    """What one device, or the host, holds, in bytes."""

    weights: int
    cache: int
    compute: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.compute


@dataclass(frozen=True, slots=True)
class Memory:
    """What a server takes.

    Attributes:
        devices: of each device, in the server's order.
        host: of the CPU's side.
        logits: bytes that llama-fit-params counts more on the device of the output than a server takes.
        uncertainty: bytes by which a device's compute buffer may differ.
        unknown: what the memory model does not know of this model; empty when it knows all.

    """

    devices: tuple[Part, ...]
    host: Part
    logits: int
    uncertainty: int
    unknown: tuple[str, ...] = ()


def weights(shape: Shape, *, mtp: bool = False) -> Weights:
    """Sum up a shape's tensors by block.

    With ``mtp`` the last blocks that predict further tokens are loaded too (``nextn_predict_layers``).
    """
    key = ("weights", mtp)
    if key not in shape.cache:
        shape.cache[key] = _weights(shape, mtp=mtp)
    found: Weights = shape.cache[key]
    return found


def _weights(shape: Shape, *, mtp: bool) -> Weights:
    blocks = block_count(shape)
    loaded = blocks if mtp else blocks - extra_blocks(shape)
    experts, others = [0] * blocks, [0] * blocks
    head = before = skipped = 0
    for tensor in shape.tensors:
        block = tensor.block
        if block is None:
            if tensor.name.startswith(_INPUT):
                before += tensor.bytes
            elif tensor.name.startswith(_FIRST):
                others[0] += tensor.bytes
            else:
                head += tensor.bytes
        elif block >= loaded:
            skipped += tensor.bytes
        elif EXPERTS.search(tensor.name):
            experts[block] += tensor.bytes
        else:
            others[block] += tensor.bytes
    return Weights(tuple(experts), tuple(others), head + _tied(shape), before, skipped)


def _tied(shape: Shape) -> int:
    """Without an output matrix the engine makes a second copy of the embeddings (``TENSOR_DUPLICATED``)."""
    embeddings: Tensor | None = shape.by_name.get("token_embd.weight")
    return embeddings.bytes if embeddings and "output.weight" not in shape.by_name else 0


def block_count(shape: Shape) -> int:
    """Return how many blocks there are, with those that predict further tokens.

    Raises:
        ShapeError: more than the engine takes.

    """
    value = shape.metadata.get("block_count")
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        if value > MOST_BLOCKS:
            msg = f"block_count is {value}: the engine takes 1 to {MOST_BLOCKS}"
            raise ShapeError(msg)
        return value
    return max((tensor.block for tensor in shape.tensors if tensor.block is not None), default=-1) + 1


def extra_blocks(shape: Shape) -> int:
    """Return how many of the last blocks predict further tokens (MTP) and are not loaded by default."""
    value = shape.metadata.get("nextn_predict_layers", 0)
    return value if isinstance(value, int) and 0 <= value < block_count(shape) else 0


def cache_bytes(shape: Shape, settings: Settings) -> tuple[int, ...]:
    """Return the bytes of each block's cache: keys and values, or recurrent state.

    Sources: llama-kv-cache.cpp (constructor), llama-kv-cache-iswa.cpp (windows), llama-memory-recurrent.cpp (states in
    single precision, one for each slot), llama-model.cpp (``create_memory``: which block has which).

    Raises:
        UnknownArchitectureError: nobody said what this architecture's layers keep.
        ShapeError: its metadata cannot be.

    """
    key = ("cache", settings)
    if key not in shape.cache:
        widest = max((layer.kv_heads * layer.value_length for layer in layers(shape)), default=0)
        shape.cache[key] = tuple(_layer_cache(layer, settings, widest) for layer in layers(shape))
    found: tuple[int, ...] = shape.cache[key]
    return found


def layers(shape: Shape) -> list[Layer]:
    """Return what each layer keeps, read once for each shape."""
    if "layers" not in shape.cache:
        shape.cache["layers"] = kinds(shape)
    found: list[Layer] = shape.cache["layers"]
    return found


def _layer_cache(layer: Layer, settings: Settings, widest: int) -> int:
    """Return the bytes of one block's cache; without flash attention all values are as wide as the widest."""
    total = _F32 * states(settings) * (layer.conv_elements + layer.state_elements)
    if layer.mtp and not settings.mtp:
        return 0
    if not layer.cached and not layer.mtp:
        return total
    row = element_bytes(settings.type_k, layer.kv_heads * layer.key_length)
    values = layer.kv_heads * layer.value_length
    row += element_bytes(settings.type_v, values if settings.flash_attention or not values else widest)
    row += element_bytes(settings.type_k, layer.index_key_length)
    row += element_bytes(settings.type_v, layer.index_value_length)
    return total + cells(settings, layer.window) * streams(settings) * row


def sequence_state(shape: Shape | None, settings: Settings) -> int:
    """Return the bytes of a copy of one sequence's state: recurrent layers, and windows as far as they are kept.

    The server keeps such copies in the host's memory, because neither can be rolled back (``--ctx-checkpoints``).
    """
    if shape is None or not known(shape.architecture):
        return 0
    one = replace(settings, parallel=1, unified=True, flash_attention=True, mtp=False)
    kept = [layer for layer in layers(shape) if layer.state_elements or layer.conv_elements or layer.window]
    return sum(_layer_cache(layer, one, 0) for layer in kept) if not settings.swa_full else 0


def predict(shape: Shape, layout: Layout, settings: Settings) -> Memory:
    """Predict what a server takes on each device and on the host.

    Of a model whose architecture is not known the weights are counted, which need no knowledge, and nothing else;
    ``unknown`` says so.
    """
    held = weights(shape, mtp=settings.mtp)
    understood = known(shape.architecture)
    caches = cache_bytes(shape, settings) if understood else (0,) * held.blocks
    on_weights: Counter[int] = Counter({HOST: held.input})
    on_cache: Counter[int] = Counter()
    moved = layout.experts or layout.units
    for block in range(held.blocks):
        unit = layout.units[block]
        on_weights[unit] += held.others[block]
        on_weights[moved[block]] += held.experts[block]
        on_cache[unit if settings.kv_offload else HOST] += caches[block]
    output = layout.units[held.blocks]
    once = output == HOST and shape.architecture not in _COPIED_FIRST
    on_weights[output] += held.head - (_tied(shape) if once else 0)
    computed = compute_buffers(shape, layout, settings)
    unknown = () if understood else (f"architecture {shape.architecture!r}: its cache and compute buffers",)
    if understood and not computed.known:
        unknown = (f"compute buffers: blocks are unlike those of other models of architecture {shape.architecture!r}",)
    return Memory(
        devices=tuple(
            Part(on_weights[number], on_cache[number], computed.devices[number]) for number in range(layout.devices)
        ),
        host=Part(on_weights[HOST], on_cache[HOST], computed.host),
        logits=computed.logits,
        uncertainty=computed.uncertainty,
        unknown=unknown,
    )
