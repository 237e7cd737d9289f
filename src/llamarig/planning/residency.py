"""Who may serve when: ports that services share, services that stay, and services that leave by themselves. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llamarig.config import budget
from llamarig.config.address import joined
from llamarig.config.host import HostIntent
from llamarig.config.policy import MINUTE, Policy, Residency
from llamarig.config.records import Service
from llamarig.config.spec import Spec
from llamarig.errors import Problem

# More names than these are counted.
_FEW: Final = 4


@dataclass(frozen=True, slots=True)
class Port:
    """One port of the host, which the door holds.

    Attributes:
        port: its number.
        address: where the door listens, in HAProxy's words.
        services: those that answer there, one at a time.

    """

    port: int
    address: str
    services: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"port": self.port, "address": self.address, "services": list(self.services)}


def ports(services: Sequence[Service]) -> list[Port]:
    """Return the ports that the door holds, by number."""
    return [Port(port, _address(users[0]), tuple(s.name for s in users)) for port, users in sorted(_users(services))]


def notes(intent: HostIntent) -> list[str]:
    """Say which services take turns, and which of them a pinned one keeps out."""
    found = []
    for port in ports(intent.services):
        if len(port.services) > 1:
            many = len(port.services) > _FEW
            whom = f"{len(port.services)} services" if many else _listed(port.services)
            found.append(f"{whom} take turns on port {port.port}")
        pinned = [s.name for s in intent.services if s.pinned and s.name in port.services]
        others = [name for name in port.services if name not in pinned]
        if pinned and others:
            whom = "the others there" if len(others) > _FEW else _listed(others)
            found.append(f"{pinned[0]} is pinned on port {port.port}: {whom} can serve only after it was stopped")
    return found


def policy(intent: HostIntent) -> Policy:
    """Return when the services of a host come and go by themselves."""
    return Policy(
        default_service=default(intent),
        services={
            service.name: Residency(service.pinned, service.idle_minutes * MINUTE if service.idle_minutes else None)
            for service in intent.services
        },
        minimum_seconds=intent.minimum_minutes * MINUTE,
        hung_seconds=intent.hung_seconds,
        crash_limit=intent.crash_limit,
        crash_window_seconds=intent.crash_window_minutes * MINUTE,
    )


def default(intent: HostIntent) -> str | None:
    """Return the service that serves when nobody chose another."""
    return intent.default_service or (intent.services[0].name if intent.services else None)


def problems(intent: HostIntent) -> list[Problem]:
    """Return what cannot be said of ports and residency, whatever the services take."""
    return [*_no_doors(intent), *_two_meanings(intent), *_contradictions(intent), *_pinned_on_one_port(intent)]


def crowded(intent: HostIntent, specs: Sequence[Spec]) -> Iterator[Problem]:
    """Yield the pinned services that have no room for each other."""
    pinned = {service.name for service in intent.services if service.pinned}
    together = [spec for spec in specs if spec.service in pinned]
    if len(together) < len(pinned) or len(pinned) == 1:
        return
    names = {card.uuid: card.name for card in intent.hardware.gpus}
    most = intent.hardware.memory_mib - intent.hardware.reserve_mib
    for shortage in budget.shortages(together, most):
        whom = _listed(shortage.services)
        said = f"true for {whom}, which do not fit together: {shortage.named(names)}"
        yield Problem(intent.host, "pinned", said, "pin fewer of them, or make them smaller", shortage.services[-1])


def _users(services: Iterable[Service]) -> list[tuple[int, list[Service]]]:
    users: defaultdict[int, list[Service]] = defaultdict(list)
    for service in services:
        users[service.port].append(service)
    return list(users.items())


def _address(service: Service) -> str:
    """Write an address as HAProxy reads it: IPv6 for itself, or ``::`` would be IPv4's port too."""
    return joined(service.bind, service.port) + (" v6only" if ":" in service.bind else "")


def _no_doors(intent: HostIntent) -> Iterator[Problem]:
    """Yield services on a port, or at an address, that the door cannot hold."""
    for service in intent.services:
        if "%" in service.bind:
            said = f"{service.bind} is an address with a zone, which HAProxy cannot listen on"
            yield Problem(intent.host, "bind", said, "name another address of the host, or ::", service.name)
        owner = {intent.management_port: "the management API", intent.exporter_port: "the exporter"}.get(service.port)
        if owner is not None:
            said = f"{service.port} belongs to {owner}"
            yield Problem(intent.host, "port", said, "choose another port", service.name)


def _two_meanings(intent: HostIntent) -> Iterator[Problem]:
    """Yield services on one port that are reached differently: the port has one address, and one set of senders."""
    for port, users in _users(intent.services):
        first = users[0]
        for other in users[1:]:
            for key, mine, its in (
                ("bind", first.bind, other.bind),
                ("sources", sorted(first.sources), sorted(other.sources)),
            ):
                if mine != its:
                    said = f"services {first.name!r} and {other.name!r} share port {port}, with {key} {mine} and {its}"
                    remedy = f"say the same {key} for both, or give one of them a port of its own"
                    yield Problem(intent.host, key, said, remedy, other.name)


def _contradictions(intent: HostIntent) -> Iterator[Problem]:
    back = default(intent)
    for service in intent.services:
        idle = service.idle_minutes
        if idle is None:
            continue
        said, remedy = "", "take idle_minutes out"
        if service.name == back:
            said = "the default service is the one that returns when another is idle"
        elif service.pinned:
            said, remedy = "the service is pinned as well, and so stays", "keep one of pinned and idle_minutes"
        elif idle < intent.minimum_minutes:
            said = f"every service stays for llm_minimum_minutes, {intent.minimum_minutes}"
            remedy = f"at least {intent.minimum_minutes}, or a smaller llm_minimum_minutes"
        if said:
            yield Problem(intent.host, "idle_minutes", f"{idle}, but {said}", remedy, service.name)


def _pinned_on_one_port(intent: HostIntent) -> Iterator[Problem]:
    for port, users in _users(intent.services):
        pinned = [service.name for service in users if service.pinned]
        if len(pinned) > 1:
            said = f"true for {_listed(pinned)}, which take turns on port {port}: neither would leave for the other"
            remedy = "pin one of them, or give each a port of its own"
            yield Problem(intent.host, "pinned", said, remedy, pinned[1])


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
