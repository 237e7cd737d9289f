"""The parts that every graph is put together from (llama-graph.cpp): inputs, products with weights, norms.

Every size is in bytes, and numbers are of single precision unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from llamarig.planning.cells import slots, states
from llamarig.planning.compute_case import TRAITS, Case, Placed, Traits, number, rows
from llamarig.planning.compute_graph import Graph, Node

F32: Final = 4
F16: Final = 2
I32: Final = 4
I64: Final = 8
_OFFLOAD_BATCH: Final = 32  # GGML_OP_OFFLOAD_MIN_BATCH, ggml_backend_cuda_device_offload_op

Finish = Callable[[], Node]
"""Adds the rest of a part, which the engine puts into its graph only where something asks for it."""


class Builder:
    """The graph of one batch, and the block that is being added to it.

    Attributes:
        case: what is built.
        traits: what the architecture's tensors do not show.
        graph: what is there of it.
        rows: tokens of the batch; ``slots``: sequences they belong to.
        snapshots: states that a recurrent layer gives back: of every token that may have to be taken back.
        batch_row: bytes of one number for every token; ``out_row``: for every token that gets logits.
        row: one of the two, as the part at hand needs it.
        widths, bytes: dimensions and sizes of the block's tensors.
        unit: the block's device; ``experts``: that of its experts; ``kept``: that of a cache it shares.
        alike: how many blocks it stands for.
        turns: the block turns queries and keys by their position.
        last: it is the last block.
        zeros: what sparse attention writes into masks for the chosen tokens.
        chosen_tokens: what the last indexer chose for sparse attention.
        expanded: where the nodes end that the engine has put into its graph; later ones may still be preceded.

    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.traits = TRAITS.get(case.shape.architecture, Traits())
        self.graph = Graph()
        self.rows = rows(case.settings)
        self.slots = slots(case.settings)
        self.snapshots = states(case.settings)
        self.batch_row = F32 * self.rows
        self.out_row = F32 * case.mode.outputs
        self.row = self.batch_row
        self.embedding = number(case.shape, "embedding_length")
        metadata = case.shape.metadata
        # A norm that subtracts the mean needs a place of its own: GGML_OP_NORM is not in ggml_op_can_inplace.
        self.centred = "attention.layer_norm_epsilon" in metadata and "attention.layer_norm_rms_epsilon" not in metadata
        self.widths: Mapping[str, tuple[int, ...]] = {}
        self.bytes: Mapping[str, int] = {}
        self.unit = self.experts = self.kept = case.host
        self.alike = 1
        self.turns = True
        self.last = False
        self.expanded = 0
        self.zeros: Node | None = None
        self.chosen_tokens: Node | None = None
        self._inputs: dict[str, Node] = {}

    def enter(self, placed: Placed, *, last: bool = False) -> None:
        """Begin a block."""
        kind = placed.kind
        self.widths, self.bytes, self.turns = kind.widths, kind.bytes, kind.turns
        self.unit, self.experts, self.kept, self.alike = placed.unit, placed.experts, placed.kept, placed.alike
        self.last, self.row = last, self.batch_row

    def input(self, name: str, size: int) -> Node:
        """Return an input, added where it is first used."""
        node = self._inputs.get(name)
        if node is None:
            node = self._inputs[name] = self.graph.input(size)
        return node

    def elsewhere(self, size: int, place: int) -> Node:
        """Return something that lies in another buffer of a device: it takes room where it is copied to.

        Every block looks at it anew and gets a copy of its own, which pipeline parallelism keeps.
        """
        return Node(size * (self.alike if self.case.pipelined else 1), (), place)

    @property
    def positions(self) -> Node:
        """Where each token stands (build_inp_pos); for models of pictures in four directions (mrope)."""
        directions = 4 if "rope.dimension_sections" in self.case.shape.metadata else 1
        return self.input("inp_pos", I32 * self.rows * directions)

    def weighted(self, node: Node, name: str, place: int | None = None) -> Node:
        """Put an operation where its weight is; the first device takes large batches from the host, weight and all."""
        node.place = self.unit if place is None else place
        if node.place == self.case.host and self.case.mode.offloads and self.rows >= _OFFLOAD_BATCH:
            node.place, node.weight = 0, max(self.bytes.get(name, 1), 1)
        return node

    def product(self, name: str, x: Node) -> Node:
        """Multiply by a matrix and add its bias (build_lora_mm)."""
        return self.biased(name, self.weighted(self.graph.add(math.prod(self.widths[name][1:]) * self.row, x), name))

    def biased(self, name: str, node: Node) -> Node:
        """Add a bias, where there is one."""
        bias = f"{name}.bias"
        return self.weighted(self.graph.over(node.size, node), bias) if bias in self.widths else node

    def norm(self, x: Node, name: str, *, pinned: bool = True) -> Node:
        """Normalize (build_norm); a norm that a block does not have changes nothing."""
        if name not in self.widths:
            return x
        normed = self.graph.add(x.size, x) if self.centred else self.graph.over(x.size, x)
        return self._weighted_norm(normed, name, pinned=pinned)

    def norm_view(self, x: Node, name: str, size: int) -> Node:
        """Normalize a view of a tensor, whose place the result cannot take."""
        return self._weighted_norm(self.graph.add(size, x), name)

    def _weighted_norm(self, normed: Node, name: str, *, pinned: bool = True) -> Node:
        if pinned and self.case.mode.pinned:
            normed.place = self.unit
        return self.biased(name, self.weighted(self.graph.over(normed.size, normed), name))

    def chosen(self, x: Node) -> Node:
        """In the last block, keep only the rows that get logits (get_rows of out_ids)."""
        if not self.last:
            return x
        size = x.size // self.batch_row * self.out_row
        return self.graph.add(size, x, self.input("out_ids", I32 * self.case.mode.outputs))
