"""Which ports of a host may be reached from outside, each as one rule of the firewall. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import Any, Final

from llamarig.config.host import HostIntent
from llamarig.config.records import Allowed, Service
from llamarig.errors import Problem

_FAMILIES: Final = {4: ("ipv4", "ip"), 6: ("ipv6", "ip6")}


@dataclass(frozen=True, slots=True)
class Opening:
    """One port that may be reached; ``match`` is what a packet must be like, in the words of nft(8).

    The port and the address are those that the sender dialled (``ct original``): for the containers that a site runs
    beside llamarig's, Docker rewrites both before any filter sees the packet.
    """

    protocol: str
    port: int
    match: str
    comment: str


def openings(services: Sequence[Service], allowed: Sequence[Allowed]) -> list[dict[str, Any]]:
    """Return what is open beside SSH, as plain types: services on their own address, if not loopback, then the rest.

    Services that take turns on a port are one opening.
    """
    found: list[Opening] = []
    turns: dict[tuple[str, int, tuple[str, ...]], list[Service]] = {}
    for service in services:
        turns.setdefault((service.bind, service.port, tuple(sorted(service.sources))), []).append(service)
    for users in turns.values():
        service = users[0]
        address = ip_address(service.bind.partition("%")[0])
        if address.is_loopback:
            continue
        family, word = _FAMILIES[address.version]
        where = f"meta nfproto {family}" if address.is_unspecified else f"ct original {word} daddr {address}"
        found += [
            _opening("tcp", service.port, f"{where} {who}".strip(), _named(users))
            for who in _senders(service.sources, only=address.version)
        ]
    for item in allowed:
        found += [
            _opening(item.protocol, item.port, who, item.comment or "firewall_allow") for who in _senders(item.sources)
        ]
    return [asdict(opening) for opening in found]


def problems(intent: HostIntent) -> list[Problem]:
    """Return the services whose ``sources`` nothing would enforce, or that leave nobody."""
    found = []
    for service in intent.services:
        address = ip_address(service.bind.partition("%")[0])
        said = ""
        if service.sources and not intent.firewall:
            said, remedy = "the firewall is off, so nothing would enforce it", "take it out, or firewall_enabled: true"
        elif service.sources and address.is_loopback:
            said, remedy = f"the service is published on {service.bind} only", "take it out, or set bind"
        elif service.sources and not list(_senders(service.sources, only=address.version)):
            said = f"no network in it is IPv{address.version}, as bind {service.bind} is"
            remedy = f"name an IPv{address.version} network"
        if said:
            found.append(Problem(intent.host, "sources", said, remedy, service.name))
    return found


def _named(users: Sequence[Service]) -> str:
    """Name the services of a port in the length that a comment of nft may have."""
    others = f" and {len(users) - 1} more" if len(users) > 1 else ""
    return f"service {users[0].name}{others}"


def _opening(protocol: str, port: int, who: str, comment: str) -> Opening:
    match = f"{who} meta l4proto {protocol} ct original proto-dst {port}".strip()
    return Opening(protocol, port, match, comment)


def _senders(sources: Sequence[str], only: int | None = None) -> Iterator[str]:
    """Yield one condition for each family of the sources; an empty one where everybody may send."""
    if not sources:
        yield ""
        return
    networks = [ip_network(source) for source in sources]
    # nft refuses a set in which one network holds another.
    for group in (
        list(collapse_addresses([n for n in networks if isinstance(n, IPv4Network)])),
        list(collapse_addresses([n for n in networks if isinstance(n, IPv6Network)])),
    ):
        if group and only in {None, group[0].version}:
            family, word = _FAMILIES[group[0].version]
            everybody = group[0].prefixlen == 0
            names = ", ".join(str(network) for network in group)
            yield f"meta nfproto {family}" if everybody else f"{word} saddr {{ {names} }}"
