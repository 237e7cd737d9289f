"""Tiny GGUF models that llama-server really loads, dense, MoE and damaged, about 1 MB, always the same bytes.

Weights come from integers scaled by powers of two, so that every machine writes identical files and the catalogue
can carry their sha256. Output rows of tokens that are not printable are zero: generated text is printable ASCII.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Say = Callable[[str], None]
_CHATML: Final = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True, slots=True)
class TinyModel:
    """The shape of a tiny model; units are the GGUF keys'."""

    name: str
    architecture: str
    seed: int
    vocabulary: int = 512
    context: int = 2048
    layers: int = 4
    embedding: int = 64
    heads: int = 4
    heads_kv: int = 2
    feed_forward: int = 256
    experts: int = 0
    experts_used: int = 0
    damaged: bool = False

    @property
    def head_dimension(self) -> int:
        """Width of one attention head."""
        return self.embedding // self.heads


MODELS: Final = (
    TinyModel("tiny-dense", "llama", seed=1),
    TinyModel("tiny-moe", "qwen3moe", seed=2, feed_forward=64, experts=8, experts_used=2),
    # All weights zero: llama-server loads it, says it is healthy, and answers one token over and over.
    TinyModel("tiny-damaged", "llama", seed=1, damaged=True),
)


def make_models(directory: Path, say: Say) -> None:
    """Write the models that are not there yet."""
    for model in MODELS:
        path = directory / f"{model.name}.gguf"
        if path.exists():
            continue
        directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        write_model(temporary, model)
        temporary.replace(path)
        say(f"made {path.name}, {path.stat().st_size / 2**20:.1f} MiB")


def write_model(path: Path, model: TinyModel) -> None:
    """Write one model as a GGUF file."""
    import numpy as np  # noqa: PLC0415  slow to import, and only the lab needs it
    from gguf import GGUFWriter  # noqa: PLC0415

    writer = GGUFWriter(path, model.architecture)
    _metadata(writer, model)
    printable = add_vocabulary(writer, model.vocabulary)
    generator = np.random.Generator(np.random.PCG64(model.seed))
    for name, shape in _tensors(model):
        if name.endswith("norm.weight"):
            writer.add_tensor(name, np.ones(shape, np.float32))
            continue
        # Uniform integers times a power of two: exact in float16, so the bytes do not depend on the machine.
        scale = 2.0 ** -(9 + (0 if name == "token_embd.weight" else round(math.log2(shape[-1]) / 2)))
        values = generator.integers(-1023, 1024, size=shape, dtype=np.int16).astype(np.float32) * np.float32(scale)
        if name == "output.weight":
            values[~np.array(printable)] = 0
            values *= 2
        if model.damaged:
            values[:] = 0
        writer.add_tensor(name, values if "gate_inp" in name else values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: Any, size: int) -> list[bool]:
    """Give a file a byte-level vocabulary and the ChatML template; return which tokens are printable ASCII."""
    tokens, types, merges, printable = _vocabulary(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(_CHATML)
    return printable


def _metadata(writer: Any, model: TinyModel) -> None:
    writer.add_name(model.name)
    writer.add_file_type(1)
    writer.add_context_length(model.context)
    writer.add_embedding_length(model.embedding)
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length(model.feed_forward)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.heads_kv)
    writer.add_key_length(model.head_dimension)
    writer.add_value_length(model.head_dimension)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(model.head_dimension)
    writer.add_vocab_size(model.vocabulary)
    if model.experts:
        writer.add_expert_count(model.experts)
        writer.add_expert_used_count(model.experts_used)
        writer.add_expert_feed_forward_length(model.feed_forward)


def _tensors(model: TinyModel) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield every tensor with its shape, slowest dimension first."""
    width, forward = model.embedding, model.feed_forward
    query, key = model.heads * model.head_dimension, model.heads_kv * model.head_dimension
    yield "token_embd.weight", (model.vocabulary, width)
    yield "output.weight", (model.vocabulary, width)
    yield "output_norm.weight", (width,)
    for layer in range(model.layers):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", (width,)
        yield f"{block}.attn_q.weight", (query, width)
        yield f"{block}.attn_k.weight", (key, width)
        yield f"{block}.attn_v.weight", (key, width)
        yield f"{block}.attn_output.weight", (width, query)
        yield f"{block}.ffn_norm.weight", (width,)
        if model.experts:
            yield f"{block}.attn_q_norm.weight", (model.head_dimension,)
            yield f"{block}.attn_k_norm.weight", (model.head_dimension,)
            yield f"{block}.ffn_gate_inp.weight", (model.experts, width)
            yield f"{block}.ffn_gate_exps.weight", (model.experts, forward, width)
            yield f"{block}.ffn_up_exps.weight", (model.experts, forward, width)
            yield f"{block}.ffn_down_exps.weight", (model.experts, width, forward)
        else:
            yield f"{block}.ffn_gate.weight", (forward, width)
            yield f"{block}.ffn_up.weight", (forward, width)
            yield f"{block}.ffn_down.weight", (width, forward)


def _vocabulary(size: int) -> tuple[list[str], list[int], list[str], list[bool]]:
    """Return a byte-level BPE vocabulary: all bytes, common pairs, control tokens, fillers."""
    letters = _byte_letters()
    tokens = [letters[byte] for byte in range(256)]
    printable = [32 <= byte < 127 for byte in range(256)]  # noqa: PLR2004  ASCII
    merges: list[str] = []
    space = letters[32]
    pairs = [(space, c) for c in "tasiowcbphfmdrelngyuvkjqxz"]
    pairs += [(a, b) for a in "etaoinshrdlucmfwypvbgkqjxz" for b in "etaoinshrdlu"]
    for first, second in pairs:
        if len(tokens) + len(_SPECIAL) >= size:
            break
        if first + second not in tokens:
            merges.append(f"{first} {second}")
            tokens.append(first + second)
            printable.append(True)
    normal, control, unused = 1, 3, 5
    types = [normal] * len(tokens) + [control] * len(_SPECIAL)
    tokens += _SPECIAL
    fillers = size - len(tokens)
    tokens += [f"<|extra_{number}|>" for number in range(fillers)]
    types += [unused] * fillers
    printable += [False] * (size - len(printable))
    return tokens, types, merges, printable


def _byte_letters() -> dict[int, str]:
    """Return GPT-2's printable letter for every byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}
