"""How many blocks fit on which device: the search behind strategies B, C, D and auto. Bytes in, counts out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Costs:
    """What blocks cost, in bytes.

    Attributes:
        others: of each block, what its device must hold in any case: attention, shared experts, norms, and its cache.
        experts: of each block, what may lie on the host instead.
        head: what stands after the last block.
        fixed: of each device, what it holds whatever lies on it: compute buffers.

    """

    others: Sequence[int]
    experts: Sequence[int]
    head: int
    fixed: Sequence[int]


@dataclass(frozen=True, slots=True)
class Counts:
    """Blocks of each device in the devices' order, from the first block on.

    Attributes:
        full: blocks whose experts lie with them.
        bare: blocks after those, whose experts lie on the host.
        host: blocks before all others that lie on the host altogether.

    """

    full: tuple[int, ...]
    bare: tuple[int, ...]
    host: int = 0

    @property
    def units(self) -> tuple[int, ...]:
        """How many blocks each device has."""
        return tuple(a + b for a, b in zip(self.full, self.bare, strict=True))


class _Sums:
    """Costs of ranges of blocks in constant time."""

    def __init__(self, costs: Costs) -> None:
        self.others = [0, *accumulate(costs.others)]
        self.experts = [0, *accumulate(costs.experts)]
        self.blocks = len(costs.others)


def needed(costs: Costs, counts: Counts) -> list[int]:
    """Return the bytes that each device needs for these counts."""
    sums = _Sums(costs)
    result = []
    block = counts.host
    last = max((n for n, units in enumerate(counts.units) if units), default=0)
    for number, (full, bare) in enumerate(zip(counts.full, counts.bare, strict=True)):
        end = block + full + bare
        need = sums.others[end] - sums.others[block] + sums.experts[block + full] - sums.experts[block]
        if number == last:
            need += costs.head
        result.append(need + costs.fixed[number] if full + bare or number == last else 0)
        block = end
    return result


def fits(costs: Costs, counts: Counts, budgets: Sequence[int]) -> bool:
    """Say whether no device needs more than its budget."""
    return all(need <= budget for need, budget in zip(needed(costs, counts), budgets, strict=True))


def whole(costs: Costs, budgets: Sequence[int], order: Sequence[int], host: int = 0) -> Counts | None:
    """Lay all blocks but the first ``host`` over the devices: as many as fit on the first of ``order``, and so on.

    Returns None where they do not fit.
    """
    return _Search(costs, budgets, order, bare=False).best(host)


def tail(costs: Costs, budgets: Sequence[int], order: Sequence[int]) -> Counts | None:
    """Lay as many of the last blocks over the devices as fit; the first stay on the host. None: not even one fits."""
    search = _Search(costs, budgets, order, bare=False)
    low, high = 0, len(costs.others)
    while low < high:  # the fewest blocks on the host for which the others fit: one more on it never needs more room
        middle = (low + high) // 2
        if search.best(middle) is None:
            low = middle + 1
        else:
            high = middle
    return search.best(low)


def partial(costs: Costs, budgets: Sequence[int], order: Sequence[int]) -> Counts | None:
    """Lay all blocks over the devices, with the experts of as many as fit, most of them on the first of ``order``.

    The blocks without their experts take what room is left, from the last of ``order`` on. Returns None where the
    blocks do not fit even without any experts.
    """
    return _Search(costs, budgets, order).best()


class _Search:
    """The best of all ways to lay blocks over devices, each of which takes a range: dynamic programming over both.

    A way is worth its blocks with experts, then those of them on the first device of ``order``, on the next, and so on,
    then the blocks without experts on the last of ``order``; written as one number, which adds up over the devices.
    """

    def __init__(self, costs: Costs, budgets: Sequence[int], order: Sequence[int], *, bare: bool = True) -> None:
        self.sums, self.head = _Sums(costs), costs.head
        self.room = [budget - fixed for budget, fixed in zip(budgets, costs.fixed, strict=True)]
        self.bare = bare
        devices, base = len(order), self.sums.blocks + 1
        self.worth_full, self.worth_bare = [0] * devices, [0] * devices
        for place, number in enumerate(order):
            self.worth_full[number] = base ** (2 * devices) + base ** (2 * devices - 1 - place)
            self.worth_bare[number] = base**place
        self.known: dict[tuple[int, int], tuple[int, list[tuple[int, int]]] | None] = {}

    def best(self, host: int = 0) -> Counts | None:
        """Return the best way to lay the blocks from this one on; None where there is none."""
        found = self._from(0, host) if host < self.sums.blocks else None
        if found is None:
            return None
        return Counts(tuple(full for full, _ in found[1]), tuple(bare for _, bare in found[1]), host)

    def _from(self, number: int, start: int) -> tuple[int, list[tuple[int, int]]] | None:
        """Return the best way to lay the blocks from ``start`` over the devices from ``number`` on, and its worth."""
        if number == len(self.room):
            return (0, []) if start == self.sums.blocks else None
        if (number, start) not in self.known:
            self.known[number, start] = self._tried(number, start)
        return self.known[number, start]

    def _tried(self, number: int, start: int) -> tuple[int, list[tuple[int, int]]] | None:
        best = None
        last = number == len(self.room) - 1
        for end in range(self.sums.blocks if last else start, self.sums.blocks + 1):
            full = self._most_full(number, start, end)
            if full is None:  # and a longer range needs more room
                break
            rest = self._from(number + 1, end)
            if rest is None:
                continue
            bare = end - start - full
            worth = rest[0] + full * self.worth_full[number] + bare * self.worth_bare[number]
            if best is None or worth > best[0]:
                best = (worth, [(full, bare), *rest[1]])
        return best

    def _most_full(self, number: int, start: int, end: int) -> int | None:
        """Return how many blocks of a range a device takes with their experts; None where it cannot take the range."""
        sums = self.sums
        room = self.room[number] - (sums.others[end] - sums.others[start])
        if end == sums.blocks:
            room -= self.head
        if start == end:
            most = 0
        elif room < 0:
            return None
        else:
            most = bisect_right(sums.experts, room + sums.experts[start], start, end + 1) - 1 - start
        return most if self.bare or most == end - start else None
