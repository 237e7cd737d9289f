"""How many blocks fit on which device: the search behind strategies B, C, D and auto. Bytes in, counts out."""

from __future__ import annotations

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
    return _needed(_Sums(costs), costs, counts)


def _needed(sums: _Sums, costs: Costs, counts: Counts) -> list[int]:
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
    """Lay all blocks but the first ``host`` over the devices, the first of ``order`` filled first.

    Returns None where they do not fit.
    """
    sums = _Sums(costs)
    counts = [0] * len(budgets)
    left = sums.blocks - host
    for place, number in enumerate(order):
        following = order[place + 1] if place + 1 < len(order) else None
        most = _most(sums, costs, budgets, counts, (number, following, left, host))
        if most is None:
            return None
        counts[number] = most
        left -= most
    found = Counts(tuple(counts), (0,) * len(counts), host)
    return found if not left and fits(costs, found, budgets) else None


def _most(
    sums: _Sums,
    costs: Costs,
    budgets: Sequence[int],
    counts: list[int],
    asked: tuple[int, int | None, int, int],
) -> int | None:
    """Return how many of the blocks that are left one device takes, if the following device takes the rest."""
    number, following, left, host = asked
    for count in range(left, -1, -1):
        if count < left and following is None:
            return None
        trial = list(counts)
        trial[number] = count
        if following is not None:
            trial[following] += left - count
        if _needed(sums, costs, Counts(tuple(trial), (0,) * len(trial), host))[number] <= budgets[number]:
            return count
    return None


def tail(costs: Costs, budgets: Sequence[int], order: Sequence[int]) -> Counts | None:
    """Lay as many of the last blocks over the devices as fit; the first stay on the host. None: not even one fits."""
    low, high = 0, len(costs.others)
    found = None
    while low < high:  # the fewest blocks on the host for which the others fit
        middle = (low + high) // 2
        trial = whole(costs, budgets, order, middle)
        if trial is None:
            low = middle + 1
        else:
            found, high = trial, middle
    return found


def partial(costs: Costs, budgets: Sequence[int], order: Sequence[int]) -> Counts | None:
    """Lay all blocks over the devices, with the experts of as many as fit, the first of ``order`` filled first.

    The blocks without their experts take what room is left, from the last of ``order`` on. Returns None where the
    blocks do not fit even without any experts.
    """
    sums = _Sums(costs)
    full = [0] * len(budgets)
    best = _with_bare(sums, costs, budgets, order, full)
    if best is None:
        return None
    for number in order:
        low, high = 0, sums.blocks - sum(full)
        while low < high:
            middle = (low + high + 1) // 2
            trial = _with_bare(sums, costs, budgets, order, [*full[:number], middle, *full[number + 1 :]])
            if trial is None:
                high = middle - 1
            else:
                best, low = trial, middle
        full[number] = low
    return best


def _with_bare(
    sums: _Sums, costs: Costs, budgets: Sequence[int], order: Sequence[int], full: Sequence[int]
) -> Counts | None:
    left = sums.blocks - sum(full)
    if left < 0:
        return None
    bare = [0] * len(full)
    for number in reversed(order):
        low, high = 0, left
        while low < high:
            middle = (low + high + 1) // 2
            trial = Counts(tuple(full), (*bare[:number], middle, *bare[number + 1 :]))
            # The blocks that are not laid yet cost about what any cost: the ranges are exact once all are laid.
            if _needed(sums, costs, trial)[number] <= budgets[number]:
                low = middle
            else:
                high = middle - 1
        bare[number] = low
        left -= low
    return None if left else _evened(sums, costs, budgets, Counts(tuple(full), tuple(bare)))


def _evened(sums: _Sums, costs: Costs, budgets: Sequence[int], counts: Counts) -> Counts | None:
    """Move blocks without experts from where room lacks to where it is: blocks do not all cost the same."""
    for _ in range(sums.blocks):
        room = [budget - need for budget, need in zip(budgets, _needed(sums, costs, counts), strict=True)]
        if min(room) >= 0:
            return counts
        source, target = room.index(min(room)), room.index(max(room))
        if not counts.bare[source] or room[target] <= 0:
            return None
        bare = list(counts.bare)
        bare[source] -= 1
        bare[target] += 1
        counts = Counts(counts.full, tuple(bare))
    return None
