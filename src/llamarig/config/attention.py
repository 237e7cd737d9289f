"""What each layer of a model keeps between tokens, as llama.cpp decides it from the header.

The data is in ``attention_rules``; this reads a shape by it, as llama.cpp does in ``load_hparams``, ``create_memory``
(``src/llama-model.cpp``) and ``src/llama-hparams.cpp``. What is not there is unknown: the engine must be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from llamarig.config.attention_rules import APART, RULES, Rule, Window
from llamarig.config.shape import Shape, ShapeError

Kind = Literal["full", "window", "recurrent", "mla", "none"]

_MOST_LAYERS: Final = 512  # LLAMA_MAX_LAYERS
# GLM-5.2 files that do not say which layers own an indexer (src/models/glm-dsa.cpp).
_GLM_5_2_CONTEXT: Final = 1 << 20


class UnknownArchitectureError(ShapeError):
    """An architecture whose cache is not described here; the message says so, and what can be done."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer keeps. Lengths are numbers of elements, not bytes.

    Attributes:
        number: its place, from 0; the block of the same number holds its tensors.
        kind: ``full`` attends to every token, ``window`` to the last ``window`` ones, ``mla`` to every token through
            one compressed key (and to the last ``window`` ones where that is set), ``recurrent`` to a state of fixed
            size, ``none`` to nothing.
        kv_heads: how many heads the cache holds for each token; 0 where it holds none.
        key_length: elements of one head's key.
        value_length: elements of one head's value; 0 where values are not cached (MLA reads them from the key).
        window: how many tokens back it looks; 0 for all of them.
        cached: whether the engine allocates a KV cache for it. Not for layers that reuse another layer's (Gemma 3n, 4),
            for MTP layers, which have a context of their own, nor for models without a cache (encoders, diffusion).
        mtp: a multi-token prediction layer: loaded only for ``--spec-type draft-mtp``.
        index_key_length: elements of the sparse attention indexer's key for each token; 0 without an indexer.
        index_value_length: elements of the value beside it, which only the indexer of MiniMax-M3 has.
        conv_elements: float32 numbers of convolution or token-shift state for each sequence (``n_embd_r``).
        state_elements: float32 numbers of recurrent state for each sequence (``n_embd_s``).

    A layer can have both a KV cache and a state (Falcon-H1).

    """

    number: int
    kind: Kind
    kv_heads: int = 0
    key_length: int = 0
    value_length: int = 0
    window: int = 0
    cached: bool = False
    mtp: bool = False
    index_key_length: int = 0
    index_value_length: int = 0
    conv_elements: int = 0
    state_elements: int = 0


def known(architecture: str) -> bool:
    """Say whether ``kinds`` can tell what the layers of this architecture keep."""
    return architecture in RULES


def architectures() -> list[str]:
    """Name every architecture that ``kinds`` knows."""
    return sorted(RULES)


def kinds(shape: Shape) -> list[Layer]:
    """Say what each layer keeps, MTP layers last.

    Raises:
        UnknownArchitectureError: the architecture is not in the table.
        ShapeError: its metadata lacks what the engine needs, or contradicts itself.

    """
    try:
        rule = RULES[shape.architecture]
    except KeyError:
        why = APART.get(shape.architecture, "it is not in this table")
        msg = f"what a layer of architecture {shape.architecture!r} keeps is not known: {why}; ask the engine instead"
        raise UnknownArchitectureError(msg) from None
    return _Reader(shape, rule).layers()


class _Reader:
    """Reads one shape by one rule; names follow ``llama_hparams``."""

    def __init__(self, shape: Shape, rule: Rule) -> None:
        self.shape, self.rule = shape, rule
        self.all = self.number("block_count")
        if not 0 < self.all <= _MOST_LAYERS:
            msg = f"block_count is {self.all}: the engine takes 1 to {_MOST_LAYERS}"
            raise ShapeError(msg)
        self.mtp = self.number("nextn_predict_layers", 0)
        if self.mtp > self.all:
            msg = f"nextn_predict_layers is {self.mtp}, of {self.all} blocks"
            raise ShapeError(msg)
        self.trunk = self.all - self.mtp
        self.embedding = self.number("embedding_length")
        self.heads = self.per_layer("attention.head_count", [0] * self.all)
        self.kv_heads = self.per_layer("attention.head_count_kv", self.heads)
        self.windows, self.width = self.swa()
        self.recurrent = self.recr()
        self.mla = rule.mla and self.is_mla()

    def number(self, key: str, default: int | None = None) -> int:
        value = self.shape.metadata.get(key, default)
        if value is None:
            msg = f"a model of architecture {self.shape.architecture} needs {key}, which this one does not say"
            raise ShapeError(msg)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            msg = f"{key} is {_short(value)}, no number from 0 up"
            raise ShapeError(msg)
        return value

    def listed(self, key: str) -> list[int] | None:
        value = self.shape.metadata.get(key)
        if not isinstance(value, list):
            return None
        if not all(isinstance(entry, int) and entry >= 0 for entry in value):
            msg = f"{key} is {_short(value)}, no list of numbers from 0 up"
            raise ShapeError(msg)
        return [int(entry) for entry in value]

    def per_layer(self, key: str, default: Sequence[int], count: int = 0) -> list[int]:
        count = count or self.all
        if key not in self.shape.metadata:
            return list(default)
        values = self.listed(key)
        if values is None:
            return [self.number(key)] * count
        if len(values) != count:
            msg = f"{key} has {len(values)} entries for {count} layers"
            raise ShapeError(msg)
        return values

    def swa(self) -> tuple[list[bool], int]:
        """Which layers have a window, and its width (load_swa_pattern, set_swa_pattern)."""
        window = self.rule.window
        if window is None or not self.windowed(window):
            return [False] * self.all, 0
        width = self.number("attention.sliding_window", window.default) if window.fixed is None else window.fixed
        if not width:
            msg = f"attention.sliding_window is 0, and {self.shape.architecture} has layers with a window"
            raise ShapeError(msg)
        pattern = self.listed("attention.sliding_window_pattern") if window.keyed else None
        if pattern is not None:
            return ([bool(entry) for entry in pattern] + [False] * self.all)[: self.all], width
        if window.listed:
            msg = (
                f"{self.shape.architecture} needs attention.sliding_window_pattern, a list with an entry for each layer"
            )
            raise ShapeError(msg)
        period = self.number("attention.sliding_window_pattern", window.period) if window.keyed else window.period
        trunk = [not period or _in_window(layer, period, window.dense_first) for layer in range(self.trunk)]
        return trunk + [False] * self.mtp, width

    def windowed(self, window: Window) -> bool:
        width = self.shape.metadata.get("attention.sliding_window")
        if window.when == "set":
            return bool(width)
        if window.when == "not_zero":
            return width != 0
        return window.when == "always" or self.trunk == 64  # noqa: PLR2004  EXAONE 4.0 32B, as the engine tells it

    def recr(self) -> list[bool]:
        """Which layers have a state instead of attention (is_recr_impl)."""
        how, trunk = self.rule.recurrent, [layer < self.trunk for layer in range(self.all)]
        if how == "all":
            return [True] * self.all
        if how == "no_kv_heads":
            return [inside and not heads for inside, heads in zip(trunk, self.kv_heads, strict=True)]
        if how == "no_kv_heads_no_ff":
            ff = self.feed_forward()
            return [inside and not any(both) for inside, *both in zip(trunk, self.kv_heads, ff, strict=True)]
        if how == "interval":
            interval = self.number("full_attention_interval", self.rule.interval)
            if not interval:
                msg = "full_attention_interval is 0: a number of layers from 1 up"
                raise ShapeError(msg)
            default = [int(inside and (layer + 1) % interval != 0) for layer, inside in enumerate(trunk)]
            return [bool(entry) for entry in self.per_layer("attention.recurrent_layers", default)]
        return [False] * self.all

    def feed_forward(self) -> list[int]:
        return self.per_layer("feed_forward_length", [0] * self.all)

    def is_mla(self) -> bool:
        key, value = (self.number(f"attention.{part}_length_mla", 0) for part in ("key", "value"))
        if bool(key) != bool(value):
            msg = "of attention.key_length_mla and attention.value_length_mla one is missing"
            raise ShapeError(msg)
        return bool(key)

    def head_length(self, part: Literal["key", "value"], *, windowed: bool) -> int:
        """n_embd_head_k and n_embd_head_v: embedding_length / head_count where the file says nothing."""
        said = self.number(f"attention.{part}_length", 0)
        heads = self.heads[0]
        if not heads and self.shape.architecture != "plamo2":
            said = 0  # the engine takes a model without heads in layer 0 for one without attention
        elif heads and f"attention.{part}_length" not in self.shape.metadata:
            said = self.embedding // heads
        return self.number(f"attention.{part}_length_swa", said) if windowed else said

    def state(self) -> tuple[int, int]:
        """n_embd_r and n_embd_s (src/llama-hparams.cpp): float32 numbers for each sequence of a recurrent layer."""
        wkv = self.number("wkv.head_size", 0)
        if wkv:
            return self.number("token_shift_count", 2) * self.embedding, self.embedding * wkv
        conv, inner, state = (self.number(f"ssm.{key}", 0) for key in ("conv_kernel", "inner_size", "state_size"))
        kda, heads = self.number("kda.head_dim", 0), self.heads[0]
        if kda:
            return 3 * (conv - 1 if conv else 3) * heads * kda, kda * kda * heads
        short = self.number("shortconv.l_cache", 0)
        if short:
            return self.embedding * (short - 1), state * inner
        if self.shape.architecture == "minimax-01":
            return 0, self.head_length("key", windowed=False) ** 2 * heads
        return max(conv - 1, 0) * (inner + 2 * self.number("ssm.group_count", 0) * state), state * inner

    def ple(self) -> tuple[list[int], int]:
        """Layers with an n-gram embedding module and the float32 numbers of its history (ple_conv_state)."""
        layers = self.listed("ple.layers") or []
        keys = ("ple.conv_kernel", "ple.ngram_size", "hyper_connection.count")
        kernel, ngram, streams = (self.number(key) for key in keys) if layers else (1, 0, 0)
        return layers, (kernel - 1) * ngram * streams * self.embedding

    def indexed(self) -> list[bool]:
        """Which layers own an indexer of sparse attention (is_indexer_full and the filters of create_memory)."""
        how, trunk = self.rule.index, [layer < self.trunk for layer in range(self.all)]
        if how == "no" or (how == "optional" and not self.number("attention.indexer.top_k", 0)):
            return [False] * self.all
        if how == "after_dense":
            dense = self.number("leading_dense_block_count", 0)
            return [layer >= dense for layer in range(self.all)]
        if how == "listed":
            types = [*(self.listed("attention.indexer.types") or []), *[0] * self.all][: self.trunk]
        else:
            default = [int(how != "optional")] * self.trunk
            if how == "glm_types" and self.number("context_length") >= _GLM_5_2_CONTEXT:
                default = [int(layer < 2 or layer % 4 == 2) for layer in range(self.trunk)]  # noqa: PLR2004
            keyed = how in {"types", "glm_types", "optional"}
            types = self.per_layer("attention.indexer.types", default, self.trunk) if keyed else default
        types += [0] * self.mtp
        attends = [not state for state in self.recurrent]
        return [all(row) for row in zip(trunk, types, attends, strict=True)]

    def kind(self, layer: int) -> Kind:
        if self.recurrent[layer]:
            return "recurrent"
        if not self.kv_heads[layer]:
            return "none"
        if self.rule.recurrent == "no_kv_heads_no_ff" and self.feed_forward()[layer]:
            return "none"
        if self.mla:
            return "mla"
        return "window" if self.windows[layer] else "full"

    def cached(self, layer: int) -> bool:
        """Whether the engine's layer filters keep it (create_memory, has_kv)."""
        if not self.rule.cache:
            return False
        if self.rule.kv_from_start == "20":
            own = 20
        elif self.rule.kv_from_start == "shared_kv_layers":
            own = self.all - self.number("attention.shared_kv_layers", 0)
        else:
            own = self.all
        return layer < own and (layer < self.trunk or self.rule.mtp_cached or not self.trunk)

    def layers(self) -> list[Layer]:
        lengths = {
            windowed: (self.head_length("key", windowed=windowed), self.head_length("value", windowed=windowed))
            for windowed in (False, True)
        }
        index = self.number("attention.indexer.key_length", 0) * self.rule.index_parts
        index_value = lengths[False][1] if self.rule.index == "after_dense" else 0
        ple_layers, ple = self.ple()
        state = self.state() if self.rule.recurrent != "no" else (0, 0)
        indexed = self.indexed()
        made = []
        for layer in range(self.all):
            kind, windowed = self.kind(layer), self.windows[layer]
            attends = kind in {"full", "window", "mla"}
            remembers = layer < self.trunk and (self.recurrent[layer] or self.rule.recurrent == "beside")
            key, value = lengths[windowed]
            made.append(
                Layer(
                    number=layer,
                    kind=kind,
                    kv_heads=self.kv_heads[layer] if attends else 0,
                    key_length=key if attends else 0,
                    value_length=value if attends and not self.mla else 0,
                    window=self.width if attends and windowed else 0,
                    cached=attends and self.cached(layer),
                    mtp=layer >= self.trunk,
                    index_key_length=index if indexed[layer] else 0,
                    index_value_length=index_value if indexed[layer] else 0,
                    conv_elements=state[0] + (ple if layer in ple_layers else 0) if remembers else 0,
                    state_elements=state[1] if remembers else 0,
                )
            )
        return made


def _in_window(layer: int, period: int, dense_first: bool) -> bool:
    return layer % period != 0 if dense_first else layer % period < period - 1


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004
