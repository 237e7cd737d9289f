"""Which type each tensor of a file has: as llama-quantize chooses, and as published dynamic mixes add up.

Source of the rules: ``llama_tensor_get_type_impl``, ``tensor_allows_quantization`` and ``tensor_type_fallback`` in
``src/llama-quant.cpp`` of llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from llamarig.config.shape import TYPE_BLOCKS, Tensor
from llamarig.lab.ghost_parts import Dimensions, Header
from llamarig.lab.machine import LabError

_KEPT: Final = re.compile(
    r"_norm(_\w+)?\.weight$|ffn_gate_inp|ssm_conv1d|shortconv\.conv\.|attn_sinks|nextn\.[eh]norm|layer_output_scale"
    r"|altup_(correct|predict)_coef"
)
_AS_MADE: Final = re.compile(r"per_layer_model_proj|altup_(unembd_)?proj\.|altup_router\.|laurel_[lr]\.")
# Converted as f32, but llama-quantize takes it like any other matrix.
_FINE_AS_MADE: Final = re.compile(r"indexer\.proj\.")
# Where rows do not fill blocks of 256, a type with blocks of 32 takes over.
_FALLBACK: Final = {
    "q3_k": "q4_0",
    "q4_k": "q5_0",
    "q5_k": "q5_1",
    "q6_k": "q8_0",
    "iq3_xxs": "iq4_nl",
    "iq4_xs": "iq4_nl",
}
_VALUES: Final = re.compile(r"attn_(v|qkv|kv_b)\.weight$")


@dataclass(frozen=True, slots=True)
class Mix:
    """What types a quantisation gives.

    Attributes:
        type: of what no rule names.
        more: of values and of down projections in the blocks that llama-quantize spares; None where it spares none.
        values: of values in models with four queries or more to a key.
        rules: a pattern searched in a tensor's name, and its type; the first that matches. They replace what
            llama-quantize would choose.
        output: of ``output.weight``, or of embeddings that are tied.

    """

    type: str
    more: str | None = None
    values: str | None = None
    rules: Mapping[str, str] = field(default_factory=dict)
    output: str | None = None


_EXPERTS: Final = r"_exps\.weight$"
_ALL_BUT_EXPERTS: Final = r"^(?!.*_exps\.weight$)"

# As ``llama-quantize FILE <name>`` makes them.
PLAIN: Final[Mapping[str, Mix]] = {
    "f16": Mix("f16"),
    "bf16": Mix("bf16"),
    "q8_0": Mix("q8_0"),
    "q6_k": Mix("q6_k"),
    "q5_k_m": Mix("q5_k", more="q6_k", output="q6_k"),
    "q4_k_m": Mix("q4_k", more="q6_k", output="q6_k"),
    "iq4_xs": Mix("iq4_xs", values="q5_k", output="q6_k"),
    # It takes every three-dimensional tensor for experts, and so MLA's too.
    "mxfp4_moe": Mix("q8_0", rules={rf"{_EXPERTS}|attn_[kv]_b\.weight$": "mxfp4"}),
    # OpenAI's own files: experts as they were trained, the rest as converted.
    "mxfp4-f16": Mix("f16", rules={_EXPERTS: "mxfp4"}),
    "mxfp4-bf16": Mix("bf16", rules={_EXPERTS: "mxfp4"}),
}


def dynamic(experts: str, spared: str | None = None, rest: str = "q8_0", embeddings: str | None = None) -> Mix:
    """Return a mix as Unsloth's dynamic ones are: experts small, some of their down projections less so, the rest fine.

    Nobody publishes which tensor has which type, so the types are chosen to add up to the published size.
    """
    return Mix(experts, more=spared, rules={"token_embd": embeddings or rest, _ALL_BUT_EXPERTS: rest})


def quantised(header: Header, named: Iterable[tuple[str, Dimensions]], mix: Mix) -> tuple[Tensor, ...]:
    """Give each tensor of a model its type, in llama-quantize's order of tensors.

    Raises:
        LabError: a type for which rows are not long enough, and nothing stands in.

    """
    ordered = sorted(named, key=lambda tensor: _order(tensor[0]))
    values = [name for name, _ in ordered if _VALUES.search(name)]
    downs = [name for name, _ in ordered if "ffn_down" in name]
    result = []
    for name, dimensions in ordered:
        kind = _chosen(header, mix, name, values, downs) if _quantises(name, dimensions) else _unquantised(mix, name)
        result.append(Tensor(name, _fits(kind, name, dimensions), dimensions))
    return tuple(result)


def _order(name: str) -> tuple[int, str]:
    block = re.match(r"blk\.(\d+)\.", name)
    return (int(block[1]) if block else -1, name)


def _quantises(name: str, dimensions: Dimensions) -> bool:
    return len(dimensions) > 1 and name.endswith("weight") and not _KEPT.search(name) and not _AS_MADE.search(name)


def _unquantised(mix: Mix, name: str) -> str:
    if _AS_MADE.search(name):
        return mix.type if mix.type in {"f16", "bf16"} else "f16"
    return "f32"


def _chosen(header: Header, mix: Mix, name: str, values: list[str], downs: list[str]) -> str:
    if mix.output and (name == "output.weight" or (header.tied and name.endswith("token_embd.weight"))):
        return mix.output
    for rule, kind in mix.rules.items():
        if re.search(rule, name):
            return kind
    if mix.type in {"f16", "bf16", "q8_0"}:
        return "f32" if mix.type != "q8_0" and _FINE_AS_MADE.search(name) else mix.type
    eight = _of_eight(header, mix, name)
    if eight:
        return eight
    if _VALUES.search(name):
        return _value_type(header, mix, name, values)
    return _down_type(header, mix, name, downs) if "ffn_down" in name else mix.type


def _of_eight(header: Header, mix: Mix, name: str) -> str | None:
    """Return what llama-quantize gives attention in models of eight experts, as Mixtral is; None elsewhere."""
    if header.number("expert_count", default=0) != 8:  # noqa: PLR2004  the engine's own number
        return None
    if _VALUES.search(name) or name.endswith("attn_k.weight"):
        return "q8_0"
    small = name.endswith("attn_output.weight") and mix.type in {"q4_k", "iq4_xs"}
    return "q5_k" if small else None


def _value_type(header: Header, mix: Mix, name: str, values: list[str]) -> str:
    kind = mix.type
    heads = header.number("attention.head_count")
    heads_kv = header.number("attention.head_count_kv", default=heads)
    if mix.values and heads_kv and heads // heads_kv >= 4:  # noqa: PLR2004  the engine's threshold
        kind = mix.values
    elif mix.more and _spared(values.index(name), len(values)):
        kind = mix.more
    if kind == "q4_k" and _is_70b(header):
        kind = "q5_k"
    return kind


def _down_type(header: Header, mix: Mix, name: str, downs: list[str]) -> str:
    experts = header.number("expert_count", default=0) > 1
    place = _order(name)[0] if experts else downs.index(name)
    if mix.more and _spared(place, header.blocks):
        return mix.more
    if mix.type == "iq4_xs" and place < header.blocks // 8:
        return "q5_k"
    return mix.type


def _spared(place: int, count: int) -> bool:
    """Tell whether llama-quantize uses more bits here (``use_more_bits``): first and last eighth, each third else."""
    return place < count // 8 or place >= 7 * count // 8 or (place - count // 8) % 3 == 2  # noqa: PLR2004


def _is_70b(header: Header) -> bool:
    """Tell whether llama-quantize takes it for a model of 70 billion: 80 blocks, and heads that share keys."""
    heads = header.number("attention.head_count")
    shares = heads != header.number("attention.head_count_kv", default=heads)
    return header.blocks == 80 and header.architecture in {"llama", "qwen2"} and shares  # noqa: PLR2004


def _fits(kind: str, name: str, dimensions: Dimensions) -> str:
    for candidate in (kind, _FALLBACK.get(kind, kind), "f16"):
        if candidate in TYPE_BLOCKS and dimensions[0] % TYPE_BLOCKS[candidate][0] == 0:
            return candidate
    msg = f"tensor {name} cannot be of type {kind}"
    raise LabError(msg)
