"""What is known of one host whose plan is shown: its services, who may be active together, and who leaves for whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any, Final

from llamarig.cli.picture import Missing
from llamarig.config import budget
from llamarig.config.spec import Spec

# More names than these are counted.
_FEW: Final = 4


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of one host.

    Attributes:
        name: of the host.
        specs: of its services.
        all_specs: also where ``specs`` are those that were asked for.
        active: the services that should be serving; none where that is not known.
        default: the service that serves when nobody chose another.
        memory: MiB of the host's memory that its services may take; None where nobody declared it here.
        cards: a line for each card.
        warnings: what a person should know.
        incomplete: why it cannot be deployed yet.
        uuids: of its cards, in the order of the bus; none where nobody declared them here.
        notes: what follows from ports that services share.
        deployed: whether this is the host itself, and not its inventory.
        said: the daemon's word on a switch to some of ``specs``, by service; none where it was not asked.

    """

    name: str
    specs: Sequence[Spec]
    all_specs: Sequence[Spec]
    active: tuple[str, ...] = ()
    default: str | None = None
    memory: int | None = None
    cards: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    incomplete: tuple[Missing, ...] = ()
    uuids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    deployed: bool = False
    said: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def limit(self) -> int:
        """MiB of memory that all services of the host may take together, as far as it is known."""
        limits = [spec.memory_mib for spec in self.all_specs]
        return self.memory if self.memory is not None else max(limits, default=0)

    def to_dict(self) -> dict[str, Any]:
        """Return what programs get: specs, on the host with what leaves for each; pairs that fit; what is missing."""
        return {
            "specs": [{**spec.to_dict(), **(self.leaving(spec) if self.deployed else {})} for spec in self.specs],
            "default_service": self.default,
            "together": [list(pair) for pair in self.pairs()],
            "warnings": list(self.warnings),
            "incomplete": [asdict(missing) for missing in self.incomplete],
        }

    def leaving(self, spec: Spec) -> dict[str, Any]:
        """Say what stops for a service, who shares its port, who stops for memory, and why it would be refused."""
        others = [other for other in self.all_specs if other.service in self.active and other.service != spec.service]
        turns = [other.service for other in others if other.port == spec.port]
        rest = [other for other in others if other.service not in turns]
        room = [other.service for other in budget.must_leave(spec, rest, self.limit, self.default)]
        said = self.said.get(spec.service, {})
        return {
            "leaves": list(said.get("leaves") or []) if said else [*turns, *room],
            "same_port": turns,
            "must_leave": room,
            "refused": said.get("refused"),
        }

    def pairs(self) -> list[tuple[str, str]]:
        """Return every pair of services that may be active together: those that fit, on ports of their own."""
        ports = {spec.service: spec.port for spec in self.all_specs}
        return [pair for pair in budget.pairs(self.all_specs, self.limit) if ports[pair[0]] != ports[pair[1]]]

    def together(self) -> Iterator[tuple[str, ...]]:
        """Yield every largest set of two or more services that may be active together, the first ones at once."""
        ports = {spec.service: spec.port for spec in self.all_specs}
        seen: list[frozenset[str]] = []
        for names in budget.together(self.all_specs, self.limit):
            turns: dict[int, list[str]] = {}
            for name in names:
                turns.setdefault(ports[name], []).append(name)
            for chosen in product(*turns.values()):
                if len(chosen) > 1 and not any(set(chosen) <= known for known in seen):
                    seen.append(frozenset(chosen))
                    yield tuple(name for name in names if name in chosen)


def turns(specs: Sequence[Spec]) -> Iterator[str]:
    """Say of every port that several services share who they are."""
    ports: dict[int, list[str]] = {}
    for spec in specs:
        ports.setdefault(spec.port, []).append(spec.service)
    for port, names in sorted(ports.items()):
        if len(names) > 1:
            whom = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) <= _FEW else f"{len(names)} services"
            yield f"{whom} take turns on port {port}"
