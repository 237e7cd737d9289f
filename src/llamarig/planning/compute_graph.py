"""A model of what ggml does to a graph before it runs: backends for its nodes, copies between them, a place for each.

It follows ``ggml_backend_sched_split_graph`` (ggml-backend.cpp) and ``ggml_gallocr_alloc_graph_impl`` (ggml-alloc.c) as
far as sizes depend on them. A tensor that only looks at another one (a reshape, say) is that other one here.
"""

from __future__ import annotations

from typing import Final

ALIGNMENT: Final = 128  # ggml_backend_cuda_buffer_type_get_alignment; other backends have 32 to 256
COPIES: Final = 4  # GGML_SCHED_MAX_COPIES
_ENDLESS: Final = 1 << 62
_NOWHERE: Final = -1


class Node:
    """A tensor of the graph that needs memory while it lives.

    Attributes:
        size: bytes; 0 for an operation that writes into a cache.
        sources: what it is computed from, weights left out.
        reuses: whether its result may take the place of a source of the same size (``ggml_op_can_inplace``).
        place: the backend that computes it; None until the scheduler decides.
        weight: bytes of the host's weight that an offloaded operation takes with it, or 0.
        reshaped: what follows sees it through a reshape, and so cannot take its place.
        root: the tensor that this one is a part of, and lives in.

    """

    weight = 0
    reshaped = False
    root: Node | None = None
    copies: dict[int | None, Node] | None = None
    uses = 0
    offset = 0
    home = _NOWHERE
    kept = False

    def __init__(self, size: int, sources: tuple[Node, ...], place: int | None, *, reuses: bool = False) -> None:
        self.size = -(-size // ALIGNMENT) * ALIGNMENT
        self.sources = sources
        self.place = place
        self.reuses = reuses


class Arena:
    """The addresses of one compute buffer: the best fitting gap, else the end (``ggml_dyn_tallocr_alloc``)."""

    __slots__ = ("gaps", "peak")

    def __init__(self) -> None:
        self.gaps: list[tuple[int, int]] = [(0, _ENDLESS)]
        self.peak = 0

    def take(self, size: int) -> int:
        """Return the offset of a block of this size."""
        gaps = self.gaps
        best, found = _ENDLESS, len(gaps) - 1
        for number in range(found):
            room = gaps[number][1]
            if size <= room <= best:
                best, found = room, number
        offset, room = gaps[found]
        if room == size:
            del gaps[found]
        else:
            gaps[found] = (offset + size, room - size)
        self.peak = max(self.peak, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        """Take a block back (``ggml_dyn_tallocr_free_bytes``)."""
        gaps = self.gaps
        number = 0
        while gaps[number][0] < offset:
            number += 1
        following, room = gaps[number]
        if offset + size == following:
            gaps[number] = (offset, size + room)
        else:
            gaps.insert(number, (offset, size))
        if number:
            before, room = gaps[number - 1]
            if before + room == offset:
                gaps[number - 1 : number + 1] = [(before, room + gaps[number][1])]


class Graph:
    """Nodes in the order in which they are computed, and the inputs that the host fills before."""

    def __init__(self) -> None:
        self.inputs: list[Node] = []
        self.leafs: list[Node] = []
        self.nodes: list[Node] = []
        self.viewed = False

    def input(self, size: int) -> Node:
        """Add a tensor that the host fills (``ggml_set_input``)."""
        node = Node(size, (), None)
        self.inputs.append(node)
        return node

    def leaf(self, size: int, place: int) -> Node:
        """Add a tensor that nothing computes, and that is there from the start until its last use."""
        node = Node(size, (), place)
        self.leafs.append(node)
        return node

    def view(self, root: Node, size: int) -> Node:
        """Return a part of a tensor."""
        node = Node(size, (), None)
        node.root = root
        root.reshaped = self.viewed = True
        return node

    def _seen(self, sources: tuple[Node, ...]) -> tuple[Node, ...]:
        return tuple(source.root or source for source in sources) if self.viewed else sources

    def add(self, size: int, *sources: Node, place: int | None = None) -> Node:
        """Add an operation whose result needs memory of its own."""
        node = Node(size, self._seen(sources), place)
        self.nodes.append(node)
        return node

    def over(self, size: int, *sources: Node, place: int | None = None) -> Node:
        """Add an operation whose result may take the place of a source that is not needed any more."""
        node = Node(size, self._seen(sources), place, reuses=True)
        self.nodes.append(node)
        return node

    def buffers(self, backends: int, *, pipelined: bool) -> list[int]:
        """Return the size of each backend's buffer, the host's being the last; the graph is used up by it.

        With pipeline parallelism, inputs and whatever crosses backends are there four times and never freed.
        """
        host = backends - 1
        _assign(self.nodes, host)
        for node in self.inputs:
            node.place = host
        order = _with_copies(self.nodes)
        arenas = [Arena() for _ in range(backends)]
        copies = COPIES if pipelined else 1
        for node in self.inputs:
            _keep(node, arenas, copies)
        for node in self.leafs:
            _place(node, arenas)
        _count(order)
        if pipelined:
            for node, origin in order:
                if origin is not None:
                    _keep(node, arenas, copies)
        _allocate(order, arenas)
        return [arena.peak for arena in arenas]


def _assign(nodes: list[Node], host: int) -> None:
    """Decide where nodes without weights are computed: beside their neighbours, on a device rather than on the host.

    Pass 2 of ``ggml_backend_sched_split_graph``: devices expand down and up, then whatever is there.
    """
    for ignored in (host, None):
        for direction in (nodes, reversed(nodes)):
            current: int | None = None
            for node in direction:
                if node.place is None:
                    node.place = current
                else:
                    current = None if node.place == ignored else node.place


Step = tuple[Node, "Node | None"]


def _with_copies(nodes: list[Node]) -> list[Step]:
    """Cut the nodes into splits, and put copies of what comes from other backends before each.

    A copy comes with the node that it is of, which must live until then. Pass 5 of ``ggml_backend_sched_split_graph``.
    """
    order: list[Step] = []
    before: list[Step] = []
    within: list[Step] = []
    current = nodes[0].place
    for node in nodes:
        place = node.place
        if place != current or (node.weight and before):
            order += before
            order += within
            before, within, current = [], [], place
        for source in node.sources:
            if source.place != place:
                node.sources = tuple(_copied(each, place, before) for each in node.sources)
                break
        if node.weight:
            copy = Node(node.weight, (), place)
            before.append((copy, None))
            node.sources = (copy, *node.sources)
        within.append((node, None))
    return order + before + within


def _copied(source: Node, place: int | None, before: list[Step]) -> Node:
    if source.place == place:
        return source
    if source.copies is None:
        source.copies = {}
    copy = source.copies.get(place)
    if copy is None:
        copy = source.copies[place] = Node(source.size, (), place)
        before.append((copy, source))
    return copy


def _count(order: list[Step]) -> None:
    for node, origin in order:
        if origin is not None:
            origin.uses += 1
        for source in node.sources:
            source.uses += 1


def _allocate(order: list[Step], arenas: list[Arena]) -> None:
    """Give every node a place, and take it back after its last use (``ggml_gallocr_alloc_graph_impl``)."""
    for node, origin in order:
        if origin is not None:
            _release(origin, arenas)
        if node.size and node.home == _NOWHERE:
            _place(node, arenas)
        for source in node.sources:
            _release(source, arenas)


def _keep(node: Node, arenas: list[Arena], copies: int) -> None:
    node.kept = copies > 1
    node.home = node.place or 0
    for _ in range(copies):
        node.offset = arenas[node.home].take(node.size)


def _place(node: Node, arenas: list[Arena]) -> None:
    if node.reuses:
        for source in node.sources:
            fits = source.uses == 1 and source.size == node.size
            if fits and source.home != _NOWHERE and not source.kept and not source.reshaped:
                node.home, node.offset = source.home, source.offset
                source.home = _NOWHERE
                return
    node.home = node.place or 0
    node.offset = arenas[node.home].take(node.size)


def _release(node: Node, arenas: list[Arena]) -> None:
    node.uses -= 1
    if not node.uses and node.home != _NOWHERE and not node.kept:
        arenas[node.home].give(node.offset, node.size)
        node.home = _NOWHERE
