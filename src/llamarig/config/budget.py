"""Which services fit beside each other: what each takes, by prediction, against what the cards and the host have.

Pure, and of the standard library alone: hosts ask it before a switch, the control node while it plans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from llamarig.config.spec import DeviceMemory, Spec

# Up to so many active services every set of them is tried: 4096 at most.
_EXACT: Final = 12


@dataclass(frozen=True, slots=True)
class Shortage:
    """Where services do not fit together.

    Attributes:
        where: the card's name or UUID; ``host`` for the host's memory.
        services: those that take some of it, by name.
        needed: MiB that they take in all; None where one of them is not predicted.
        available: MiB that services may take; None where no prediction says it.

    """

    where: str
    services: tuple[str, ...]
    needed: int | None
    available: int | None

    def named(self, names: Mapping[str, str]) -> str:
        """Say it in a clause, sizes in GiB; cards that only a UUID is known of by these names."""
        where = names.get(self.where, self.where)
        if self.needed is None or self.available is None:
            return f"{' and '.join(self.services)} share {where}, and not all of them are predicted"
        return f"{where} has {self.available / 1024:.2f} GiB for services, and they take {self.needed / 1024:.2f}"


def predicted(spec: Spec) -> bool:
    """Say whether all of what a service takes is predicted."""
    return spec.memory is not None and not spec.memory.unknown


def host_need(spec: Spec) -> int:
    """Return the MiB of the host's memory that a service may take.

    Without a prediction this is the limit of its container, which it cannot pass.
    """
    if spec.memory is None or spec.memory.unknown:
        return spec.memory_mib
    host = spec.memory.host
    return min(host.weights + host.cache + host.compute + host.other, spec.memory_mib)


def shortages(specs: Sequence[Spec], host_mib: int | None = None) -> list[Shortage]:
    """Return where these services do not fit together; empty where they do.

    A card has room for what it has less what is kept on it, and a service that is not predicted has a card for itself.

    Args:
        specs: services of one host, each once.
        host_mib: MiB of the host's memory that its services may take in all; without it, the largest limit of theirs.

    """
    found = []
    for uuid in sorted({uuid for spec in specs for uuid in spec.gpus}):
        users = [spec for spec in specs if uuid in spec.gpus]
        shortage = _on_card(uuid, users)
        if shortage is not None:
            found.append(shortage)
    available = host_mib if host_mib is not None else max((spec.memory_mib for spec in specs), default=0)
    needed = sum(host_need(spec) for spec in specs)
    if needed > available:
        found.append(Shortage("host", _names(specs), needed, available))
    return found


def fits(specs: Sequence[Spec], host_mib: int | None = None) -> bool:
    """Say whether these services fit together."""
    return not shortages(specs, host_mib)


def pairs(specs: Sequence[Spec], host_mib: int | None = None) -> list[tuple[str, str]]:
    """Return every pair of services that fit together, in the order of ``specs``."""
    scales = _Scales(specs, host_mib)
    return [
        (specs[one].service, specs[other].service)
        for one, other in combinations(range(len(specs)), 2)
        if scales.bear([one, other])
    ]


def together(specs: Sequence[Spec], host_mib: int | None = None) -> Iterator[tuple[str, ...]]:
    """Yield every set of two or more services that fit together and leave no room for another of ``specs``.

    There can be very many of them; the first come at once.
    """
    scales = _Scales(specs, host_mib)
    alone = [number for number in range(len(specs)) if scales.bear([number])]
    for chosen in _maximal(scales, [], alone, []):
        if len(chosen) > 1:
            yield tuple(specs[number].service for number in sorted(chosen))


def must_leave(
    wanted: Spec, active: Sequence[Spec], host_mib: int | None = None, default: str | None = None
) -> list[Spec]:
    """Return the active services that must stop so that a wanted one fits: as few as possible.

    Of several such sets it is one without the ``default`` service, and then the one of the smallest models, which are
    the quickest to load again. Beyond twelve active services that fit beside the wanted one each alone, the set is one
    from which none can be taken away, and no longer surely the smallest.
    """
    others = [spec for spec in active if spec.service != wanted.service]
    limit = _limit([wanted, *others], host_mib)
    leaving = [spec for spec in others if not fits([wanted, spec], limit)]
    staying = [spec for spec in others if spec not in leaving]
    if len(staying) > _EXACT:
        leaving += _thinned(wanted, staying, limit, default)
    else:
        leaving += next(_smallest(wanted, staying, limit, default), staying)
    return [spec for spec in others if spec in leaving]


def _smallest(wanted: Spec, staying: Sequence[Spec], limit: int, default: str | None) -> Iterator[list[Spec]]:
    """Yield sets whose leaving makes room, the best first: of each size, the one that costs least to load again."""
    for count in range(len(staying) + 1):
        enough = [
            list(out)
            for out in combinations(staying, count)
            if fits([wanted, *(spec for spec in staying if spec not in out)], limit)
        ]
        if enough:
            yield min(enough, key=lambda out: (sum(_worth(spec, default)[0] for spec in out), sum(map(_size, out))))


def _thinned(wanted: Spec, staying: Sequence[Spec], limit: int, default: str | None) -> list[Spec]:
    kept: list[Spec] = []
    for spec in sorted(staying, key=lambda spec: _worth(spec, default), reverse=True):
        if fits([wanted, *kept, spec], limit):
            kept.append(spec)
    return [spec for spec in staying if spec not in kept]


def _worth(spec: Spec, default: str | None) -> tuple[bool, int]:
    return spec.service == default, _size(spec)


def _size(spec: Spec) -> int:
    """Return the bytes of a service's files, or where nobody said them, of its weights as predicted."""
    size = sum(item.bytes for item in spec.files)
    if not size and spec.memory is not None:
        size = (sum(part.weights for part in spec.memory.devices) + spec.memory.host.weights) << 20
    return size


def _limit(specs: Sequence[Spec], host_mib: int | None) -> int:
    return host_mib if host_mib is not None else max((spec.memory_mib for spec in specs), default=0)


class _Scales:
    """Weighs sets of the same services again and again, as ``fits`` weighs one."""

    def __init__(self, specs: Sequence[Spec], host_mib: int | None) -> None:
        self._host = _limit(specs, host_mib)
        self._taken = [host_need(spec) for spec in specs]
        self._room: dict[str, int] = {}
        # MiB that each takes of each card; None where that is not predicted, and so all of it.
        self._cards: list[dict[str, int | None]] = []
        for spec in specs:
            known = {part.uuid: part.taken for part in _parts(spec)} if predicted(spec) else {}
            self._cards.append({uuid: known.get(uuid) for uuid in spec.gpus})
            for part in _parts(spec):
                room = part.memory - part.kept
                self._room[part.uuid] = min(self._room.get(part.uuid, room), room)

    def bear(self, numbers: Sequence[int]) -> bool:
        """Say whether these services fit together."""
        if sum(self._taken[number] for number in numbers) > self._host:
            return False
        total: dict[str, int | None] = {}
        for number in numbers:
            for uuid, taken in self._cards[number].items():
                if uuid not in total:
                    total[uuid] = taken
                    continue
                before = total[uuid]
                if taken is None or before is None:
                    return False
                total[uuid] = before + taken
        return all(taken is None or taken <= self._room[uuid] for uuid, taken in total.items())


def _maximal(scales: _Scales, chosen: list[int], may: list[int], tried: list[int]) -> Iterator[list[int]]:
    """Yield the maximal sets that hold ``chosen``, some of ``may`` and none of ``tried``.

    What does not fit does not fit with more either, so each branch keeps only candidates that fit with what it has.
    """
    if scales.bear([*chosen, *may]):
        if not any(scales.bear([*chosen, *may, other]) for other in tried):
            yield [*chosen, *may]
        return
    tried = list(tried)
    for place, number in enumerate(may):
        one = [*chosen, number]
        later = [other for other in may[place + 1 :] if scales.bear([*one, other])]
        yield from _maximal(scales, one, later, [other for other in tried if scales.bear([*one, other])])
        tried.append(number)


def _on_card(uuid: str, users: Sequence[Spec]) -> Shortage | None:
    parts = [part for spec in users for part in _parts(spec) if part.uuid == uuid]
    where = parts[0].name if parts else uuid
    if not all(predicted(spec) for spec in users):
        return Shortage(where, _names(users), None, None) if len(users) > 1 else None
    needed = sum(part.taken for part in parts)
    available = min((part.memory - part.kept for part in parts), default=0)
    return Shortage(where, _names(users), needed, available) if needed > available else None


def _parts(spec: Spec) -> list[DeviceMemory]:
    return spec.memory.devices if spec.memory is not None else []


def _names(specs: Sequence[Spec]) -> tuple[str, ...]:
    return tuple(spec.service for spec in specs)
